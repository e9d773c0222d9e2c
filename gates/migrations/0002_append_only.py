"""Evidence, sign-offs, events and mapping revisions are records: the database itself refuses to change, remove or empty them."""

from django.db import migrations

FORWARD = """
CREATE TRIGGER evidence_append_only BEFORE UPDATE OR DELETE ON gates_evidence
    FOR EACH ROW EXECUTE FUNCTION migration_refuse_change();
CREATE TRIGGER signoff_append_only BEFORE UPDATE OR DELETE ON gates_signoff
    FOR EACH ROW EXECUTE FUNCTION migration_refuse_change();
CREATE TRIGGER evidence_never_emptied BEFORE TRUNCATE ON gates_evidence
    FOR EACH STATEMENT EXECUTE FUNCTION migration_refuse_change();
CREATE TRIGGER signoff_never_emptied BEFORE TRUNCATE ON gates_signoff
    FOR EACH STATEMENT EXECUTE FUNCTION migration_refuse_change();
CREATE TRIGGER event_never_emptied BEFORE TRUNCATE ON migration_event
    FOR EACH STATEMENT EXECUTE FUNCTION migration_refuse_change();
CREATE TRIGGER mappingrevision_never_emptied BEFORE TRUNCATE ON migration_mappingrevision
    FOR EACH STATEMENT EXECUTE FUNCTION migration_refuse_change();
"""
BACKWARD = """
DROP TRIGGER mappingrevision_never_emptied ON migration_mappingrevision;
DROP TRIGGER event_never_emptied ON migration_event;
DROP TRIGGER signoff_never_emptied ON gates_signoff;
DROP TRIGGER evidence_never_emptied ON gates_evidence;
DROP TRIGGER signoff_append_only ON gates_signoff;
DROP TRIGGER evidence_append_only ON gates_evidence;
"""


class Migration(migrations.Migration):
    dependencies = [("gates", "0001_initial"), ("migration", "0002_append_only")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
