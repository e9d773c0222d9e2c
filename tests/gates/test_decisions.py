"""Whether a run may start and go on: each closed gate named with what is missing and who can give it, and every way a sign-off lapses."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User

from gates import evidence, policies, rehearsal, signoffs, standing
from gates.catalogue import BY_LETTER
from gates.models import Gate
from gates.probes import Finding, Measurement
from gates.standing import State
from migration import control, revisions, runs
from migration.models import Account, Run
from migration.pipeline.flow import VERSION
from migration.states import RunMode, RunReason, RunState
from migration.worlds import systems as systems_digest
from tests import factories
from tests.gates.conftest import LATER, NOON, found, open_all
from tests.migration.conftest import mapping_document

DRY, PRODUCTION = RunMode.DRY_RUN, RunMode.PRODUCTION


@pytest.fixture
def account(db) -> Account:
    return factories.account(crm_organization_id=7, name="Harbour")


@pytest.fixture
def mapping(db):
    return revisions.publish(mapping_document(), by="ana", note="", now=NOON).revision


def decide(account: Account, mode: RunMode = PRODUCTION, **how) -> policies.Decision:
    return policies.decide(account, mode, now=how.pop("now", NOON), **how)


def rehearse(account: Account, mapping, capabilities=("D", "E", "F"), **fields) -> None:
    """A dry run that ran to its end, as production would run now."""
    same = {"mapping_revision": mapping, "capabilities": list(capabilities), "pipeline_version": VERSION, "systems": systems_digest()}
    factories.run(RunState.SUCCEEDED, DRY, account=account, **same | fields)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_url_that_cannot_be_read_refuses_production_in_words(people, account, mapping, settings):
    open_all(people, account)
    settings.CRM_DATABASE_URL = "not a URL"
    refusals = policies.decide(account, RunMode.PRODUCTION, now=LATER).refusals
    assert refusals[-1] == "CRM_DATABASE_URL cannot be read as a URL: write postgresql://user:password@host:5432/name."


def test_no_run_of_an_account_that_left_the_cdp_starts_or_goes_on(people, account, mapping):
    open_all(people, account)
    rehearse(account, mapping)
    under_way = factories.run(RunState.RUNNING, account=account, mapping_revision=mapping, capabilities=["D"])
    assert [decide(account, mode).refusals for mode in RunMode] == [[], []] == [decide(account, run=under_way).refusals, []]
    Account.objects.update(gone=True)
    account.refresh_from_db()
    said = f"{account} is no longer in the CDP, so nothing of it is moved or tried again: run `manage.py sync_accounts` if it is back."
    assert [decide(account, mode, measure=True) for mode in RunMode] == [policies.Decision(frozenset(), [said])] * 2
    assert decide(account, run=under_way) == policies.Decision(frozenset("D"), [said])
    assert not runs.may_go_on(under_way, by="tick", now=LATER)
    assert (under_way.state, under_way.reason_code, under_way.reason) == (RunState.PAUSED, RunReason.GATE_LAPSED, said)
    for act in (lambda: runs.start(runs.Wish(account, DRY), by="ana", now=LATER), lambda: control.resume(under_way, by="ana", now=LATER)):
        with pytest.raises(runs.Refused) as refused:
            act()
        assert str(refused.value) == said
    Account.objects.update(gone=False)
    assert control.resume(Run.objects.get(pk=under_way.pk), by="ana", now=LATER).state == RunState.PLANNED


def test_nothing_runs_before_anything_is_signed(account, mapping):
    assert decide(account, DRY) == policies.Decision(
        frozenset(),
        [
            "Gate A (The CRM is read only) is closed: nothing was measured yet, run `manage.py probe_gates A`; CRM Squad has not signed "
            "(nobody is in group CRM Squad yet); Platform has not signed (nobody is in group Platform yet).",
            "Gate B (The extraction is cheap) is closed: nothing was measured yet, run `manage.py probe_gates B`; CRM DBA has not signed "
            "(nobody is in group CRM DBA yet).",
        ],
    )
    assert decide(account).refusals[2:] == [
        "Gate C (Contacts carry their CRM id) for Harbour (organisation 7) is closed: nothing was measured yet, run "
        "`manage.py probe_gates C --account 7`; CDP has not signed (nobody is in group CDP yet).",
        "Harbour (organisation 7) has no dry run that ran to its end and balanced: run `manage.py run_account 7 --mode dry-run` first.",
    ]


@pytest.mark.parametrize(
    ("letter", "group", "modes"),
    [
        ("A", "CRM Squad", [DRY, PRODUCTION]),
        ("A", "Platform", [DRY, PRODUCTION]),
        ("B", "CRM DBA", [DRY, PRODUCTION]),
        ("C", "CDP", [PRODUCTION]),
    ],
)
def test_each_refusal_names_the_gate_and_the_person_who_could_have_signed(people, account, mapping, letter, group, modes):
    open_all(people, account)
    rehearse(account, mapping)
    assert decide(account).refusals == []
    signoffs.withdraw(letter, account if letter == "C" else None, group=group, user=people[group], note="not so sure", now=NOON)
    for mode in (DRY, PRODUCTION):
        said = decide(account, mode).refusals
        if mode not in modes:
            assert said == []
            continue
        [only] = said
        assert only.startswith(f"Gate {letter} (")
        assert only.endswith(
            f"of {group} withdrew the sign-off for {group} on 2026-03-02 12:00 UTC: not so sure (in group {group}: of {group})."
        )


def test_failing_evidence_is_told_and_somebody_else_s_account_is_open(people, account, mapping):
    other = factories.account(crm_organization_id=8, name="Quay")
    open_all(people, account, other)
    rehearse(account, mapping)
    rehearse(other, mapping)
    found("C", account, passes=False, says="96.94 % is below 99 %.", now=LATER)
    [only] = decide(account, now=LATER).refusals
    assert only == (
        "Gate C (Contacts carry their CRM id) for Harbour (organisation 7) is closed: its evidence of 2026-03-02 13:00 UTC fails: 96.94 % is below 99 %; "
        "have it measured again once that is mended; the sign-off of of CDP for CDP lapsed: measured again on 2026-03-02 13:00 UTC, it fails: "
        "96.94 % is below 99 % (in group CDP: of CDP)."
    )
    assert decide(account, DRY, now=LATER).refusals == []
    assert decide(other, now=LATER).refusals == []


@pytest.mark.parametrize("letter", ["D", "E", "F"])
def test_capability_gates_refuse_nothing_and_hold_back_one_capability(people, account, mapping, letter):
    open_all(people, account, letters="ABCDEFGH".replace(letter, ""))
    assert decide(account, DRY) == policies.Decision(frozenset("DEF") - {letter}, [])


def test_badge_and_advisory_hold_no_run_back(people, account, mapping):
    open_all(people, account, letters="ABCDEF")
    rehearse(account, mapping)
    assert decide(account).refusals == []
    assert not policies.is_open("G", now=NOON)


def test_a_gate_that_is_missing_from_the_database_is_closed(people, account, mapping):
    open_all(people, account, letters="BC")
    Gate.objects.filter(pk="A").delete()
    [first, *_] = decide(account, DRY).refusals
    assert "Gate A is not in the database: run `manage.py migrate`" in first


# --- a rehearsal, and no downgrade ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"capabilities": ["D"]}, "other capabilities (D, now D, E, F)"),
        ({"pipeline_version": VERSION + 1}, f"another pipeline version ({VERSION + 1}, now {VERSION})"),
        ({"systems": "1" * 64}, "another CRM or CDP"),
        ({"state": RunState.FAILED}, "no dry run that ran to its end"),
        ({"mode": PRODUCTION}, "no dry run that ran to its end"),
    ],
)
def test_production_needs_a_dry_run_of_the_very_same(people, account, mapping, fields, said):
    open_all(people, account)
    same = {"mapping_revision": mapping, "capabilities": ["D", "E", "F"], "pipeline_version": VERSION, "systems": systems_digest()}
    factories.run(account=account, **{"state": RunState.PARTIAL, "mode": DRY} | same | fields)
    [only] = decide(account).refusals
    assert said in only
    assert only.endswith("run `manage.py run_account 7 --mode dry-run` first.")
    factories.run(RunState.PARTIAL, DRY, account=account, **same)
    assert decide(account).refusals == []


def test_the_dry_run_of_an_older_mapping_does_not_count(people, account, mapping):
    rehearse(account, mapping)
    newer = mapping_document() | {"secrets": ["password"]}
    revisions.publish(newer, by="ana", note="", now=LATER)
    open_all(people, account, now=LATER)
    [only] = decide(account, now=LATER).refusals
    assert "another mapping revision (1, now 2)" in only


def test_what_another_account_has_done_counts_for_nothing(people, account, mapping):
    """Neither its dry run, nor what its production run could do."""
    other = factories.account(crm_organization_id=8, name="Quay")
    open_all(people, account, other)
    rehearse(other, mapping)
    factories.run(RunState.SUCCEEDED, PRODUCTION, account=other, mapping_revision=mapping)
    [only] = decide(account).refusals
    assert only.startswith("Harbour (organisation 7) has no dry run that ran to its end and balanced:")
    assert rehearsal.lost_capabilities(account, frozenset()) == set()


def overtaken(account: Account, mode: RunMode, **how) -> policies.Decision:
    """The gates as they are, while which are asked somebody publishes another mapping."""
    said = policies.decide(account, mode, now=how["now"])
    revisions.publish(mapping_document() | {"secrets": ["*_key"]}, by="ana", note="", now=NOON)
    return said


def test_a_mapping_that_is_published_while_the_gates_are_asked_gets_no_run_by_that(people, account, mapping, settings):
    open_all(people, account)
    rehearse(account, mapping)
    settings.GATE_POLICY = "tests.gates.test_decisions.overtaken"
    with pytest.raises(runs.Busy, match="Another mapping revision was published"):
        runs.start(runs.Wish(account, PRODUCTION), by="ana", now=NOON)
    assert not Run.objects.filter(mode=PRODUCTION).exists()


def test_no_downgrade_unless_it_is_confirmed(people, account, mapping):
    open_all(people, account)
    same = {"mapping_revision": mapping, "pipeline_version": VERSION, "systems": systems_digest()}
    factories.run(RunState.SUCCEEDED, PRODUCTION, account=account, capabilities=["D", "E", "F"], **same)
    signoffs.withdraw("E", None, group="CDP", user=people["CDP"], note="wrong ids", now=NOON)
    rehearse(account, mapping, ["D", "F"])
    [only] = decide(account).refusals
    assert only.startswith(
        "Production would rewrite rows of Harbour (organisation 7) into poorer ones, as its last production run had capability E:"
    )
    assert decide(account, downgrade_confirmed=True).refusals == []
    assert decide(account, DRY).refusals == []


def test_a_withdrawn_run_is_no_downgrade(people, account, mapping):
    same = {"mapping_revision": mapping, "pipeline_version": VERSION, "systems": systems_digest()}
    factories.run(RunState.WITHDRAWN, PRODUCTION, account=account, capabilities=["D", "E", "F"], **same)
    assert rehearsal.lost_capabilities(account, frozenset()) == set()


def test_the_last_production_run_that_began_is_the_one_not_to_fall_behind(account, mapping):
    all_three = ["D", "E", "F"]
    factories.run(RunState.SUCCEEDED, PRODUCTION, account=account, capabilities=all_three)
    factories.run(RunState.PARTIAL, PRODUCTION, account=account, capabilities=["D"])
    factories.run(RunState.CANCELLED, PRODUCTION, account=account, capabilities=all_three, started_at=None)
    factories.run(RunState.SUCCEEDED, DRY, account=account, capabilities=all_three)
    assert rehearsal.lost_capabilities(account, frozenset()) == {"D"}


# --- lapses ---------------------------------------------------------------------------------------------------------


def why(letter: str, account: Account | None = None, now=LATER) -> list[str]:
    """What each group's standing says; every one of them must have lapsed."""
    groups = standing.of(letter, account, now=now).groups
    assert {each.state for each in groups} == {State.LAPSED}
    return [each.why.partition("lapsed: ")[2] for each in groups]


def test_it_expires_after_its_days(people, account):
    open_all(people, account)
    last_moment = NOON + timedelta(days=30) - timedelta(microseconds=1)
    assert standing.of("C", account, now=last_moment).is_open
    assert why("C", account, now=NOON + timedelta(days=30)) == ["it expired 30 days after 2026-03-02 12:00 UTC"]
    Gate.objects.filter(pk="C").update(valid_days=7)
    assert why("C", account, now=NOON + timedelta(days=7)) == ["it expired 7 days after 2026-03-02 12:00 UTC"]


@pytest.mark.parametrize("letter", ["A", "B", "E", "F"])
def test_another_crm_lapses(people, mapping, settings, letter):
    open_all(people, letters=letter)
    settings.CRM_DATABASE_URL = "postgresql://reader:secret@replica-2:5432/crm"
    for said in why(letter):
        assert "CRM_DATABASE_URL was " in said
        assert "replica-2" in said
        assert "secret" not in said


def test_another_login_on_the_same_crm_lapses(people, mapping, settings):
    settings.CRM_DATABASE_URL = "postgresql://reader:secret@replica:5432/crm"
    open_all(people, letters="A")
    settings.CRM_DATABASE_URL = "postgresql://reader:another@replica:5432/crm"
    assert standing.of("A", now=NOON).is_open, "a new password is no other system"
    settings.CRM_DATABASE_URL = "postgresql://owner:secret@replica:5432/crm"
    assert len(why("A")) == 2


def test_another_user_directory_lapses(people, settings):
    open_all(people, letters="D")
    settings.USMAN_URL = "http://other:8080"
    assert "USMAN_URL was " in why("D")[0]


def test_another_mapping_revision_lapses_what_depends_on_it(people, account, mapping):
    open_all(people, account)
    changed = mapping_document()
    changed["class_roles"] |= {"deal": ["Crm::Opportunity"], "note": ["Crm::Memo"]}
    revisions.publish(changed, by="ana", note="", now=LATER)
    assert [gate for gate in "ABCDEFGH" if not standing.of(gate, account, now=LATER).is_open] == ["B", "E", "F"]
    assert len(why("E")) == 2


def test_gate_e_signs_the_whole_mapping(people, account, mapping):
    open_all(people, account)
    revisions.publish(mapping_document() | {"id_sets": {"won": [4]}}, by="ana", note="", now=LATER)
    assert [gate for gate in "ABCDEFGH" if not standing.of(gate, account, now=LATER).is_open] == ["E"]


def test_measured_again_and_failing_lapses_and_mended_stands_again(people, account):
    open_all(people, account)
    found("C", account, passes=False, says="98.99 % is below 99 %.", now=LATER)
    assert why("C", account) == ["measured again on 2026-03-02 13:00 UTC, it fails: 98.99 % is below 99 %"]
    found("C", account, now=LATER)
    assert standing.of("C", account, now=LATER).is_open


def test_what_nobody_knew_of_at_the_signing_is_a_difference_too():
    assert standing.difference({"a": "1"}, {"a": "1", "b": "2"}) == "b was not known and is 2"


def test_evidence_was_measured_against_what_was_set_before_the_measuring(people, settings, monkeypatch):
    settings.CRM_DATABASE_URL = "postgresql://reader:x@replica:5432/crm"

    def measured(gate, account):
        settings.CRM_DATABASE_URL = "postgresql://reader:x@replica-2:5432/crm"
        return Measurement([Finding(True, "seen")]), 1.0

    monkeypatch.setattr(evidence, "measured", measured)
    made = evidence.probe(BY_LETTER["A"], None, by="ana", now=NOON)
    assert "replica:5432" in made.configuration["CRM_DATABASE_URL"] and "replica-2" in standing.of("A", now=NOON).stale


def slow(monkeypatch, *passes: bool) -> list[bool]:
    """Probes that find this, one after the other; while the first is at work another that began later is stored, and fails."""
    left = list(passes)

    def measured(gate, account):
        if len(left) == len(passes):
            found("A", passes=False, now=LATER + timedelta(minutes=1))
        return Measurement([Finding(left.pop(0), "seen")]), 90.0

    monkeypatch.setattr(evidence, "measured", measured)
    return left


@pytest.mark.parametrize("again", [True, False])
def test_a_slow_probe_that_was_overtaken_measures_again(people, monkeypatch, again):
    open_all(people, letters="A")
    left = slow(monkeypatch, True, again)
    made = evidence.probe(BY_LETTER["A"], None, by="ana", now=LATER)
    assert (left, made.passes, made.measured_at) == ([], again, LATER + timedelta(seconds=90))
    shown = standing.of("A", now=LATER)
    assert (shown.evidence, shown.is_open) == (made, again)


def test_so_does_one_at_a_start(people, account, mapping, monkeypatch):
    open_all(people, account, letters="A")
    left = slow(monkeypatch, True, False)
    refusals = decide(account, DRY, now=LATER + timedelta(hours=1), measure=True).refusals
    assert "Gate A (The CRM is read only) is closed" in refusals[0] and not left


def test_an_overtaken_probe_that_says_the_same_is_kept_as_it_is(people, monkeypatch):
    open_all(people, letters="A")
    left = slow(monkeypatch, False, True)
    assert not evidence.probe(BY_LETTER["A"], None, by="ana", now=LATER).passes
    assert left == [True]


def test_other_words_lapse(people, monkeypatch):
    open_all(people, letters="G")
    from gates import catalogue

    reworded = {**catalogue.BY_LETTER, "G": catalogue.Gate(**vars(catalogue.BY_LETTER["G"]) | {"statement": "Something else."})}
    monkeypatch.setattr(standing, "BY_LETTER", reworded)
    assert why("G") == ["what it states has been worded anew"]


# --- cost -----------------------------------------------------------------------------------------------------------


def test_the_board_s_questions_do_not_grow_with_the_accounts(people, django_assert_num_queries, mapping):
    accounts = [factories.account() for _ in range(3)]
    open_all(people, *accounts)
    few = count_queries(accounts[:1])
    assert count_queries(accounts) == few
    assert User.objects.count() == len(people)


def count_queries(accounts: list[Account]) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        standing.of_all(accounts=accounts, now=NOON)
    return len(queries)
