"""The eight gates, the delivery milestones, and the groups with what their members may do. Data as of this schema migration."""

from django.contrib.auth.management import create_permissions
from django.db import migrations

# letter, title, statement, question, owners, scope, until open
GATES = [
    (
        "A",
        "The CRM is read only",
        "The console reaches the CRM by a read-only DSN or replica whose role may SELECT on audits and users, and nothing else.",
        "OQ-1",
        ["CRM Squad", "Platform"],
        "global",
        "no run",
    ),
    (
        "B",
        "The extraction is cheap",
        "EXPLAIN ANALYZE of the extraction queries shows that the CRM's indexes carry them, without harm to the CRM.",
        "OQ-2",
        ["CRM DBA"],
        "global",
        "no run",
    ),
    (
        "C",
        "Contacts carry their CRM id",
        "At least 99 % of the account's CDP contacts with source 'crm' carry a source_id.",
        "",
        ["CDP"],
        "account",
        "no production run of the account",
    ),
    (
        "D",
        "Deactivated users are known",
        "What GetUsersByEmails returns for deactivated users is known, and the console reads it right.",
        "OQ-9",
        ["Platform"],
        "global",
        "deactivated users are shown as unknown ones",
    ),
    (
        "E",
        "Classes and id-sets are right",
        "The join models' class names and attributes, and the won, done and resolved ids, are those of the CRM.",
        "OQ-12",
        ["CRM Squad", "CDP"],
        "global",
        "won, done, resolved, linked, unlinked and moved fall through to a plain update",
    ),
    (
        "F",
        "Names are collision-safe",
        "The AssociationLogEnricher's match key is collision-safe, and the RFC's R3 delta review agrees.",
        "OQ-13",
        ["RFC reviewer", "CDP"],
        "global",
        "activities carry no names of deals and companies",
    ),
    (
        "G",
        "Badge and indicator are designed",
        "The Figma frames for the badge and the status indicator are final, and what the console shows is what they show.",
        "OQ-10",
        ["Design"],
        "global",
        "the status endpoint answers visible: false",
    ),
    (
        "H",
        "The shared backend owner has the time",
        "The queue of the shared backend owner (Customer Segmentation P2) is sequenced with this work.",
        "",
        ["Delivery"],
        "global",
        "nothing: advisory",
    ),
]
# name, effort, confidence, target, status, what the status follows from
MILESTONES = [
    ("PRD v2.1 finalized", "", "", "2026-06-09", "done", ""),
    ("RFC review R2: 8.0/10, PROCEED with notes (7-chunk scope)", "", "high", "2026-06-18", "done", ""),
    ("Task breakdown expanded to 9 chunks", "BE +4, QA +1.5", "medium", "2026-07-01", "done; R3 delta review not run", ""),
    ("Development", "BE 17, FE 1, QA 6.5", "medium", "2026-Q3", "", ""),
    ("Stage-0 operational gates", "", "", "TBD", "", "gates"),
    ("Migration dry run", "", "", "TBD", "", "dry_runs"),
    ("Production migration", "24.5 days", "medium", "2026-Q3", "", "runs"),
]
SEE = "view_"
OWNERS = ["CRM Squad", "Platform", "CRM DBA", "CDP", "RFC reviewer", "Design", "Delivery"]
# Beside seeing everything: which permissions the members of a group have.
MAY = {
    "viewer": [],
    "mapper": ["change_mappingdraft", "add_mappingrevision", "change_namecollision"],
    "operator": [
        "add_run",
        "change_run",
        "withdraw_run",
        "remove_stalerow",
        "add_batch",
        "change_batch",
        "change_readbudget",
        "change_quarantinedcandidate",
        "add_setwatermark",
        "add_evidence",
    ],
} | {owner: ["add_signoff", "add_evidence"] for owner in OWNERS}


def seed(apps, schema_editor):
    gate, milestone = apps.get_model("gates", "Gate"), apps.get_model("gates", "Milestone")
    names = ("letter", "title", "statement", "question", "owners", "scope", "until_open")
    gate.objects.bulk_create(gate(**dict(zip(names, values, strict=True))) for values in GATES)
    names = ("name", "effort", "confidence", "target", "status", "follows")
    milestone.objects.bulk_create(
        milestone(position=number, **dict(zip(names, values, strict=True))) for number, values in enumerate(MILESTONES, 1)
    )
    seed_groups(apps, schema_editor.connection.alias)


def seed_groups(apps, alias):
    """Permissions come to be after all schema migrations, so those that the groups need are made here first."""
    for label in ("migration", "gates"):
        config = apps.get_app_config(label)
        config.models_module = True
        create_permissions(config, apps=apps, verbosity=0, using=alias)
        config.models_module = None
    ours = apps.get_model("auth", "Permission").objects.filter(content_type__app_label__in=("migration", "gates"))
    for name, may in MAY.items():
        group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=name)
        group.permissions.add(*ours.filter(codename__startswith=SEE), *ours.filter(codename__in=may))


def remove(apps, schema_editor):
    """The groups stay: people may be in them."""
    apps.get_model("gates", "Milestone").objects.all().delete()
    apps.get_model("gates", "Gate").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("gates", "0002_append_only"),
        ("migration", "0007_read_budget"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(seed, remove)]
