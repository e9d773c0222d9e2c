"""The same rows by the Django ORM, for comparison. Imported in a process of the benchmark only: nothing else has this model."""

from typing import ClassVar

from django.conf import settings
from django.db import connections, models
from psycopg.conninfo import conninfo_to_dict

BATCH = 1000


class Activity(models.Model):
    id = models.UUIDField(primary_key=True)
    account_id = models.UUIDField()
    contact_id = models.UUIDField()
    category = models.TextField()
    actor_kind = models.TextField()
    actor_id = models.TextField(null=True)
    actor_name = models.TextField(null=True)
    occurred_at = models.DateTimeField()
    changes = models.JSONField()
    context = models.JSONField()
    origin = models.TextField()
    source_audit_id = models.BigIntegerField(null=True)
    run_id = models.UUIDField(null=True)
    inserted_at = models.DateTimeField()

    objects: ClassVar[models.Manager["Activity"]] = models.Manager()

    class Meta:
        managed = False
        db_table = "contact_activity_logs"
        app_label = "migration"

    def __str__(self) -> str:
        return str(self.id)


def copy_rows(finished: str, number: int) -> int:
    """Read `number` finished rows as objects and create them in the CDP, a thousand to a statement."""
    for alias, url in (("finished", finished), ("cdp", settings.CDP_DATABASE_URL)):
        parts = conninfo_to_dict(url)
        connections.settings[alias] = connections.settings["default"] | {
            "NAME": parts["dbname"], "USER": parts["user"], "PASSWORD": parts.get("password", ""), "HOST": parts["host"], "PORT": parts.get("port", ""),
        }  # fmt: skip
    rows = Activity.objects.using("finished").filter(origin="crm_migration")[:number].iterator(chunk_size=BATCH)
    done, batch = 0, []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            done += len(Activity.objects.using("cdp").bulk_create(batch))
            batch = []
    return done + len(Activity.objects.using("cdp").bulk_create(batch))
