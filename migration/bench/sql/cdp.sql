-- The CDP: nine accounts and their contacts. A contact's id is made of its person's, so that the floor can make it in SQL; it lies as anywhere
-- as a random one.
INSERT INTO accounts SELECT md5('account ' || n)::uuid, n, 'Account ' || n FROM generate_series(1, 9) n;
INSERT INTO contacts (id, account_id, source, source_id, name)
SELECT md5(person::text)::uuid, md5('account 1')::uuid, 'crm', person, 'Contact ' || person
FROM (SELECT (n / 2) * 3 + n %% 2 + 1 AS person FROM generate_series(0, %(persons)s - 1) n) mine;
INSERT INTO contacts (id, account_id, source, source_id, name)
SELECT md5((n * 3 + 3)::text)::uuid, md5('account ' || 2 + n %% 8)::uuid, 'crm', n * 3 + 3, 'Contact ' || n * 3 + 3
FROM generate_series(0, greatest(12, %(persons)s / 2) - 1) n;
