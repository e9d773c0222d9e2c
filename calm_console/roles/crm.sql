-- The CRM: the role by which the console reads audits and users, and nothing else. Gate A measures that it holds.
-- Run by the database's owner; a replica takes roles and grants over from its primary, so there.
--   psql -d crm -f crm.sql          and then, which asks for the password:  psql -d crm -c '\password calm_crm_reader'
-- Other names: psql -v role=... -v schema=...
\if :{?role} \else \set role calm_crm_reader \endif
\if :{?schema} \else \set schema public \endif

CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"role";
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".audits, :"schema".users TO :"role";
