-- The CDP: what withdrawing a run and removing stale rows need beside cdp.sql. Afterwards:
--   REVOKE DELETE ON contact_activity_logs FROM calm_loader;
\if :{?role} \else \set role calm_loader \endif
\if :{?schema} \else \set schema public \endif

GRANT DELETE ON :"schema".contact_activity_logs TO :"role";
