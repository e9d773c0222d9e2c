-- The CRM: audits of the measured account (organisation 1) and of eight others. build.py puts the named values in.
SELECT setseed(0.5);

CREATE TABLE users (id bigint PRIMARY KEY, email varchar, full_name varchar);
INSERT INTO users SELECT n, 'user' || n || '@bench.example', 'User ' || n FROM generate_series(1, %(users)s) n;

CREATE TABLE audits (
    id bigint NOT NULL, auditable_id integer, auditable_type varchar, associated_id integer, associated_type varchar,
    user_id integer, user_type varchar, username varchar, action varchar, audited_changes jsonb, version integer DEFAULT 0,
    comment varchar, remote_address varchar, request_uuid varchar, created_at timestamp);

-- The n-th contact of the measured account, and of the others: two of three ids are its own.
CREATE FUNCTION pg_temp.mine(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT (n / 2) * 3 + n %% 2 + 1';
CREATE FUNCTION pg_temp.theirs(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 3 + 3';
-- A contact's place from 0 on by a uniform u: weight (place + 10) ** -0.8, shuffled so that heavy contacts lie anywhere.
CREATE FUNCTION pg_temp.skewed(u float8, number int) RETURNS int LANGUAGE sql IMMUTABLE AS
    'SELECT ((least(floor((u * ((number + 10) ^ 0.2 - 10 ^ 0.2) + 10 ^ 0.2) ^ 5.0 - 10), number - 1)::bigint * 7919) %% number)::int';

-- at: 0 is two years before the live sync began, 1 its beginning; less than 1.02.
CREATE TEMP TABLE event (at float8, class text, org int, person int, record bigint, n bigint, empty boolean DEFAULT false, deal int, other int);

-- Audits of contacts, and of notes, tasks and tickets associated with them; one in two hundred changes nothing; one in fifty is beyond.
CREATE TEMP TABLE direct AS
SELECT CASE WHEN g %% 50 = 7 THEN 1.002 + random() * 0.018 ELSE random() END AS at,
       CASE WHEN k < 0.45 THEN 'Crm::Person' WHEN k < 0.65 THEN 'Crm::Task' WHEN k < 0.85 THEN 'Crm::Note' ELSE 'Crm::Ticket' END AS class,
       1 AS org, pg_temp.mine(pg_temp.skewed(u, %(persons)s)) AS person, g %% 200 = 3 AS empty
FROM (SELECT g, random() AS k, random() AS u FROM generate_series(1, %(direct)s + %(direct)s / 40) g) drawn
UNION ALL
SELECT random(), CASE WHEN g %% 2 = 0 THEN 'Crm::Person' ELSE 'Crm::Note' END, 2 + n %% 8, pg_temp.theirs(n), false
FROM (SELECT g, pg_temp.skewed(random(), greatest(12, %(persons)s / 2)) AS n FROM generate_series(1, %(others)s) g) drawn;

INSERT INTO event (at, class, org, person, record, n, empty)
SELECT at, class, org, person,
       CASE WHEN class = 'Crm::Person' THEN person ELSE dense_rank() OVER (PARTITION BY class ORDER BY person, (rn - 1) / 3) END,
       CASE WHEN class = 'Crm::Person' THEN rn ELSE (rn - 1) %% 3 + 1 END, empty
FROM (SELECT *, row_number() OVER (PARTITION BY class, person ORDER BY at) AS rn FROM direct) numbered;

-- Companies; and deals, each created, then linked to one to three contacts, one in five to a company, then updated four times.
INSERT INTO event (at, class, org, record, n) SELECT 0, 'Crm::Company', 1, c, 1 FROM generate_series(1, %(deals)s / 5 + 1) c;
CREATE TEMP TABLE deal AS SELECT d, 1 + d %% 3 AS contacts, random() * 0.8 AS at, pg_temp.skewed(random(), %(persons)s) AS first FROM generate_series(1, %(deals)s) d;
INSERT INTO event (at, class, org, record, n) SELECT at, 'Crm::Deal', 1, d, 1 FROM deal;
INSERT INTO event (at, class, org, person, record, n, deal)
SELECT at + 1e-6 * (i + 1), 'Crm::DealPerson', 1, pg_temp.mine((first + i * (%(persons)s / 4 + 1)) %% %(persons)s), d * 3 + i, 1, d FROM deal, generate_series(0, contacts - 1) i;
INSERT INTO event (at, class, org, record, n, deal, other) SELECT at + 5e-5, 'Crm::DealCompany', 1, d, 1, d, d / 5 + 1 FROM deal WHERE d %% 5 = 0;
INSERT INTO event (at, class, org, record, n) SELECT at + 1e-4 + (0.199 * random()), 'Crm::Deal', 1, d, i + 1 FROM deal, generate_series(1, 4) i;

-- Text for bodies: hexadecimal, so that it does not compress to nothing, in one of five with escapes and letters beyond ASCII.
CREATE TEMP TABLE pool AS
SELECT p, (SELECT string_agg(md5(p || '.' || i) || CASE WHEN p %% 5 > 0 THEN ' ' WHEN i %% 9 = 0 THEN E'\n' WHEN i %% 9 = 4 THEN ' "é" ' ELSE ' ' END, '')
           FROM generate_series(1, CASE WHEN p < 4096 THEN 12 ELSE 600 END) i) AS text
FROM generate_series(0, 4096 + 15) p;
CREATE INDEX ON pool (p);
ANALYZE pool;

CREATE TEMP TABLE drawn AS
SELECT row_number() OVER (ORDER BY at, n) AS id, e.*,
       random() AS actor, random() AS status, random() AS size, (random() * 18000)::int AS cut, floor(random() * 4096)::int AS page
FROM event e;

INSERT INTO audits
SELECT id, record, class, CASE WHEN deal IS NOT NULL THEN deal WHEN class NOT IN ('Crm::Person', 'Crm::Deal', 'Crm::Company') THEN person END,
       CASE WHEN deal IS NOT NULL THEN 'Crm::Deal' WHEN class NOT IN ('Crm::Person', 'Crm::Deal', 'Crm::Company') THEN 'Crm::Person' END,
       CASE WHEN actor < 0.6 THEN 1 + (actor ^ 3 / 0.216 * (%(users)s - 1))::int WHEN actor < 0.7 THEN 7 END,
       CASE WHEN actor < 0.6 THEN 'User' WHEN actor < 0.7 THEN 'Integration' END,
       CASE WHEN actor BETWEEN 0.7 AND 0.8 THEN 'import ' || (actor * 200)::int END,
       CASE WHEN n = 1 THEN 'create' WHEN class = 'Crm::Note' AND n = 3 THEN 'destroy' ELSE 'update' END,
       CASE
           WHEN empty AND n > 1 AND NOT (class = 'Crm::Note' AND n = 3) THEN '{}'
           WHEN class = 'Crm::DealPerson' THEN jsonb_build_object('organization_id', org, 'crm_deal_id', deal, 'crm_person_id', person, 'role', filler)
           WHEN class = 'Crm::DealCompany' THEN jsonb_build_object('organization_id', org, 'crm_deal_id', deal, 'crm_company_id', other, 'role', filler)
           WHEN n = 1 OR class = 'Crm::Note' AND n = 3 THEN
               jsonb_build_object('organization_id', org, 'name', class || ' ' || record, 'phone', '+1 (216) 2778-8793', 'owner_id', cut, 'score', 0.50, 'body', filler)
               || CASE WHEN status < 0.005 THEN '{"encrypted_password": "[REDACTED]", "reset_token": "x"}' ELSE '{}' END::jsonb
           ELSE jsonb_build_object('body', jsonb_build_array(left(filler, length(filler) / 2), right(filler, length(filler) / 2)), 'score', '[0.50, 1.25]'::jsonb)
               || CASE WHEN status >= 0.3 THEN '{}' WHEN class = 'Crm::Task' THEN '{"crm_task_status_id": [1, 3]}' WHEN class = 'Crm::Deal' THEN '{"crm_stage_id": [2, 4]}'
                       WHEN class = 'Crm::Ticket' THEN '{"ticket_status_id": [1, 3]}' ELSE '{"is_pinned": [false, true]}' END::jsonb
       END,
       n, CASE WHEN empty THEN 'looked at' WHEN status > 0.98 THEN 'by hand' END, '10.0.0.1', CASE WHEN actor < 0.8 THEN gen_random_uuid()::text END,
       %(live_since)s::timestamp + (at - 1) * interval '730 days'
FROM drawn JOIN LATERAL (
    SELECT CASE WHEN size > 0.9997 THEN repeat(text, 9) WHEN size > 0.99 THEN left(text, 2000 + cut) ELSE left(text, 270 + (size * 80)::int) END AS filler
    FROM pool WHERE p = CASE WHEN size > 0.99 THEN 4096 + page %% 16 ELSE page END) body ON true
ORDER BY id;

ALTER TABLE audits ADD PRIMARY KEY (id);
CREATE INDEX auditable_index ON audits (auditable_type, auditable_id, version);
CREATE INDEX associated_index ON audits (associated_type, associated_id);
CREATE INDEX user_index ON audits (user_id, user_type);
CREATE INDEX index_audits_on_request_uuid ON audits (request_uuid);
CREATE INDEX index_audits_on_created_at ON audits (created_at);

-- Live rows for what lies beyond: every other one names its audit.
CREATE TABLE live_row AS
SELECT gen_random_uuid() AS id, md5('account 1')::uuid AS account_id, md5(person::text)::uuid AS contact_id,
       lower(CASE class WHEN 'Crm::Person' THEN 'contact' ELSE substr(class, 6) END) || '/' || CASE a.action WHEN 'destroy' THEN 'delete' ELSE a.action END AS category,
       'system' AS actor_kind, a.created_at AT TIME ZONE 'UTC' AS occurred_at, a.audited_changes AS changes, '{}'::jsonb AS context, 'live' AS origin,
       CASE WHEN a.id %% 2 = 0 THEN a.id END AS source_audit_id
FROM drawn d JOIN audits a USING (id) WHERE d.org = 1 AND d.at >= 1;

-- What the pipeline must come to, counted by rules of its own: links are the deals' facts above, not the audits'.
CREATE TABLE expected AS
WITH direct AS (SELECT at >= 1 AS beyond, a.audited_changes = '{}' AS nothing FROM drawn d JOIN audits a USING (id) WHERE org = 1 AND d.deal IS NULL AND d.person IS NOT NULL),
     linked AS (SELECT sum(contacts * 5 + CASE WHEN d %% 5 = 0 THEN contacts ELSE 0 END) AS number FROM deal)
SELECT count(*) FILTER (WHERE NOT beyond AND NOT nothing) + (SELECT number FROM linked) AS activities,
       count(*) FILTER (WHERE NOT beyond AND nothing) AS skipped, count(*) FILTER (WHERE beyond) AS beyond, (SELECT count(*) FROM audits) AS audits,
       (SELECT number FROM linked) AS links, (SELECT avg(length(audited_changes::text)) FROM audits)::int AS average_bytes
FROM direct;

-- For the floor: which audits reach which contact through a deal, and how many each contact has besides.
CREATE TEMP TABLE member AS SELECT d, i, pg_temp.mine((first + i * (%(persons)s / 4 + 1)) %% %(persons)s) AS person FROM deal CROSS JOIN generate_series(0, contacts - 1) i;
CREATE TABLE linked AS
SELECT m.person, e.id AS audit FROM member m JOIN drawn e ON e.class = 'Crm::DealPerson' AND e.record = m.d * 3 + m.i
UNION ALL SELECT m.person, e.id FROM member m JOIN drawn e ON e.class = 'Crm::Deal' AND e.record = m.d AND e.n > 1
UNION ALL SELECT m.person, e.id FROM member m JOIN drawn e ON e.class = 'Crm::DealCompany' AND e.deal = m.d;
CREATE TABLE weight AS
SELECT pg_temp.mine(g) AS person, count(d.id) AS number FROM generate_series(0, %(persons)s - 1) g
LEFT JOIN drawn d ON d.person = pg_temp.mine(g) AND d.deal IS NULL AND d.org = 1 AND d.at < 1 GROUP BY g;
