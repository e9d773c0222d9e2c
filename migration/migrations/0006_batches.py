import django.db.models.deletion
import migration.states
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("migration", "0005_control"),
    ]

    operations = [
        migrations.CreateModel(
            name="Batch",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=120)),
                ("work", models.CharField(default=migration.states.BatchWork["BOTH"], max_length=16)),
                ("state", models.CharField(default=migration.states.BatchState["PLANNED"], max_length=16)),
                ("reason", models.TextField(blank=True)),
                ("days", models.JSONField(help_text="Days on which the window opens: 0 is Monday.")),
                ("begins", models.TimeField()),
                ("ends", models.TimeField(help_text="At or before the beginning: on the next day.")),
                ("zone", models.CharField(help_text="A name of the IANA database, such as Asia/Jakarta.", max_length=64)),
                ("first_day", models.DateField(null=True)),
                ("at_close", models.CharField(default=migration.states.AtClose["PAUSE"], max_length=16)),
                ("at_once", models.PositiveSmallIntegerField(default=1)),
                ("canary", models.PositiveSmallIntegerField(default=1, help_text="So many accounts must balance before others start.")),
                ("most_failures", models.PositiveSmallIntegerField(default=0, help_text="More failed or refused accounts stop it.")),
                (
                    "most_quarantined",
                    models.DecimalField(
                        decimal_places=2, default=5, help_text="Percent of an account's candidates; more stops it.", max_digits=5
                    ),
                ),
                ("planned_at", models.DateTimeField()),
                ("planned_by", models.TextField()),
            ],
            options={
                "verbose_name_plural": "batches",
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="BatchItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField(help_text="From 1: the order in which accounts start.")),
                ("state", models.CharField(default=migration.states.ItemState["WAITING"], max_length=16)),
                ("reason", models.TextField(blank=True)),
                (
                    "is_accepted",
                    models.BooleanField(default=False, help_text="A person resumed the batch after it: it counts for no limit any more."),
                ),
                ("expected_from", models.DateTimeField(help_text="The window that its customer was told.", null=True)),
                ("expected_to", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ("batch", "position"),
            },
        ),
        migrations.CreateModel(
            name="Notification",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "uuid",
                    models.UUIDField(
                        help_text="The message's id; the same on every attempt, so that a receiver can tell a second one.", unique=True
                    ),
                ),
                ("at", models.DateTimeField(help_text="When what it tells of happened.")),
                ("kind", models.CharField(max_length=32)),
                ("channel", models.CharField(max_length=16)),
                ("body", models.JSONField(help_text="Ids, states and counts; nothing of a person.")),
                ("state", models.CharField(default="waiting", max_length=16)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("not_before", models.DateTimeField(help_text="When it may be tried next.")),
                ("error", models.TextField(blank=True, help_text="Why the last attempt failed.")),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.RemoveConstraint(
            model_name="run",
            name="run_reason_known",
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "reason_code__in",
                        [
                            migration.states.RunReason["NONE"],
                            migration.states.RunReason["OUTAGE"],
                            migration.states.RunReason["CHUNK_FAILED"],
                            migration.states.RunReason["LEDGER_UNBALANCED"],
                            migration.states.RunReason["VERIFICATION_DISAGREES"],
                            migration.states.RunReason["QUARANTINED"],
                            migration.states.RunReason["SUPERSEDED"],
                            migration.states.RunReason["STOPPED"],
                            migration.states.RunReason["GATE_LAPSED"],
                            migration.states.RunReason["ASKED"],
                            migration.states.RunReason["CHUNKS_FAILING"],
                            migration.states.RunReason["BATCH"],
                        ],
                    )
                ),
                name="run_reason_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "state__in",
                        [
                            migration.states.BatchState["PLANNED"],
                            migration.states.BatchState["RUNNING"],
                            migration.states.BatchState["PAUSED"],
                            migration.states.BatchState["STOPPED"],
                            migration.states.BatchState["DONE"],
                            migration.states.BatchState["CANCELLED"],
                        ],
                    )
                ),
                name="batch_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "work__in",
                        [
                            migration.states.BatchWork["BOTH"],
                            migration.states.BatchWork["DRY_RUN"],
                            migration.states.BatchWork["PRODUCTION"],
                        ],
                    )
                ),
                name="batch_work_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(("at_close__in", [migration.states.AtClose["PAUSE"], migration.states.AtClose["FINISH"]])),
                name="batch_at_close_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(condition=models.Q(("at_once__gte", 1)), name="batch_some_at_once"),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(("most_quarantined__gte", 0), ("most_quarantined__lte", 100)), name="batch_quarantined_is_percent"
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(condition=models.Q(("days", []), _negated=True), name="batch_some_day"),
        ),
        migrations.AddField(
            model_name="event",
            name="batch",
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="events", to="migration.batch"),
        ),
        migrations.AddField(
            model_name="batchitem",
            name="account",
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="migration.account"),
        ),
        migrations.AddField(
            model_name="batchitem",
            name="batch",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="items", to="migration.batch"),
        ),
        migrations.AddField(
            model_name="batchitem",
            name="dry_run",
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="migration.run"),
        ),
        migrations.AddField(
            model_name="batchitem",
            name="production",
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="migration.run"),
        ),
        migrations.AddField(
            model_name="notification",
            name="batch",
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="migration.batch"),
        ),
        migrations.AddField(
            model_name="notification",
            name="run",
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="migration.run"),
        ),
        migrations.AddConstraint(
            model_name="batchitem",
            constraint=models.UniqueConstraint(fields=("batch", "position"), name="batch_item_placed_once"),
        ),
        migrations.AddConstraint(
            model_name="batchitem",
            constraint=models.UniqueConstraint(fields=("batch", "account"), name="batch_item_account_once"),
        ),
        migrations.AddConstraint(
            model_name="batchitem",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", [migration.states.ItemState["WAITING"], migration.states.ItemState["RUNNING"]])),
                fields=("account",),
                name="batch_item_open_in_one_batch",
            ),
        ),
        migrations.AddConstraint(
            model_name="batchitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "state__in",
                        [
                            migration.states.ItemState["WAITING"],
                            migration.states.ItemState["RUNNING"],
                            migration.states.ItemState["DONE"],
                            migration.states.ItemState["FAILED"],
                            migration.states.ItemState["REFUSED"],
                            migration.states.ItemState["CANCELLED"],
                        ],
                    )
                ),
                name="batch_item_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="batchitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", migration.states.ItemState["RUNNING"]), _negated=True),
                    ("dry_run__isnull", False),
                    ("production__isnull", False),
                    _connector="OR",
                ),
                name="batch_item_running_has_run",
            ),
        ),
        migrations.AddConstraint(
            model_name="batchitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("expected_from__isnull", True), ("expected_to__isnull", True)),
                    models.Q(
                        ("expected_from__isnull", False), ("expected_from__lte", models.F("expected_to")), ("expected_to__isnull", False)
                    ),
                    _connector="OR",
                ),
                name="batch_item_expected_whole",
            ),
        ),
        migrations.AddIndex(
            model_name="notification",
            index=models.Index(condition=models.Q(("state", "waiting")), fields=["not_before"], name="notification_due"),
        ),
        migrations.AddConstraint(
            model_name="notification",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["waiting", "sent", "given_up"])), name="notification_state_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="notification",
            constraint=models.CheckConstraint(condition=models.Q(("channel__in", ["email", "webhook"])), name="notification_channel_known"),
        ),
    ]
