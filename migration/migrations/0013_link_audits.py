from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # an index of millions of rows is built while workers go on

    dependencies = [("migration", "0012_account_organization")]

    operations = [
        AddIndexConcurrently("joinconcern", models.Index(fields=["index", "audit_id"], name="joinconcern_audit")),
        AddIndexConcurrently("linkoddity", models.Index(fields=["index", "audit_id"], name="linkoddity_audit")),
    ]
