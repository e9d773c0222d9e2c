-- The passwords of console.sql's two roles, from files, for where nobody is there to type them: compose.yaml's PostgreSQL runs both when it is first
-- started. Neither password stands among the arguments of a process or in a table but as its digest.
--   psql -d calm_console -v secrets=/run/secrets -f console_passwords.sql
-- Other names: psql -v owner=... -v role=...
\if :{?owner} \else \set owner calm_console_owner \endif
\if :{?role} \else \set role calm_console \endif
\if :{?secrets} \else \set secrets /run/secrets \endif

\set owner_password `cat :'secrets'/console_owner_password`
\set password `cat :'secrets'/console_password`
ALTER ROLE :"owner" PASSWORD :'owner_password';
ALTER ROLE :"role" PASSWORD :'password';
