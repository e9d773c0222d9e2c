-- The CDP: the role that reads accounts and contacts and writes activities, and schema calm with the console's fences and receipts.
-- Run by the database's owner, who then owns the schema too.
--   psql -d cdp -f cdp.sql          and then, which asks for the password:  psql -d cdp -c '\password calm_loader'
-- Other names: psql -v role=... -v schema=...
-- Removing rows (withdrawing a run, stale rows) takes cdp_delete.sql as well, for as long as that is wanted.
\if :{?role} \else \set role calm_loader \endif
\if :{?schema} \else \set schema public \endif

CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- Rows are staged in temporary tables.
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO :"role";
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".accounts, :"schema".contacts TO :"role";
GRANT SELECT, INSERT, UPDATE ON :"schema".contact_activity_logs TO :"role";

-- The same as `manage.py prepare_cdp --sql` prints.
CREATE SCHEMA IF NOT EXISTS calm;
CREATE TABLE IF NOT EXISTS calm.receipts (
    chunk        uuid PRIMARY KEY,
    run_id       uuid NOT NULL,
    account_id   uuid NOT NULL,
    token        bigint NOT NULL,
    generation   integer NOT NULL,
    receipt      jsonb,
    committed_at timestamptz
);
CREATE INDEX IF NOT EXISTS receipts_run ON calm.receipts (run_id);

GRANT USAGE ON SCHEMA calm TO :"role";
GRANT SELECT, INSERT, UPDATE ON calm.receipts TO :"role";
