INSERT INTO accounts SELECT md5('account ' || n)::uuid, n, 'Account ' || n FROM generate_series(1, 2) n;
INSERT INTO contacts (id, account_id, source, source_id, name)
SELECT md5(p::text)::uuid, md5('account 1')::uuid, 'crm', p, 'Contact ' || p FROM generate_series(1, %(contacts)s) p;
INSERT INTO contacts (id, account_id, source, source_id, name)
SELECT md5(p::text)::uuid, md5('account 2')::uuid, 'crm', p, 'Contact ' || p FROM generate_series(10000001, 10000001 + %(others)s / 30) p;
