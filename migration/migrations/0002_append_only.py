"""Events and mapping revisions are never changed: the database itself refuses, whatever program asks."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION migration_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Rows of % are a record: they are added, never changed or removed.', TG_TABLE_NAME;
END $$;
CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON migration_event
    FOR EACH ROW EXECUTE FUNCTION migration_refuse_change();
CREATE TRIGGER mappingrevision_append_only BEFORE UPDATE OR DELETE ON migration_mappingrevision
    FOR EACH ROW EXECUTE FUNCTION migration_refuse_change();
"""
BACKWARD = """
DROP TRIGGER mappingrevision_append_only ON migration_mappingrevision;
DROP TRIGGER event_append_only ON migration_event;
DROP FUNCTION migration_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("migration", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
