-- The console's own database, which is to be there and empty: one role that owns the tables and makes schema migrations, and one for all else.
-- The second may not alter a table, nor switch the triggers off that keep evidence, sign-offs, events and mapping revisions from being changed.
-- Run by an administrator of the server:
--   createdb -T template0 -E UTF8 calm_console && psql -d calm_console -f console.sql
--   psql -d calm_console -c '\password calm_console_owner' -c '\password calm_console'
-- `manage.py migrate` runs with the owner's DATABASE_URL; web, workers, beat and every other command with the other one's.
-- Other names: psql -v owner=... -v role=...
\if :{?owner} \else \set owner calm_console_owner \endif
\if :{?role} \else \set role calm_console \endif
\if :{?schema} \else \set schema public \endif

CREATE ROLE :"owner" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"owner", :"role";
GRANT USAGE, CREATE ON SCHEMA :"schema" TO :"owner";
GRANT USAGE ON SCHEMA :"schema" TO :"role";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"role";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT USAGE ON SEQUENCES TO :"role";
-- What schema migrations have made already.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA :"schema" TO :"role";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA :"schema" TO :"role";
