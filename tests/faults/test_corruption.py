"""The target is damaged between load and verification, in the ways that hurt most: each is found, and what can be mended by loading again is."""

import json
from uuid import UUID

import pytest

from migration import ledger, reconcile, worlds
from migration.models import Run
from tests.conftest import Systems
from tests.faults.processes import ORGANISATION, PARTIAL, assert_undisturbed, ended, process, reach, run_account, thaw
from tests.migration.against_oracle import sample
from tests.migration.conftest import run_account as run_here
from tests.migration.oracle import expected

pytestmark = [pytest.mark.slow]

OURS = "origin = 'crm_migration' AND account_id = (SELECT id FROM accounts WHERE crm_organization_id = 1)"
ONE = f"SELECT id FROM contact_activity_logs WHERE {OURS} ORDER BY md5(id::text) LIMIT 1"
OF_TWO = f"SELECT DISTINCT ON (contact_id) id, contact_id FROM contact_activity_logs WHERE {OURS} AND category = 'contact/create'"
NUMBERS = f"SELECT id FROM contact_activity_logs WHERE {OURS} AND changes::text ~ '[0-8]' ORDER BY md5(id::text) LIMIT 1"
LIVE = """SELECT l.id FROM contact_activity_logs l JOIN accounts a ON a.id = l.account_id
          WHERE a.crm_organization_id = 1 AND l.origin = 'live' AND l.source_audit_id = {audit}"""
OTHER = "SELECT id FROM contacts c WHERE c.account_id = t.account_id AND c.id <> t.contact_id ORDER BY id LIMIT 1"

DOUBLED = f"""INSERT INTO contact_activity_logs SELECT (jsonb_populate_record(t, jsonb_build_object({{}}))).*
    FROM contact_activity_logs t WHERE id = ({ONE})"""
SOMEBODYS = DOUBLED.format(
    f"'id', overlay(t.id::text PLACING 'ffffffff' FROM 1), 'contact_id', ({OTHER})"
)  # its id tells a person nobody has
CORRUPTIONS = {
    "a row dropped": f"DELETE FROM contact_activity_logs WHERE id = ({ONE})",
    "a row doubled": DOUBLED.format("'id', gen_random_uuid(), 'source_audit_id', NULL"),
    "a row doubled at another contact": DOUBLED.format(f"'id', gen_random_uuid(), 'contact_id', ({OTHER})"),
    "moved to another contact": f"UPDATE contact_activity_logs t SET contact_id = ({OTHER}) WHERE id = ({ONE})",
    "moved to another account": f"""UPDATE contact_activity_logs SET account_id = (SELECT id FROM accounts WHERE crm_organization_id = 2)
        WHERE id = ({ONE})""",
    "two contacts swapped": f"""WITH two AS (SELECT id, contact_id, row_number() OVER (ORDER BY id) AS n FROM ({OF_TWO}) x ORDER BY id LIMIT 2)
        UPDATE contact_activity_logs t SET contact_id = other.contact_id FROM two mine, two other WHERE t.id = mine.id AND other.n = 3 - mine.n""",
    "one microsecond added": f"UPDATE contact_activity_logs SET occurred_at = occurred_at + interval '1 microsecond' WHERE id = ({ONE})",
    "category changed": f"UPDATE contact_activity_logs SET category = 'note/update' WHERE id = ({ONE})",
    "actor changed": f"""UPDATE contact_activity_logs SET actor_kind = 'system', actor_id = NULL, actor_name = NULL
        WHERE id = ({ONE.replace("ORDER", "AND actor_name IS NOT NULL ORDER")})""",
    "one digit changed inside changes": f"""UPDATE contact_activity_logs SET changes = regexp_replace(changes::text, '[0-8]', '9')::jsonb
        WHERE id = ({NUMBERS})""",
    "a live row overwritten": f"""UPDATE contact_activity_logs SET origin = 'crm_migration', category = 'contact/update',
        run_id = (SELECT run_id FROM contact_activity_logs WHERE id = ({ONE})) WHERE id = ({LIVE})""",
}
# No other row is loaded over than the candidate's own.
BEYOND_MENDING = ("a row doubled", "a row doubled at another contact", "a live row overwritten")
IN_CI = ("a row dropped", "one digit changed inside changes")
each = [pytest.param(sql, id=name, marks=[] if name in IN_CI else [pytest.mark.fault]) for name, sql in CORRUPTIONS.items()]


def corrupt(console: Systems, sql: str) -> None:
    """As the database's owner; it must have changed something."""
    before = console.activities()
    console.change_cdp(sql.replace("{audit}", str(live_audit())))
    assert console.activities() != before


def live_audit() -> int:
    """The candidate of the account that the live sync holds."""
    found = expected(sample(), ORGANISATION, capabilities=frozenset("DE"))
    return next(audit for (audit, _), outcome in found.candidates.items() if outcome.kind == "already_live")


def verify(settings) -> tuple[int, dict]:
    """`manage.py verify_account`: its exit code, and what it found."""
    with process(settings, "manage.py", "verify_account", str(ORGANISATION), "--json") as child:
        said, _ = child.communicate(timeout=60)
        return child.returncode, json.loads(said)


@pytest.mark.parametrize("sql", each)
def test_damage_is_found_by_verifying_again(console, settings, sql, request):
    run_here(ORGANISATION)
    corrupt(console, sql)
    code, found = verify(settings)
    said = found["verification"]
    assert code == 1 and not said["agrees"]
    if "doubled" in request.node.name:
        assert (said["missing"], said["differing"], said["misfits"], found["stale"]) == (0, 0, 1, 0)
    else:
        assert said["missing"] + said["differing"] >= 1


@pytest.mark.fault
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "a live row overwritten"])
def test_damage_is_found_by_the_next_run(console, settings, name):
    """It finds what it loads itself and what an earlier one did; what can be mended is, a double makes it fail, and it says which row that is."""
    run_here(ORGANISATION)
    corrupt(console, CORRUPTIONS[name])
    run = run_here(ORGANISATION)
    if name in BEYOND_MENDING:
        (double,) = (row[0] for row in console.activities("origin = 'crm_migration'") if row[0][14] == "4")
        assert (run.state, run.reason_code, run.stale) == ("failed", "verification_disagrees", 0)
        assert run.verification["examples"] == [f"row {double} is under an id or an account that is not its own"]
        console.change_cdp(f"DELETE FROM contact_activity_logs WHERE id = '{double}'")
        assert run_here(ORGANISATION).state == "partial"
    else:
        assert (run.state, ledger.of(run).corrected + ledger.of(run).written >= 1) == ("partial", True)
    assert_undisturbed(console)


@pytest.mark.fault
def test_a_double_between_load_and_verification_fails_the_run_at_once(console, settings):
    """To load again would not write over it; once it is gone, the next run is as it should be."""
    with run_account(settings, point="committed", skip=8) as child:
        reach(child)
        corrupt(console, CORRUPTIONS["a row doubled"])
        thaw(child)
        assert ended(child) == 1
    run = Run.objects.get()
    assert (run.state, run.reason_code) == ("failed", "verification_disagrees")
    assert run.reason == "Verification disagrees: 1 row is under an id or an account that is not its own."
    assert not run.chunks.filter(generation=2).exists()
    console.change_cdp("DELETE FROM contact_activity_logs WHERE origin = 'crm_migration' AND source_audit_id IS NULL")
    assert run_here(ORGANISATION).state == "partial"
    assert_undisturbed(console)


@pytest.mark.fault
def test_a_row_whose_id_is_that_of_a_person_whom_nobody_claims_is_stale(console, settings):
    """As the rows of a person are whose contact was merged into another."""
    run_here(ORGANISATION)
    corrupt(console, SOMEBODYS)
    code, found = verify(settings)
    said = found["verification"]
    assert (code, said["agrees"], said["missing"], said["misfits"], found["stale"]) == (PARTIAL, True, 0, 0, 1)


@pytest.mark.fault
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in BEYOND_MENDING])
def test_damage_between_load_and_verification_is_found_and_mended(console, settings, name):
    """A process that stopped after a commit: what was damaged meanwhile is loaded again, once, before the run calls itself done."""
    with run_account(settings, point="committed", skip=8) as child:
        reach(child)
        corrupt(console, CORRUPTIONS[name])
        thaw(child)
        assert ended(child) == PARTIAL
    assert Run.objects.get().chunks.filter(generation=2).exists()
    assert_undisturbed(console)


# --- what verification cannot see: docs/verification.md says so -------------------------------------------------------


@pytest.mark.fault
def test_a_live_row_that_says_something_else_now_is_the_live_syncs_business(console, settings):
    run_here(ORGANISATION)
    corrupt(console, f"UPDATE contact_activity_logs SET category = 'note/update', changes = '{{}}' WHERE id = ({LIVE})")
    code, found = verify(settings)
    assert code == PARTIAL and found["verification"]["agrees"]


@pytest.mark.fault
@pytest.mark.parametrize(("size", "seen"), [(1000, True), (1, False)])
def test_a_value_inside_changes_is_seen_in_sampled_rows_only(console, monkeypatch, size, seen):
    """With a sample of one, another row was damaged."""
    monkeypatch.setattr("migration.reconcile.SAMPLE", size)
    run = run_here(ORGANISATION)
    run.uuid = UUID(int=1)  # what the sample is drawn by
    corrupt(console, CORRUPTIONS["one digit changed inside changes"])
    with worlds.opened(run) as world:
        found, _ = reconcile.verify_run(run, world, ledger.of(run), lambda name: None)
    assert (found.sampled, bool(found.differing), found.agrees) == (min(size, found.sampled), seen, not seen)


@pytest.mark.fault
def test_a_live_row_that_was_replaced_by_one_of_ours_as_it_should_be_is_not_seen(console):
    first = run_here(ORGANISATION)
    corrupt(console, f"DELETE FROM contact_activity_logs WHERE id = ({LIVE})")
    assert ledger.of(run_here(ORGANISATION)).written == 1  # ours takes its place
    with worlds.opened(first) as world:
        found, _ = reconcile.verify_run(first, world, ledger.of(first), lambda name: None)
    assert found.agrees
