import django.db.models.deletion
import migration.states
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("migration", "0004_summary"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="run",
            options={"ordering": ("-id",), "permissions": [("withdraw_run", "Can withdraw a run: remove its rows from the CDP")]},
        ),
        migrations.AlterModelOptions(
            name="stalerow",
            options={
                "ordering": ("-run", "person_id", "audit_id"),
                "permissions": [("remove_stalerow", "Can remove stale rows from the CDP")],
            },
        ),
        migrations.RemoveConstraint(
            model_name="chunk",
            name="chunk_state_known",
        ),
        migrations.AddField(
            model_name="chunk",
            name="ended_at",
            field=models.DateTimeField(help_text="When it was done, failed or split; the database's clock.", null=True),
        ),
        migrations.AddField(
            model_name="chunk",
            name="parent",
            field=models.ForeignKey(
                help_text="The chunk it was split from.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="parts",
                to="migration.chunk",
            ),
        ),
        migrations.AddField(
            model_name="chunk",
            name="sessions",
            field=models.JSONField(help_text="The worker's in the CRM and the CDP: {system: [[process id, its start], ...]}.", null=True),
        ),
        migrations.AddField(
            model_name="run",
            name="withdrawal",
            field=models.JSONField(help_text="Rows removed so far, by category; see withdrawal.py.", null=True),
        ),
        migrations.AlterField(
            model_name="chunk",
            name="expected",
            field=models.PositiveBigIntegerField(
                help_text="Audits of these contacts when the run was planned; a split chunk's are its parts'."
            ),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(fields=["run", "-ended_at"], name="chunk_last_ended"),
        ),
        migrations.AddConstraint(
            model_name="chunk",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "state__in",
                        [
                            migration.states.ChunkState["PENDING"],
                            migration.states.ChunkState["LEASED"],
                            migration.states.ChunkState["SPLIT"],
                            migration.states.ChunkState["DONE"],
                            migration.states.ChunkState["FAILED"],
                        ],
                    )
                ),
                name="chunk_state_known",
            ),
        ),
    ]
