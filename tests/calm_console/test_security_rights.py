"""Groups have what they need and nothing else: every address is asked as a viewer, every act as each group."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse

from gates.catalogue import OWNER_GROUPS
from migration import budget
from migration.models import Batch, Event, MappingRevision
from tests import factories
from tests.gates.conftest import sign
from tests.migration.test_admin_work import everything, no_broker  # noqa: F401 - a fixture
from tests.migration.test_batch_admin import planned

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_broker")]

MAPPER = {"migration.add_mappingrevision", "migration.change_mappingdraft", "migration.change_namecollision"}
OPERATOR = {
    "gates.add_evidence",
    "migration.add_batch",
    "migration.add_run",
    "migration.add_setwatermark",
    "migration.change_batch",
    "migration.change_quarantinedcandidate",
    "migration.change_readbudget",
    "migration.change_run",
    "migration.remove_stalerow",
    "migration.withdraw_run",
}
OWNER = {"gates.add_evidence", "gates.add_signoff"}
# Beside seeing everything.
MAY = {"viewer": set(), "mapper": MAPPER, "operator": OPERATOR} | dict.fromkeys(OWNER_GROUPS, OWNER)

GATES_PAGE = Path(__file__).parents[2] / "docs" / "gates.md"

SEEING = {"pack", "badge-gallery", "badge-sample", "migration_mappingdraft_export", "migration_mappingdraft_document"}
MAPPING = {f"migration_mappingdraft_{act}" for act in ("start", "edit", "count", "publish", "import")} | {"migration_namecollision_decide"}
OPERATING = {f"migration_run_{act}" for act in ("pause", "resume", "cancel", "retry", "force", "withdraw", "abandon", "stale")} | {
    "plan",
    "gates_gate_measure",
    "migration_account_watermark",
    "migration_batch_act",
    "migration_batch_plan",
    "migration_quarantinedcandidate_retry",
    "migration_quarantinedcandidate_waive",
    "migration_readbudget_set",
}
SIGNING = {"gates_gate_measure", "gates_gate_decide"}
ACTS = {"viewer": set(), "mapper": MAPPING, "operator": OPERATING, "CDP": SIGNING}
# Pages without a form: whether they are asked with GET or POST is the same to them.
LOOKING = SEEING | {
    "index",
    "app_list",
    "gates_gate_change",
    "jsi18n",
    "password_change_done",
    "api-docs",
    "openapi",
    "healthz",
    "readyz",
    "metrics",
}
# What every person of staff may do to their own login and session.
OWN = {"login", "logout", "password_change", "password-again"}
STOCK = ("changelist", "add", "history", "delete", "change", "password_change")


NEEDS = {
    **{f"migration_run_{act}": "migration.change_run" for act in ("pause", "resume", "cancel", "retry", "force")},
    **{f"migration_run_{act}": "migration.withdraw_run" for act in ("withdraw", "abandon")},
    **{f"migration_mappingdraft_{act}": "migration.change_mappingdraft" for act in ("start", "edit", "count", "import")},
    **{f"migration_mappingdraft_{act}": "migration.view_mappingdraft" for act in ("export", "document")},
    **{f"migration_quarantinedcandidate_{act}": "migration.change_quarantinedcandidate" for act in ("retry", "waive")},
    "migration_run_stale": "migration.remove_stalerow",
    "migration_mappingdraft_publish": "migration.add_mappingrevision",
    "migration_namecollision_decide": "migration.change_namecollision",
    "migration_account_watermark": "migration.add_setwatermark",
    "migration_batch_act": "migration.change_batch",
    "migration_batch_plan": "migration.add_batch",
    "migration_readbudget_set": "migration.change_readbudget",
    "gates_gate_measure": "gates.add_evidence",
    "gates_gate_decide": "gates.add_signoff",
    "gates_gate_days": "gates.change_gate",
    "plan": "migration.add_run",
    "pack": "gates.view_evidence",
    "badge-gallery": "migration.view_run",
    "badge-sample": "migration.view_run",
}


def member(group: str) -> Client:
    user = User.objects.create_user(f"of {group}", is_staff=True)
    user.groups.set([Group.objects.get(name=group)])
    client = Client()
    client.force_login(user)
    return client


def patterns(found=None) -> Iterator[URLPattern]:
    for each in get_resolver().url_patterns if found is None else found:
        if hasattr(each, "url_patterns"):
            yield from patterns(each.url_patterns)
        else:
            yield each


def named() -> dict[str, URLPattern]:
    return {each.name: each for each in patterns() if each.name}


@pytest.fixture
def records(settings) -> dict[str, object]:
    """A record of most models, by `app_model`."""
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = "postgresql://nobody:x@127.0.0.1:1/none"
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    found = {f"{each._meta.app_label}_{each._meta.model_name}": each for each in everything().values()}
    run = found["migration_quarantinedcandidate"].run
    factories.event(run)
    batch = Batch.objects.get(pk=planned(1).pk)
    budget.current()  # the one row, made when it is first looked at
    found |= {"migration_run": run, "migration_chunk": run.chunks.get(), "migration_event": Event.objects.last()}
    found |= {"migration_mappingrevision": MappingRevision.objects.last(), "migration_batch": batch}
    return found | {"auth_user": User.objects.create_user("target"), "auth_group": Group.objects.get(name="viewer")}


def address(pattern: URLPattern, records: dict[str, object]) -> str:
    """The pattern's address about a record that is there, 1 where the test has none."""
    name = pattern.name
    of = next((record for key, record in records.items() if name.startswith(f"{key}_")), None)
    of = records["migration_account"] if name in ("pack", "plan") else of
    key = of.pk if of else ("A" if name.startswith("gates_gate_") else 1)
    values = {
        "part": "ids",
        "kind": "actor_overrides",
        "verb": "pause",
        "letter": "A",
        "name": "paused",
        "app_label": "migration",
        "account": "1",
        "content_type_id": ContentType.objects.get(model="run").pk,
    }
    given = {argument: values.get(argument, key) for argument in pattern.pattern.converters} | {
        argument: values[argument] for argument in pattern.pattern.regex.groupindex if argument in values
    }
    namespace = "gates:" if name in ("pack", "plan") else "" if name in APART else "admin:"
    return reverse(f"{namespace}{name}", kwargs=given)


APART = {"password-again", "badge-gallery", "badge-sample", "api-docs", "openapi"}
APART |= {"migration-status", "account-migration-status", "healthz", "readyz", "metrics"}


def state() -> dict[str, list[dict]]:
    """Everything in the console's database but sessions."""
    models = [model for model in apps.get_models(include_auto_created=True) if model._meta.label != "sessions.Session"]
    return {model._meta.label: list(model.objects.order_by("pk").values()) for model in models}


def test_groups_have_exactly_these_permissions():
    all_seeing = {f"{p.content_type.app_label}.{p.codename}" for p in Permission.objects.filter(codename__startswith="view_")}
    for name, may in MAY.items():
        group = Group.objects.get(name=name)
        has = {f"{p.content_type.app_label}.{p.codename}" for p in group.permissions.select_related("content_type")}
        assert has - all_seeing == may, name
        assert {each.partition(".")[0] for each in has & all_seeing} == {"gates", "migration"}, f"{name} sees no people"
    assert {*Group.objects.values_list("name", flat=True)} == MAY.keys()


def test_the_documents_say_what_each_group_may():
    """A row without a group goes on with the one above."""
    table = GATES_PAGE.read_text().partition("## Who may do what")[2]
    told, groups = {}, []
    for names, permissions in re.findall(r"^\| ((?:\w[^|]*)?)\|[^|]*\|([^|]*)\|$", table, re.MULTILINE):
        groups = [name.strip() for name in names.split(",") if name.strip()] or groups
        for group in groups:
            told.setdefault(group, set()).update(re.findall(r"`(.+?)`", permissions))
    assert {group: may for group, may in told.items() if group != "group"} == MAY


def test_a_viewer_changes_nothing_anywhere(records):
    """Every address there is, with GET and POST."""
    client = member("viewer")
    before, wrong = state(), []
    for pattern in named().values():
        if pattern.name in OWN:
            continue
        there = address(pattern, records)
        seen, sent = client.get(there), client.post(there, {"name": "x", "note": "x", "post": "yes", "action": "delete_selected"})
        refused = sent.status_code in (302, 403, 404, 405) or pattern.name in LOOKING or pattern.name.endswith("_changelist")
        if seen.status_code not in (200, 301, 302, 401, 403, 404, 405, 503) or not refused:
            wrong.append((pattern.name, seen.status_code, sent.status_code))
    assert wrong == []
    assert state() == before


def acting() -> set[str]:
    """Names of the console's own pages under /admin/ that belong to records and gates."""
    ours = {name for name in named() if name.startswith(("migration_", "gates_")) and not name.endswith(STOCK)}
    return ours | {"pack", "plan", "badge-gallery", "badge-sample"}


@pytest.mark.parametrize("group", ACTS)
def test_each_group_does_what_it_should_and_nothing_else(records, group):
    client = member(group)
    factories.password_typed(client)
    allowed = set()
    for name in acting():
        there = address(named()[name], records)
        if 403 not in (client.get(there).status_code, client.post(there, {"group": group}).status_code):
            allowed.add(name)
    assert allowed - SEEING == ACTS[group]
    assert allowed >= SEEING


def test_every_other_permission_together_does_not_do_what_one_is_for(records):
    """Asked with GET and sent with POST: a form that is hidden can still be sent."""
    assert NEEDS.keys() == acting()
    user = User.objects.create_user("nearly all", is_staff=True)
    client = Client()
    client.force_login(user)
    factories.password_typed(client)
    everything = Permission.objects.filter(content_type__app_label__in=("migration", "gates")).select_related("content_type")
    before, wrong = state(), []
    for needed in sorted({*NEEDS.values()}):
        user.user_permissions.set([p for p in everything if f"{p.content_type.app_label}.{p.codename}" != needed])
        for name in (name for name, permission in NEEDS.items() if permission == needed):
            there = address(named()[name], records)
            seen, sent = client.get(there), client.post(there, {"note": "x", "reason": "x", "group": "CDP"})
            if seen.status_code not in (302, 403) or sent.status_code != 403:
                wrong.append((name, needed, seen.status_code, sent.status_code))
    user.user_permissions.clear()
    assert wrong == []
    assert state() == before


def test_nobody_adds_changes_or_removes_records_people_or_groups(records):
    """Not even with every permission of the groups together: Django's own pages of records are for looking."""
    user = User.objects.create_user("all", is_staff=True)
    user.groups.set(Group.objects.all())
    client = Client()
    client.force_login(user)
    before, wrong = state(), []
    for name, pattern in named().items():
        if name.startswith(("migration_", "gates_", "auth_")) and name.endswith(STOCK[1:]) and name not in acting() | OWN | LOOKING:
            status = client.post(address(pattern, records), {"name": "x", "post": "yes"}).status_code
            if status not in (302, 403):
                wrong.append((name, status))
    assert wrong == []
    assert state() == before


def events() -> list[tuple[str, str, str]]:
    return list(Event.objects.order_by("pk").values_list("kind", "sentence", "by"))


def sent(person: User, **changed: object) -> dict[str, object]:
    """What the page of a login sends."""
    fields = {name: getattr(person, name) for name in ("username", "is_active", "is_staff", "is_superuser")}
    fields |= {"date_joined_0": f"{person.date_joined:%Y-%m-%d}", "date_joined_1": f"{person.date_joined:%H:%M:%S}"}
    fields |= {"groups": [each.pk for each in person.groups.all()]} | changed
    return {name: value for name, value in fields.items() if value is not False}


@pytest.fixture
def root(client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_who_may_sign_is_told_by_events_that_nobody_can_remove(root):
    """Django's own entries go with the login of who made them."""
    password = "a long one for the test"
    root.post(reverse("admin:auth_user_add"), {"username": "ana", "usable_password": "true", "password1": password, "password2": password})
    ana, cdp = User.objects.get(username="ana"), Group.objects.get(name="CDP")
    page = reverse("admin:auth_user_change", args=[ana.pk])
    for changed in ({"groups": [cdp.pk], "is_staff": True}, {}, {"username": "anna", "groups": [], "is_active": False}):
        assert root.post(page, sent(ana, **changed)).status_code == 302
        ana.refresh_from_db()
    new = {"usable_password": "true", "password1": f"{password}!", "password2": f"{password}!"}
    assert root.post(reverse("admin:auth_user_password_change", args=[ana.pk]), new).status_code == 302
    assert root.post(reverse("admin:auth_user_delete", args=[ana.pk]), {"post": "yes"}).status_code == 302
    assert events() == [
        (
            "login added",
            "ana: username nothing to ana; is active nothing to True; is staff nothing to False; is superuser nothing to False",
            "root",
        ),
        ("login changed", "ana: is staff False to True; groups + CDP", "root"),
        ("login changed", "anna: username ana to anna; is active True to False; groups - CDP", "root"),
        ("login changed", "anna: password set", "root"),
        (
            "login removed",
            "anna: username anna to nothing; is active False to nothing; is staff True to nothing; is superuser False to nothing",
            "root",
        ),
    ]


def test_what_a_group_may_is_told_too_and_no_group_that_the_console_knows_is_renamed_or_removed(root):
    cdp, may = Group.objects.get(name="CDP"), Permission.objects.get(codename="change_gate")
    page = reverse("admin:auth_group_change", args=[cdp.pk])
    had = [*cdp.permissions.values_list("pk", flat=True)]
    assert root.post(page, {"name": "CDP team", "permissions": [*had, may.pk]}).status_code == 302
    cdp.refresh_from_db()
    assert cdp.name == "CDP" and events() == [("group changed", "CDP: permissions + gates.change_gate", "root")]
    for url, form in (
        (reverse("admin:auth_group_delete", args=[cdp.pk]), {"post": "yes"}),
        (reverse("admin:auth_group_changelist"), {"action": "delete_selected", "_selected_action": [cdp.pk], "post": "yes"}),
    ):
        said = root.post(url, form).content.decode()
        assert "The group CDP, which the console knows by this name. Take its members or permissions away instead." in said
    assert Group.objects.filter(name="CDP").exists() and len(events()) == 1


def test_who_has_signed_is_not_removed_and_the_page_says_what_to_do(root):
    ana = User.objects.create_user("ana")
    ana.groups.add(Group.objects.get(name="Design"))
    sign("G", "Design", ana)
    told = events()
    for url, form in (
        (reverse("admin:auth_user_delete", args=[ana.pk]), {"post": "yes"}),
        (reverse("admin:auth_user_changelist"), {"action": "delete_selected", "_selected_action": [ana.pk], "post": "yes"}),
    ):
        said = root.post(url, form).content.decode()
        assert "The sign-offs of ana, which nobody removes. Take “Active” away from the login instead" in said
        assert "your account doesn&#x27;t have permission" not in said
    assert User.objects.filter(username="ana").exists() and events() == told
