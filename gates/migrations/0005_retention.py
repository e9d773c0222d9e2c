"""Evidence stays append-only but for one change: the body of an old one may give way to its SHA-256. Sign-offs, events and revisions stay as they were."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION gates_blanked(findings jsonb, facts jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_array(jsonb_build_object('ok', NULL, 'sentence',
        'What was measured is no longer kept; its SHA-256 is ' || encode(sha256(convert_to(findings::text || facts::text, 'UTF8')), 'hex') || '.'))
$$;
CREATE FUNCTION gates_refuse_but_blanking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.facts <> '{}' AND OLD.measured_at < now() - interval '30 days'
       AND NEW.facts = '{}' AND NEW.findings = gates_blanked(OLD.findings, OLD.facts)
       AND to_jsonb(NEW) - '{facts,findings}'::text[] = to_jsonb(OLD) - '{facts,findings}'::text[] THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'Rows of % are a record: they are added, never changed or removed.', TG_TABLE_NAME;
END $$;
DROP TRIGGER evidence_append_only ON gates_evidence;
CREATE TRIGGER evidence_append_only BEFORE DELETE ON gates_evidence
    FOR EACH ROW EXECUTE FUNCTION migration_refuse_change();
CREATE TRIGGER evidence_changed_by_retention_only BEFORE UPDATE ON gates_evidence
    FOR EACH ROW EXECUTE FUNCTION gates_refuse_but_blanking();
"""
BACKWARD = """
DROP TRIGGER evidence_changed_by_retention_only ON gates_evidence;
DROP TRIGGER evidence_append_only ON gates_evidence;
CREATE TRIGGER evidence_append_only BEFORE UPDATE OR DELETE ON gates_evidence
    FOR EACH ROW EXECUTE FUNCTION migration_refuse_change();
DROP FUNCTION gates_refuse_but_blanking();
DROP FUNCTION gates_blanked(jsonb, jsonb);
"""


class Migration(migrations.Migration):
    dependencies = [("gates", "0004_signoff_valid_days")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
