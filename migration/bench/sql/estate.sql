-- A dry run and a production run of each account of the estate, finished, with three chunks each.
INSERT INTO migration_run (uuid, account_id, mode, state, reason_code, reason, mapping_revision_id, pipeline_version, capabilities, systems, chunk_size,
                           candidates, warnings, planned_at, planned_by, started_at, finished_at, token, lease_owner)
SELECT gen_random_uuid(), a.id, mode, 'succeeded', '', '', (SELECT max(id) FROM migration_mappingrevision), 1, '[]', 'bench', 10000,
       25000, '[]', now(), 'bench', now(), now() + interval '1 minute', 0, ''
FROM migration_account a, unnest('{dry_run,production}'::text[]) mode WHERE a.crm_organization_id > 100000 ORDER BY a.id, mode;
INSERT INTO migration_chunk (uuid, run_id, number, person_from, person_to, expected, state, reason, attempts, generation, token, lease_owner, ended_at,
                             receipt, seconds)
SELECT gen_random_uuid(), r.id, n, n, n, 8333, 'done', '', 1, 1, 1, '', now(), %(receipt)s::jsonb, 1
FROM migration_run r, generate_series(1, 3) n WHERE r.systems = 'bench';
ANALYZE;
