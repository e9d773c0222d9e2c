"""Pause, resume, cancel, retry, force: what is possible when, how fast it takes effect, and that nobody writes after an end."""

import getpass
import itertools
import json
import os
import re
import signal
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from html import unescape
from io import StringIO

import psycopg
import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.urls import reverse

from gates.policies import Decision
from migration import chunks, control, leases, runs, steps, tasks, worlds
from migration.doors import Misconfigured
from migration.models import Account, Chunk, Event, Run
from migration.pipeline import flow
from migration.runs import Busy, Refused
from migration.states import ACTIVE, FINISHED, RUN_MOVES, VERBS, ChunkState, RunMode, RunReason, RunState, Verb, possible
from tests import factories
from tests.conftest import rows
from tests.migration.conftest import OWNER, now
from tests.migration.conftest import run_account as migrated
from tests.migration.test_restart import (
    PATIENCE,
    assert_as_undisturbed,
    at_chunk,
    celery_worker,
    exit_code,
    own_redis,
    planning,
    run_account,
    wait_until,
)

__all__ = ["own_redis"]
pytestmark = pytest.mark.django_db

TRY = {
    Verb.PAUSE: runs.pause,
    Verb.RESUME: control.resume,
    Verb.CANCEL: control.cancel,
    Verb.RETRY: control.retry,
    Verb.FORCE: control.force,
    Verb.ABANDON: control.abandon,
}


@pytest.fixture(autouse=True)
def open_gates(settings) -> None:
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"


def command(run: Run, verb: str) -> dict:
    out = StringIO()
    call_command("control_run", run.pk, verb, json=True, stdout=out, stderr=StringIO())
    run.refresh_from_db()
    return json.loads(out.getvalue())


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "state"), list(itertools.product(TRY, RunState)))
def test_each_verb_is_for_the_states_of_the_table_and_a_refusal_says_what_is_possible(verb, state, settings):
    settings.FORCE_AFTER_SECONDS = 0
    run = factories.run(state, mode=RunMode.DRY_RUN)
    factories.chunk(run, ChunkState.FAILED)
    again = {Verb.PAUSE: (RunState.PAUSING, RunState.PAUSED), Verb.CANCEL: (RunState.CANCELLING, RunState.CANCELLED)}.get(verb, ())
    if state in VERBS[verb] or state in again:
        TRY[verb](run, by="ana", now=now())
        assert (run.state == state) == (state in again)
        return
    with pytest.raises(Refused) as refused:
        TRY[verb](run, by="ana", now=now())
    now_possible = ", ".join(each for each in possible(state) if each != Verb.WITHDRAW) or "nothing"  # a dry run wrote nothing
    said = f"{run} is {state}: {verb} is for a run that is {' or '.join(VERBS[verb])}. Possible now: {now_possible}."
    assert str(refused.value) == said
    run.refresh_from_db()
    assert run.state == state


def test_every_active_run_can_be_ended_and_every_ended_one_that_wrote_withdrawn():
    assert {*VERBS[Verb.CANCEL], *VERBS[Verb.ABANDON], RunState.CANCELLING} == set(ACTIVE)
    assert {*VERBS[Verb.WITHDRAW]} == {*FINISHED, RunState.WITHDRAWING} - {RunState.WITHDRAWN}
    assert all((state, RunState.PAUSING) in RUN_MOVES for state in VERBS[Verb.PAUSE])
    assert all((state, RunState.CANCELLING) in RUN_MOVES for state in VERBS[Verb.CANCEL])


# --- pausing and cancelling, without and with somebody at work --------------------------------------------------------


def test_a_pause_waits_for_the_chunk_in_hand_and_keeps_its_reason():
    run = factories.run(RunState.RUNNING)
    held, free = (
        factories.chunk(run, ChunkState.LEASED, lease_expires_at=now() + timedelta(hours=1)),
        factories.chunk(run, ChunkState.PENDING),
    )
    runs.pause(run, by="tick", now=now(), code=RunReason.GATE_LAPSED, reason="Gate C has lapsed.")
    assert (run.state, run.reason_code, run.reason) == (RunState.PAUSING, RunReason.GATE_LAPSED, "Gate C has lapsed.")
    assert chunks.claim(run, owner=OWNER) is None and free.state == ChunkState.PENDING
    assert steps.step(run, owner=OWNER) == steps.Step.WAITING
    chunks.hand_back(held, "")
    assert steps.step(run, owner=OWNER) == steps.Step.WORKED
    assert (run.state, run.reason_code, run.reason) == (RunState.PAUSED, RunReason.GATE_LAPSED, "Gate C has lapsed.")
    assert list(Event.objects.filter(run=run).order_by("id").values_list("kind", "by")) == [("run pausing", "tick"), ("run paused", OWNER)]


@pytest.mark.parametrize(
    ("wish", "reached"), [(RunState.PAUSING, RunState.PAUSED), (RunState.CANCELLING, RunState.CANCELLED)], ids=["a pause", "an end"]
)
def test_a_wish_that_a_worker_brings_about_at_this_very_moment_is_no_error(monkeypatch, wish, reached):
    run = factories.run(state=wish)

    def worker_is_faster(looked_at: Run) -> bool:
        monkeypatch.undo()
        runs.settle(Run.objects.get(pk=run.pk), by=OWNER, now=now())
        return False

    monkeypatch.setattr(leases, "is_held", worker_is_faster)
    assert runs.settle(run, by="ana", now=now()).state == reached
    assert Event.objects.filter(kind=f"run {reached}").count() == 1


def test_a_pause_that_was_asked_for_twice_is_one():
    run = factories.run(RunState.RUNNING)
    late = Run.objects.get(pk=run.pk)
    runs.pause(run, by="ana", now=now(), reason="lunch")
    runs.pause(late, by="ben", now=now())
    assert (late.state, late.reason) == (RunState.PAUSED, "lunch")
    assert Event.objects.filter(run=run).count() == 2


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_that_is_resumed_twice_within_moments_is_resumed_once(has_ended):
    run, at = factories.run(RunState.PAUSED), now()
    late = Run.objects.get(pk=run.pk)
    control.act(Verb.RESUME, run, by="ana", now=at)
    if has_ended:
        runs.move(runs.move(run, RunState.RUNNING, by=OWNER, now=at), RunState.VERIFYING, by=OWNER, now=at)
        runs.move(run, RunState.SUCCEEDED, by=OWNER, now=at)
    assert control.act(Verb.RESUME, late, by="ana", now=at + timedelta(seconds=5)).state == run.state
    assert Event.objects.filter(run=run, by="ana").count() == 1
    for somebody, after in (("ben", 5), ("ana", 60)):
        with pytest.raises(Refused, match=f"is {run.state}: resume is for a run that is pausing or paused or interrupted"):
            control.act(Verb.RESUME, late, by=somebody, now=at + timedelta(seconds=after))


def test_of_two_clicks_on_resume_at_the_same_moment_none_is_refused(monkeypatch):
    run = factories.run(RunState.PAUSED)

    def other_click_is_faster(late: Run, *, now: datetime) -> None:
        monkeypatch.undo()
        control.act(Verb.RESUME, Run.objects.get(pk=run.pk), by="ana", now=now)

    monkeypatch.setattr(control, "check_gates", other_click_is_faster)
    assert control.act(Verb.RESUME, run, by="ana", now=now()).state == RunState.PLANNED
    assert Event.objects.filter(run=run).count() == 1


def test_a_pause_by_a_batch_becomes_a_persons(client):
    run = factories.run(RunState.RUNNING)
    runs.pause(run, by="batch 1", now=now(), code=RunReason.BATCH, reason="The window is closed.")
    client.force_login(factories.superuser())
    assert buttons(client, run) == ["pause", "resume", "cancel"]
    assert "Nobody but a person goes on with it." in client.get(address("pause", run)).content.decode()
    late = Run.objects.get(pk=run.pk)
    runs.pause(run, by="ana", now=now())
    assert (run.state, run.reason_code, run.reason) == (RunState.PAUSED, RunReason.ASKED, "ana asked for a pause.")
    runs.pause(late, by="ben", now=now())
    runs.pause(late, by="batch 1", now=now(), code=RunReason.BATCH, reason="The batch is paused.")
    assert late.reason == "ana asked for a pause."
    assert Event.objects.filter(run=run, kind="pause taken over").values_list("by", "sentence").get() == ("ana", "ana asked for a pause.")
    assert buttons(client, run) == ["resume", "cancel"]


@pytest.mark.parametrize(("begun", "state"), [(True, RunState.RUNNING), (False, RunState.PLANNED)])
def test_resumed_it_goes_on_where_it_stopped(begun, state):
    run = factories.run(RunState.PAUSED)
    if begun:
        factories.chunk(run, ChunkState.PENDING, not_before=now() + timedelta(hours=1))
    control.resume(run, by="ana", now=now())
    assert (run.state, run.reason_code, run.reason) == (state, "", "")
    assert not begun or chunks.claim(run, owner=OWNER)


def closed(account, mode, **how) -> Decision:
    return Decision(frozenset(), ["Gate A is closed: CRM Squad can sign it."])


@pytest.mark.parametrize(("verb", "state"), [(Verb.RESUME, RunState.PAUSED), (Verb.RETRY, RunState.FAILED)])
def test_nothing_goes_on_past_a_closed_gate(verb, state, settings):
    settings.GATE_POLICY = f"{__name__}.closed"
    run = factories.run(state)
    factories.chunk(run, ChunkState.FAILED)
    with pytest.raises(Refused, match=r"^Gate A is closed: CRM Squad can sign it\.$"):
        TRY[verb](run, by="ana", now=now())
    run.refresh_from_db()
    assert run.state == state


def test_who_was_faster_is_said():
    run = factories.run(RunState.PAUSED)
    real = Run.refresh_from_db

    def overtaken(self: Run, *arguments, **named) -> None:
        real(self, *arguments, **named)
        Run.objects.filter(pk=self.pk).update(state=RunState.CANCELLING)

    Run.refresh_from_db = overtaken
    try:
        with pytest.raises(Busy, match="is no longer paused: another process was faster"):
            control.act(Verb.RESUME, run, by="ana", now=now())
    finally:
        Run.refresh_from_db = real


# --- starting a run again that was paused ----------------------------------------------------------------------------


def start(organisation: int = 1, mode: RunMode = RunMode.PRODUCTION, size: int | None = 20) -> Run:
    return runs.start(runs.Wish(Account.objects.get(crm_organization_id=organisation), mode, size), by="ben", now=now())


def test_starting_a_paused_run_again_takes_it_up_and_another_wish_is_told_to_wait(console):
    run = start()
    runs.pause(run, by="ana", now=now())
    with pytest.raises(Busy, match=f"^{run} is paused and would have to end first".replace("(", r"\(").replace(")", r"\)")):
        start(size=7)
    assert start() == run
    run.refresh_from_db()
    assert run.state == RunState.PLANNED
    steps.step(run, owner=OWNER)
    runs.pause(run, by="ana", now=now())
    assert start().state == RunState.RUNNING


def test_a_start_looks_at_its_own_account_s_runs_alone(settings):
    """Another account's run would be taken for one that has to make way."""
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = "postgresql://nobody@127.0.0.1:1/nothing"
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    others = [factories.run(state) for state in (RunState.INTERRUPTED, RunState.PAUSED, RunState.PLANNED)]
    account = factories.account()
    run = runs.start(runs.Wish(account, RunMode.PRODUCTION), by="ana", now=now())
    assert (run.account, run.state, run.planned_by, run.chunk_size) == (account, RunState.PLANNED, "ana", settings.CHUNK_SIZE)
    assert runs.start(runs.Wish(account, RunMode.PRODUCTION), by="ben", now=now()) == run
    assert runs.start(runs.Wish(account, RunMode.PRODUCTION, settings.CHUNK_SIZE), by="ben", now=now()) == run
    assert [Run.objects.get(pk=each.pk).state for each in others] == [RunState.INTERRUPTED, RunState.PAUSED, RunState.PLANNED]
    runs.record(run, stale=3)
    assert [each.stale for each in Run.objects.order_by("pk")] == [*[each.stale for each in others], 3], "figures are the run's own"


@pytest.mark.parametrize(
    ("mode", "state", "goes_on"),
    [
        (RunMode.PRODUCTION, RunState.RUNNING, False),
        (RunMode.PRODUCTION, RunState.VERIFYING, False),
        (RunMode.DRY_RUN, RunState.RUNNING, True),
        (RunMode.PRODUCTION, RunState.CANCELLING, True),
        (RunMode.PRODUCTION, RunState.WITHDRAWING, True),
    ],
)
def test_a_gate_that_lapsed_pauses_what_writes_and_keeps_nobody_from_an_end(settings, mode, state, goes_on):
    settings.GATE_POLICY = "tests.migration.policies.with_nothing"
    run = factories.run(state, mode)
    assert runs.may_go_on(run, by=OWNER, now=now()) is goes_on
    run.refresh_from_db()
    assert (run.state, run.reason_code) == ((state, "") if goes_on else (RunState.PAUSED, RunReason.GATE_LAPSED))


def test_what_a_run_waits_for_is_said_of_it_alone_and_no_more_once_it_goes_on():
    run, other = factories.run(RunState.RUNNING), factories.run(RunState.RUNNING)
    paused = factories.run(RunState.PAUSED, reason_code=RunReason.OUTAGE, reason="The CRM was away when it was paused.")
    tried_again = factories.run(RunState.RUNNING, reason_code=RunReason.QUARANTINED, reason="1 candidate is tried again.")
    for each in (run, other):
        runs.note(each, "The CRM is away.", now=now())
    for each in (run, paused, tried_again):
        runs.goes_on(each)
    assert [*Run.objects.order_by("pk").values_list("reason_code", "reason")] == [
        (RunReason.NONE, ""),
        (RunReason.OUTAGE, "The CRM is away."),
        (RunReason.OUTAGE, "The CRM was away when it was paused."),
        (RunReason.QUARANTINED, "1 candidate is tried again."),
    ]


# --- cancel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "state", "token", "reached"),
    [
        (RunMode.PRODUCTION, ChunkState.PENDING, 0, RunState.CANCELLED),
        (RunMode.PRODUCTION, ChunkState.DONE, 1, RunState.CANCELLED),
        (RunMode.PRODUCTION, ChunkState.PENDING, 1, RunState.CANCELLING),
        (RunMode.PRODUCTION, ChunkState.LEASED, 1, RunState.CANCELLING),
        (RunMode.DRY_RUN, ChunkState.PENDING, 1, RunState.CANCELLED),
    ],
)
def test_an_end_comes_at_once_where_nobody_can_still_write(mode, state, token, reached):
    run = factories.run(RunState.RUNNING, mode)
    factories.chunk(run, state, token=token)
    assert control.cancel(run, by="ana", now=now()).state == reached


# --- retry ----------------------------------------------------------------------------------------------------------


def test_failed_chunks_are_tried_again_from_the_beginning():
    run = factories.run(
        RunState.FAILED, reason_code=RunReason.CHUNK_FAILED, reason="Chunk 1 failed.", verification=factories.verification()
    )
    failed = factories.chunk(run, ChunkState.FAILED, attempts=3, generation=2, ended_at=now())
    waiting = factories.chunk(run, ChunkState.PENDING, attempts=2)
    done = factories.chunk(run, ChunkState.DONE)
    control.retry(run, by="ana", now=now())
    assert (run.state, run.reason, run.finished_at, run.verification) == (RunState.RUNNING, "1 failed chunk is tried again.", None, None)
    states = {c.pk: (c.state, c.attempts, c.generation, c.ended_at) for c in run.chunks.all()}
    assert states == {
        failed.pk: (ChunkState.PENDING, 0, 3, None),
        waiting.pk: (ChunkState.PENDING, 0, 1, None),
        done.pk: (ChunkState.DONE, 1, 1, None),
    }


@pytest.mark.parametrize("left", [ChunkState.FAILED, ChunkState.PENDING, ChunkState.LEASED])
def test_a_failed_run_is_tried_again_whatever_it_did_not_come_to_and_whoever_else_has_run(left):
    """One most of whose chunks failed ends with others untouched, or in a worker's hands."""
    run = factories.run(RunState.FAILED)
    factories.chunk(run, left)
    factories.run(RunState.SUCCEEDED)
    factories.run(RunState.SUCCEEDED, RunMode.DRY_RUN, account=run.account)
    assert control.retry(run, by="ana", now=now()).state == RunState.RUNNING


def test_what_cannot_be_retried_says_what_to_do_instead():
    run = factories.run(RunState.FAILED)
    factories.chunk(run, ChunkState.DONE)
    with pytest.raises(Refused, match=r"No chunk of .* failed: run the account again"):
        control.retry(run, by="ana", now=now())
    factories.chunk(run, ChunkState.FAILED)
    Run.objects.filter(pk=run.pk).update(pipeline_version=0)
    with pytest.raises(Refused, match="planned by pipeline version 0, this is 1: run the account again"):
        control.retry(run, by="ana", now=now())
    Run.objects.filter(pk=run.pk).update(pipeline_version=flow.VERSION, withdrawal={"removed": {}})
    with pytest.raises(Refused, match=r"Rows of .* were withdrawn, and nobody writes for it any more"):
        control.retry(run, by="ana", now=now())
    Run.objects.filter(pk=run.pk).update(withdrawal=None)
    factories.run(RunState.CANCELLED, account=run.account)
    other = factories.run(RunState.RUNNING, mode=RunMode.DRY_RUN, account=run.account)
    with pytest.raises(Busy, match=r"Another run of .* is active"):
        control.retry(run, by="ana", now=now())
    Run.objects.filter(pk=other.pk).delete()
    newer = factories.run(RunState.SUCCEEDED, account=run.account)
    with pytest.raises(Refused, match="came after"):
        control.retry(run, by="ana", now=now())
    Run.objects.filter(pk=newer.pk).delete()
    assert control.retry(run, by="ana", now=now()).state == RunState.RUNNING


# --- force ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wish", "reached"), [(runs.pause, RunState.PAUSED), (control.cancel, RunState.CANCELLED)])
def test_a_wish_that_is_stuck_can_be_forced_after_five_minutes(console, wish, reached):
    run = start()
    steps.step(run, owner=OWNER)
    held = chunks.claim(run, owner="gone:1")
    asked = now()
    wish(run, by="ana", now=asked)
    with pytest.raises(Refused, match=r"force it in 1 seconds\.$"):
        control.force(run, by="ana", now=asked + timedelta(minutes=4, seconds=59))
    control.force(run, by="ben", now=asked + timedelta(minutes=5))
    assert run.state == reached
    with pytest.raises(chunks.LeaseLost):
        chunks.beat(held)
    held.refresh_from_db()
    assert (held.state, held.token, held.attempts, held.reason) == (ChunkState.PENDING, 2, 1, "its lease was taken away")
    fenced = rows(console.cdp, "SELECT chunk, token, receipt FROM calm.receipts")
    assert fenced == ([(held.uuid, 3, None)] if reached == RunState.CANCELLED else [])


@pytest.mark.parametrize("hours", [-3, 3])
def test_how_long_a_wish_has_waited_goes_by_the_database_s_clock(console, monkeypatch, hours):
    """Not by that of whoever asks for the pause, nor of whoever forces it."""
    run = start()
    steps.step(run, owner=OWNER)
    chunks.claim(run, owner=OWNER)
    with monkeypatch.context() as off:
        off.setattr("django.utils.timezone.now", lambda: now() + timedelta(hours=hours))
        call_command("control_run", str(run.pk), "pause", stdout=StringIO())
        with pytest.raises(CommandError, match=r"force it in (300|299) seconds\.$"):
            call_command("control_run", str(run.pk), "force", stdout=StringIO())
    with pytest.raises(CommandError, match=r"force it in (300|299) seconds\.$"):
        call_command("control_run", str(run.pk), "force", stdout=StringIO())


def test_an_end_waits_for_the_cdp_that_has_to_keep_workers_out(console, settings):
    run = start()
    steps.step(run, owner=OWNER)
    held = chunks.claim(run, owner="gone:1")
    Chunk.objects.filter(pk=held.pk).update(lease_expires_at="2020-01-01T00:00Z")
    url, settings.CDP_DATABASE_URL = settings.CDP_DATABASE_URL, "postgresql://u:p@127.0.0.1:1/x"
    Run.objects.update(systems=worlds.systems())
    assert command(run, "cancel")["state"] == RunState.CANCELLING
    asked = run.events.latest("pk").sentence
    tasks.work(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.reason_code) == (RunState.CANCELLING, RunReason.OUTAGE) and run.reason.startswith("CDP_DATABASE_URL: ")
    settings.CDP_DATABASE_URL = url
    Run.objects.update(systems=worlds.systems())
    assert steps.step(run, owner=OWNER) == steps.Step.WORKED
    assert (run.state, run.reason_code, run.reason) == (RunState.CANCELLED, RunReason.ASKED, asked)
    assert rows(console.cdp, "SELECT chunk, token FROM calm.receipts") == [(held.uuid, 2)]


def test_an_end_that_a_wrong_password_keeps_from_coming_says_so(console, settings):
    run = start()
    steps.step(run, owner=OWNER)
    held = chunks.claim(run, owner="gone:1")
    Chunk.objects.filter(pk=held.pk).update(lease_expires_at="2020-01-01T00:00Z")
    url, settings.CDP_DATABASE_URL = settings.CDP_DATABASE_URL, settings.CDP_DATABASE_URL.replace("calm-test@", "wrong@")
    assert command(run, "cancel")["state"] == RunState.CANCELLING
    assert tasks.turn(run) == steps.Step.WAITING
    run.refresh_from_db()
    assert (run.state, run.reason_code) == (RunState.CANCELLING, RunReason.STOPPED)
    assert run.reason.startswith("CDP_DATABASE_URL: the user or password is refused")
    settings.CDP_DATABASE_URL = url
    tasks.turn(run)
    run.refresh_from_db()
    assert (run.state, run.reason) == (RunState.CANCELLED, f"{getpass.getuser()} asked for its end.")


# --- old code, another system --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING])
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("pipeline_version", 0, "was planned by pipeline version 0, this process has version 1: end the workers of the older release"),
        ("systems", "1" * 64, "names another database here than where"),
        (
            "settings",
            {"CRM_ORGANIZATION_ATTRIBUTE": "org_id"},
            r"^CRM_ORGANIZATION_ATTRIBUTE is 'organization_id' here and was 'org_id' where Run .* was planned: give this process the same, or start",
        ),
    ],
)
def test_a_worker_that_does_not_fit_the_run_touches_nothing_of_it(state, field, value, said, console):
    run = factories.run(state, systems=worlds.systems(), account=Account.objects.get(crm_organization_id=1))
    chunk = factories.chunk(run, ChunkState.PENDING)
    if state == RunState.VERIFYING:
        Chunk.objects.filter(pk=chunk.pk).update(state=ChunkState.DONE, receipt={})
    Run.objects.filter(pk=run.pk).update(**{field: value})
    with pytest.raises(Misconfigured, match=said):
        steps.step(run, owner=OWNER)
    assert set(run.chunks.values_list("attempts", "token")) == {(0, 0)}


@pytest.mark.parametrize(
    ("name", "value"), [("CRM_ORGANIZATION_ATTRIBUTE", "org_id"), ("CRM_USER_NAME_COLUMN", "email"), ("SEAM_LAG_SECONDS", 60)]
)
def test_a_worker_with_another_setting_leaves_a_run_that_its_starter_may_replace(console, settings, name, value):
    """What becomes of a row hangs on it: another tenant's would be let in, a name or an overlap told otherwise."""
    run = start()
    steps.step(run, owner=OWNER)
    right = getattr(settings, name)
    setattr(settings, name, value)
    tasks.turn(run)
    run.refresh_from_db()
    assert (run.state, run.reason_code, run.reason) == (
        RunState.INTERRUPTED,
        RunReason.STOPPED,
        f"{name} is {value!r} here and was {right!r} where {run} was planned: give this process the same, or start the account's run again.",
    )
    assert console.activities("origin = 'crm_migration'") == []
    setattr(settings, name, right)
    assert start() == run, "by who has it right it is gone on with"
    Run.objects.filter(pk=run.pk).update(settings=None)
    setattr(settings, name, value)
    assert start() == run, "an older release has planned it"
    Run.objects.filter(pk=run.pk).update(settings=worlds.settings_here() | {name: right})
    other = start()
    run.refresh_from_db()
    assert (other.settings[name], run.state, run.reason_code) == (value, RunState.CANCELLED, RunReason.SUPERSEDED)


# --- real processes -------------------------------------------------------------------------------------------------


def frozen(child, moment) -> None:
    """Freeze the process while it holds a chunk."""
    while True:
        wait_until(moment, child)
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(0.05)
        if Chunk.objects.filter(state=ChunkState.LEASED).exists():
            return
        os.kill(child.pid, signal.SIGCONT)


@contextmanager
def locked(url: str, statement: str):
    """Hold a lock for the time of the block."""
    with psycopg.connect(url) as connection:
        connection.execute(statement)
        yield connection


def in_transaction(url: str) -> bool:
    """Whether a loader waits for a lock."""
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'calm-console load' AND wait_event_type = 'Lock'"
    return bool(rows(url, f"{query} AND datname = current_database()"))


def test_a_pause_takes_effect_within_one_chunk_and_the_run_ends_as_undisturbed(console, settings):
    with run_account(settings, "--inline", "--chunk-size", "20") as child:
        wait_until(partial(at_chunk, 3), child)
        run = Run.objects.get()
        runs.pause(run, by="ana", now=now())
        done = run.chunks.filter(state=ChunkState.DONE).count()
        assert exit_code(child) == 1
        assert run.chunks.filter(state=ChunkState.DONE).count() <= done + 2  # one in each lane's hand
    run.refresh_from_db()
    assert run.state == RunState.PAUSED and not run.chunks.filter(state=ChunkState.LEASED).exists()
    assert command(run, "resume")["state"] == RunState.RUNNING
    while run.state not in FINISHED:
        steps.step(run, owner=OWNER)
        run.refresh_from_db()
    assert_as_undisturbed(console)


def test_a_pause_during_the_planning_throws_the_plan_away_and_resuming_plans_again(console, settings):
    with run_account(settings, "--inline", "--chunk-size", "20") as child:
        wait_until(planning, child)
        run = Run.objects.get()
        runs.pause(run, by="ana", now=now())
        assert exit_code(child) == 1
    run.refresh_from_db()
    assert run.state == RunState.PAUSED and not run.chunks.exists()
    command(run, "resume")
    assert run.state == RunState.PLANNED


# Too long to run out by itself on a slow machine: a test that needs it to be over says so with `leases_run_out`.
LONG_LEASE = "600"


def leases_run_out() -> None:
    Chunk.objects.filter(state=ChunkState.LEASED).update(lease_expires_at=Now() - timedelta(seconds=1))


def waits_to_read(crm: str) -> bool:
    """Whether the worker waits for a lock on the audits of this very CRM."""
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    return bool(rows(crm, f"SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'audits'::regclass AND {here}"))


def being_read(run: Run) -> Chunk:
    """The worker's last chunk: the one before may be held too, while it is loaded."""
    return run.chunks.filter(state=ChunkState.LEASED).latest("number")


@pytest.mark.parametrize("ends_sessions", [True, False], ids=["its session is ended", "only the fence"])
def test_a_frozen_worker_that_wakes_up_after_the_end_writes_nothing(console, settings, ends_sessions):
    """It is frozen where it reads, so that everything it would write is still to come."""
    with run_account(settings, "--inline", "--chunk-size", "20", LEASE_SECONDS=LONG_LEASE) as child:
        wait_until(partial(at_chunk, 3), child)
        with locked(console.crm, "LOCK TABLE audits IN ACCESS EXCLUSIVE MODE"):
            wait_until(partial(waits_to_read, console.crm), child)
            os.kill(child.pid, signal.SIGSTOP)
        run = Run.objects.get()
        if not ends_sessions:
            Chunk.objects.update(sessions=None)
        held = being_read(run)
        assert command(run, "cancel")["state"] == RunState.CANCELLING
        leases_run_out()
        assert command(run, "cancel")["state"] == RunState.CANCELLED
        before = console.activities()
        os.kill(child.pid, signal.SIGCONT)
        assert exit_code(child) == 1
    assert console.activities() == before
    held.refresh_from_db()
    assert held.state == ChunkState.PENDING and held.receipt is None
    assert rows(console.cdp, f"SELECT token, receipt FROM calm.receipts WHERE chunk = '{held.uuid}'") == [(held.token + 1, None)]


def test_a_worker_frozen_in_the_middle_of_its_writing_transaction_has_its_session_ended(console, settings):
    """Else it would hold the fence's row, and nobody could end the run."""
    with run_account(settings, "--inline", "--chunk-size", "20", LEASE_SECONDS=LONG_LEASE) as child:
        wait_until(partial(at_chunk, 3), child)
        with locked(console.cdp, "LOCK TABLE contact_activity_logs IN SHARE MODE"):
            wait_until(lambda: in_transaction(console.cdp), child)
            os.kill(child.pid, signal.SIGSTOP)
        run = Run.objects.get()
        before = console.activities()
        command(run, "cancel")
        leases_run_out()
        assert command(run, "cancel")["state"] == RunState.CANCELLED
        os.kill(child.pid, signal.SIGCONT)
        assert exit_code(child) == 1
    assert console.activities() == before


def test_an_end_is_reached_between_two_phases(console, settings):
    """The worker in hand of a chunk sees the wish at its next checkpoint, and hands the chunk back uncounted."""
    with run_account(settings, "--inline", "--chunk-size", "20", LEASE_SECONDS=LONG_LEASE) as child:
        wait_until(partial(at_chunk, 3), child)
        with locked(console.crm, "LOCK TABLE audits IN ACCESS EXCLUSIVE MODE"):
            wait_until(partial(waits_to_read, console.crm), child)
            run = Run.objects.get()
            held = being_read(run)
            assert command(run, "cancel")["state"] == RunState.CANCELLING
        assert exit_code(child) == 1
    run.refresh_from_db()
    held.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert (held.state, held.attempts, held.reason) == (ChunkState.PENDING, 0, "the run is to end")


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "celery"])
def test_a_worker_that_is_asked_to_stop_leaves_no_chunk_behind(console, settings, own_redis, inline):
    """Inline it hands its chunk back at once; a Celery worker ends its turn, which TURN_SECONDS limits."""
    with run_account(settings, *(["--inline"] if inline else []), "--chunk-size", "20") as child:
        if inline:
            wait_until(partial(at_chunk, 3), child)
            child.terminate()
            assert child.wait(PATIENCE) == 143
        else:
            with celery_worker(settings) as worker:
                wait_until(partial(at_chunk, 3), child)
                worker.terminate()
                assert worker.wait(PATIENCE) == 0
    assert not Chunk.objects.filter(state=ChunkState.LEASED).exists()
    assert set(Chunk.objects.exclude(state=ChunkState.DONE).values_list("attempts", flat=True)) <= {0}


def test_the_command_refuses_in_a_sentence(console):
    run = start()
    with pytest.raises(CommandError, match=r"is planned: retry is for a run that is failed. Possible now: pause, cancel.$") as refused:
        command(run, "retry")
    assert refused.value.returncode == 4
    with pytest.raises(CommandError, match=f"^There is no run 999999; the newest is {run.pk}.$"):
        call_command("control_run", 999999, "pause")


# --- pages ----------------------------------------------------------------------------------------------------------


def staff(client, *permissions: str):
    """Logged in with the right to view, and these."""
    user = factories.viewer()
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def address(page: str, run: Run) -> str:
    return reverse(f"admin:migration_run_{page}", args=[run.pk])


def buttons(client, run: Run) -> list[str]:
    found = client.get(address("change", run)).content.decode()
    return re.findall(r'<a class="act[^"]*" href="/[^"]*/run/\d+/(\w+)/"', found)


@pytest.fixture
def no_broker(monkeypatch) -> list[int]:
    """The runs that were nudged."""
    nudged: list[int] = []
    monkeypatch.setattr("migration.tasks.nudge_all", lambda run: nudged.append(run.pk))
    return nudged


def test_the_page_shows_the_buttons_that_fit_the_state_to_whoever_may(client):
    run = factories.run(RunState.RUNNING)
    ended = factories.run(RunState.PARTIAL, stale=3)
    staff(client)
    assert buttons(client, run) == buttons(client, ended) == []
    client.logout()
    client.force_login(factories.superuser())
    assert buttons(client, run) == ["pause", "cancel"]
    assert buttons(client, ended) == ["withdraw", "stale"]
    assert buttons(client, factories.run(RunState.SUCCEEDED, mode=RunMode.DRY_RUN)) == []


@pytest.mark.parametrize(
    ("state", "verb", "says"),
    [
        (RunState.PLANNED, "pause", "Counting its candidates is given up, and begins anew once it is resumed."),
        (RunState.PAUSED, "resume", "A worker counts its candidates first; then all chunks are done."),
        (RunState.PLANNED, "cancel", "Its chunks are not cut yet, so nothing is moved."),
        (RunState.VERIFYING, "pause", "The verification is given up, and begins anew once it is resumed."),
        (RunState.VERIFYING, "cancel", "All its chunks are done, and what is moved stays in the CDP, not verified;"),
    ],
)
def test_a_verbs_page_says_what_it_does_where_no_chunk_is_to_do(client, state, verb, says):
    """Of a run that has all its work before it, it was said that workers go on with the 0 chunks that are still to do."""
    run = factories.run(state)
    if state == RunState.VERIFYING:
        factories.chunk(run)
    staff(client, "change_run")
    shown = unescape(client.get(address(verb, run)).content.decode())
    assert says in shown and "the 0" not in shown.lower()


def test_a_verbs_page_shows_its_effect_and_does_it_when_it_is_sent(client, no_broker):
    run = factories.run(RunState.RUNNING)
    factories.chunk(run, ChunkState.LEASED, lease_expires_at=now() + timedelta(hours=1))
    factories.chunk(run, ChunkState.PENDING)
    staff(client, "change_run")
    shown = client.get(address("pause", run)).content.decode()
    assert "Chunks in hand that are ended: 1; that wait: 1." in shown and run.state == RunState.RUNNING
    answer = client.post(address("pause", run), follow=True)
    run.refresh_from_db()
    assert run.state == RunState.PAUSING and run.reason == "viewer asked for a pause."
    assert f"Run {run.pk} (production, {run.account}) is pausing." in unescape(answer.content.decode())
    assert no_broker == [run.pk]
    refused = unescape(client.post(address("retry", run)).content.decode())
    assert "is pausing: retry is for a run that is failed. Possible now: resume, cancel, force." in refused


@pytest.mark.parametrize(("page", "needs"), [("pause", "change_run"), ("withdraw", "withdraw_run"), ("stale", "remove_stalerow")])
def test_no_page_of_work_is_for_whoever_may_only_look(client, page, needs):
    run = factories.run(RunState.SUCCEEDED)
    others = {"change_run", "withdraw_run", "remove_stalerow"} - {needs}
    staff(client, *others)
    assert [client.get(address(page, run)).status_code, client.post(address(page, run)).status_code] == [403, 403]
    assert Run.objects.get().state == RunState.SUCCEEDED


def test_withdrawing_shows_what_goes_and_begins(client, console, no_broker):
    run = migrated(1)
    count = len(console.activities(f"run_id = '{run.uuid}'"))
    client.force_login(factories.superuser())
    factories.password_typed(client)
    shown = client.get(address("withdraw", run)).content.decode()
    assert f"{count:,} rows would be removed from the CDP" in shown and "contact/update" in shown
    client.post(address("withdraw", run))
    run.refresh_from_db()
    assert (run.state, run.withdrawal["rows"], no_broker) == (RunState.WITHDRAWING, count, [run.pk])
    refused = client.get(address("stale", run)).content.decode()
    assert "is withdrawing: stale rows are removed once a run has come to its end." in unescape(refused)


def test_stale_rows_are_removed_from_their_page(client, console):
    run = migrated(1)
    row = console.activities(f"run_id = '{run.uuid}' AND category = 'contact/update'")[0]
    console.change_crm(f"DELETE FROM audits WHERE id = {row[11]}")
    run = migrated(1)
    client.force_login(factories.superuser())
    factories.password_typed(client)
    assert row[0] in client.get(address("stale", run)).content.decode()
    answer = client.post(address("stale", run), follow=True).content.decode()
    assert "1 row is removed. No longer stale, or not ours, and kept: 0. Left on the list: 0." in answer
    assert not console.activities(f"id = '{row[0]}'")
