-- One account of a chosen shape: contacts with so many audits each, one deal with so many contacts and audits, and others' audits around them.
CREATE TABLE users (id bigint PRIMARY KEY, email varchar, full_name varchar);
INSERT INTO users SELECT n, 'user' || n || '@bench.example', 'User ' || n FROM generate_series(1, %(users)s) n;

CREATE TABLE audits (
    id bigint NOT NULL, auditable_id integer, auditable_type varchar, associated_id integer, associated_type varchar,
    user_id integer, user_type varchar, username varchar, action varchar, audited_changes jsonb, version integer DEFAULT 0,
    comment varchar, remote_address varchar, request_uuid varchar, created_at timestamp);

-- Own contacts are numbered from 1 on, the others' from 10,000,001. at: within a day; the deal and its links come first.
INSERT INTO audits
SELECT row_number() OVER (ORDER BY at, n), record, class, CASE WHEN deal THEN 1 END, CASE WHEN deal THEN 'Crm::Deal' END, 1 + (hash %% %(users)s), 'User', NULL,
       CASE n WHEN 1 THEN 'create' ELSE 'update' END,
       CASE WHEN class = 'Crm::DealPerson' THEN jsonb_build_object('organization_id', 1, 'crm_deal_id', 1, 'crm_person_id', record, 'role', 'buyer')
            WHEN n = 1 THEN jsonb_build_object('organization_id', org, 'name', class || ' ' || record, 'body', body)
            ELSE jsonb_build_object('body', jsonb_build_array(left(body, 170), right(body, 170)), 'score', '[0.50, 1.25]'::jsonb) END,
       n, NULL, '10.0.0.1', gen_random_uuid()::text, timestamp '2024-01-01' + at * interval '1 day'
FROM (
    SELECT *, abs(hashint8(record::bigint * 1000003 + n)) AS hash, repeat(md5(record::bigint || '.' || n), 11) AS body FROM (
        SELECT random() AS at, 'Crm::Person' AS class, 1 AS org, p AS record, n, false AS deal
        FROM generate_series(1, %(contacts)s) p, generate_series(1, %(each)s) n
        UNION ALL SELECT -2, 'Crm::Deal', 1, 1, 1, false WHERE %(linked)s > 0
        UNION ALL SELECT -1, 'Crm::DealPerson', 1, p, 1, true FROM generate_series(1, %(linked)s) p
        UNION ALL SELECT random(), 'Crm::Deal', 1, 1, n + 1, false FROM generate_series(1, %(of_deal)s) n
        UNION ALL SELECT random(), 'Crm::Person', 2, 10000001 + n / 30, n %% 30 + 1, false FROM generate_series(0, %(others)s - 1) n) made) drawn;

ALTER TABLE audits ADD PRIMARY KEY (id);
CREATE INDEX auditable_index ON audits (auditable_type, auditable_id, version);
CREATE INDEX associated_index ON audits (associated_type, associated_id);
CREATE INDEX user_index ON audits (user_id, user_type);
CREATE INDEX index_audits_on_request_uuid ON audits (request_uuid);
CREATE INDEX index_audits_on_created_at ON audits (created_at);
