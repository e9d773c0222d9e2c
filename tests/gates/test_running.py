"""Gates beside real runs on the sample: who starts asks them, a lapse pauses production at the next chunk, and commands say why."""

import json
import subprocess
import sys
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from gates import policies, signoffs
from gates.models import Evidence, SignOff
from migration import accounts, budget, ledger, revisions, runs, steps, tasks
from migration.models import Account, Event, Run
from migration.states import FINISHED, RunMode, RunReason, RunState
from tests.conftest import rows
from tests.gates.conftest import member, sign
from tests.migration.conftest import OWNER, mapping_document, now
from tests.migration.test_restart import ROOT, environment

SIGNERS = {
    "A": ("CRM Squad", "Platform"),
    "B": ("CRM DBA",),
    "C": ("CDP",),
    "D": ("Platform",),
    "E": ("CRM Squad", "CDP"),
    "F": ("RFC reviewer", "CDP"),
}


@pytest.fixture
def console(systems):
    """The sample with accounts and mapping; every gate closed, as the product has it."""
    accounts.sync(now=now())
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    return systems


@pytest.fixture
def staff(console):
    """One person for each owner group, named as it."""
    return {group: member(group, name=group) for group in dict.fromkeys(group for groups in SIGNERS.values() for group in groups)}


def probe_and_sign(staff, letters: str, organisation: int | None = None) -> None:
    """By the operators' own commands."""
    of = ["--account", str(organisation)] if organisation else []
    for letter in letters:
        with pytest.raises(SystemExit) as ended:
            call_command("probe_gates", letter, *(of if letter == "C" else []))
        assert ended.value.code == 0, letter
        for group in SIGNERS[letter]:
            options = ["--by", group, "--group", group, "--note", "seen", *(of if letter == "C" else [])]
            call_command("sign_gate", letter, *options)


def run_account(organisation: int, mode: RunMode, **wish) -> Run:
    account = Account.objects.get(crm_organization_id=organisation)
    run = runs.start(runs.Wish(account, mode, **wish), by="tester", now=now())
    work_on(run)
    return run


def work_on(run: Run) -> None:
    while run.state not in (*FINISHED, RunState.PAUSED):
        steps.step(run, owner=OWNER)
        run.refresh_from_db()


@pytest.mark.slow
def test_the_sample_from_closed_gates_to_whole_rows(console, staff):
    with pytest.raises(runs.Refused, match=r"Gate A .* is closed.*Gate B .* is closed"):
        run_account(1, RunMode.DRY_RUN)
    probe_and_sign(staff, "AB")
    with pytest.raises(runs.Refused, match=r"^Gate C .*CDP has not signed.*has no dry run"):
        run_account(1, RunMode.PRODUCTION)
    probe_and_sign(staff, "DEF")
    assert run_account(1, RunMode.DRY_RUN).state == RunState.PARTIAL
    with pytest.raises(runs.Refused) as refused:
        run_account(1, RunMode.PRODUCTION)
    assert "dry run" not in str(refused.value)
    probe_and_sign(staff, "C", 1)
    run = run_account(1, RunMode.PRODUCTION)
    assert (run.state, run.capabilities) == (RunState.PARTIAL, ["D", "E", "F"])
    assert ledger.of(run).balances


@pytest.mark.slow
def test_account_3_falls_short_of_gate_c(console, staff):
    probe_and_sign(staff, "AB")
    with pytest.raises(SystemExit) as ended:
        call_command("probe_gates", "C", "--account", "3")
    assert ended.value.code == 3
    made = Evidence.objects.get(gate="C")
    assert (made.facts["percent"], made.passes) == ("96.94", False)
    with pytest.raises(CommandError) as refused:
        call_command("sign_gate", "C", "--account", "3", "--by", "CDP", "--group", "CDP", "--note", "go")
    assert refused.value.returncode == 4
    assert "96.94" in str(refused.value)
    assert run_account(3, RunMode.DRY_RUN).state == RunState.PARTIAL
    with pytest.raises(runs.Refused, match=r"Gate C .* is closed: its evidence of .* fails.*96\.94"):
        run_account(3, RunMode.PRODUCTION)
    assert not SignOff.objects.filter(gate="C").exists()


def ready(staff, organisation: int, chunk_size: int) -> Run:
    """A production run of the account, planned and rehearsed, under open gates."""
    probe_and_sign(staff, "AB")
    probe_and_sign(staff, "C", organisation)
    run_account(organisation, RunMode.DRY_RUN)
    account = Account.objects.get(crm_organization_id=organisation)
    run = runs.start(runs.Wish(account, RunMode.PRODUCTION, chunk_size), by="tester", now=now())
    steps.step(run, owner=OWNER)
    run.refresh_from_db()
    return run


@pytest.mark.slow
def test_a_gate_that_lapses_pauses_production_at_the_next_chunk(console, staff):
    run = ready(staff, 2, 40)
    assert run.chunks.count() > 4
    steps.step(run, owner=OWNER, turn=0.0)
    steps.worked(run, owner=OWNER, turn=0.000001)
    done = run.chunks.filter(state="done").count()
    account = run.account
    signoffs.withdraw("C", account, group="CDP", user=staff["CDP"], note="stop", now=now())
    work_on(run)
    assert (run.state, run.reason_code) == (RunState.PAUSED, RunReason.GATE_LAPSED)
    assert run.reason.startswith(f"Gate C (Contacts carry their CRM id) for {account} is closed: CDP withdrew the sign-off for CDP")
    assert run.chunks.filter(state="done").count() == done
    with pytest.raises(runs.Refused):
        run_account(2, RunMode.PRODUCTION, chunk_size=40)
    sign("C", "CDP", staff["CDP"], account, now=now())
    again = run_account(2, RunMode.PRODUCTION, chunk_size=40)
    assert again == run
    assert again.state in (RunState.SUCCEEDED, RunState.PARTIAL)
    assert ledger.of(again).balances


@pytest.mark.slow
def test_capabilities_are_frozen_and_dry_runs_go_on(console, staff):
    probe_and_sign(staff, "D")
    run = ready(staff, 2, 40)
    signoffs.withdraw("D", None, group="Platform", user=staff["Platform"], note="stop", now=now())
    work_on(run)
    assert (run.state, run.capabilities) == (RunState.PARTIAL, ["D"])
    account = run.account
    dry = runs.start(runs.Wish(account, RunMode.DRY_RUN, 40), by="tester", now=now())
    steps.step(dry, owner=OWNER)
    signoffs.withdraw("A", None, group="Platform", user=staff["Platform"], note="stop", now=now())
    work_on(dry)
    assert dry.state == RunState.PARTIAL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("GRANT INSERT ON audits TO calm_test_reader", "Gate A"),
        ("DROP INDEX {associated}", "Gate B"),
        ("UPDATE contacts SET source_id = NULL WHERE account_id = (SELECT id FROM accounts WHERE crm_organization_id = 1)", "Gate C"),
    ],
)
def test_what_changed_unseen_since_it_was_signed_is_found_at_the_start(console, staff, change, said):
    """Nobody probes again: starting production does."""
    probe_and_sign(staff, "AB")
    probe_and_sign(staff, "C", 1)
    run_account(1, RunMode.DRY_RUN)
    if "contacts" in change:
        console.change_cdp(change)
    else:
        [(associated,)] = indexes_on_associated(console)
        console.change_crm(change.format(associated=associated))
    with pytest.raises(runs.Refused, match=rf"{said} .* is closed: its evidence of .* fails: .*lapsed"):
        run_account(1, RunMode.PRODUCTION)
    assert Event.objects.filter(kind="gate measured", by="gates").count() == 1


def indexes_on_associated(console) -> list[tuple[str]]:
    return rows(
        console.crm, "SELECT indexname FROM pg_indexes WHERE tablename = 'audits' AND indexdef LIKE '%(associated_type, associated_id)%'"
    )


@pytest.mark.slow
def test_the_tick_measures_again_and_pauses(console, staff, monkeypatch):
    run = ready(staff, 2, 40)
    console.change_cdp("UPDATE contacts SET source_id = NULL")
    assert tasks.gates_stand(run), "the evidence is fresh"
    monkeypatch.setattr(policies, "MEASURED_ANEW_AFTER", timedelta(0))
    assert not tasks.gates_stand(run)
    run.refresh_from_db()
    assert (run.state, run.reason_code) == (RunState.PAUSED, RunReason.GATE_LAPSED)


@pytest.mark.slow
def test_the_tick_measures_nothing_while_nothing_may_be_read(console, staff, monkeypatch):
    """Gate B's queries are those of a run; and no chunk is read meanwhile, so nothing moves on the word of older evidence."""
    ready(staff, 2, 40)
    monkeypatch.setattr(policies, "MEASURED_ANEW_AFTER", timedelta(0))
    before = Evidence.objects.count()
    budget.stop(by="ana", note="month end", now=now())
    tasks.tick()
    assert Evidence.objects.count() == before
    budget.allow(by="ana", most_readers=None, note="", now=now())
    tasks.tick()
    assert Evidence.objects.count() == before + 3


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = environment(settings) | {"DJANGO_SETTINGS_MODULE": "calm_console.settings"}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_the_commands_exit_codes(console, staff):
    refused = command("run_account", "1", "--mode", "dry-run", "--inline", "--json")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "Gate A (The CRM is read only) is closed" in refused.stderr
    measured = command("probe_gates", "a", "--json")
    assert measured.returncode == 0
    assert [each["gate"] for each in json.loads(measured.stdout)["evidence"]] == ["A"]
    unknown = command("sign_gate", "A", "--by", "nobody", "--group", "Platform", "--note", "x")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        "CommandError: There is no login nobody: make it in the admin, and put it into group Platform.\n",
    )
    wrong = command("sign_gate", "A", "--by", "CDP", "--group", "Platform", "--note", "x")
    assert wrong.returncode == 4
    assert "CDP is not in group Platform, which must decide on Gate A: in group Platform: Platform." in wrong.stderr


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (["Z"], "There is no gate Z: the gates are A, B, C, D, E, F, G, H."),
        (["C"], "Gate C is decided for each account: name one."),
        (["A", "--account", "1"], "Gate A is decided once for all accounts: name none."),
        (["C", "--account", "12345"], "There is no account for CRM organisation 12345"),
    ],
)
@pytest.mark.parametrize("how", [[], ["--reject"], ["--withdraw"]])
def test_a_gate_that_is_named_wrong_is_refused_in_a_sentence(console, staff, named, says, how):
    with pytest.raises(CommandError, match=says):
        call_command("sign_gate", *named, *how, "--by", "CDP", "--group", "CDP", "--note", "x")
