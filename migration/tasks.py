"""Celery's side: a nudge carries a run's id, the tick sends nudges. Losing one loses nothing; the chunk table is the queue of record."""

import logging
import os
import socket
import time
from datetime import datetime, timedelta

from django.conf import settings
from django.core.management import call_command

from calm_console.celery import app
from migration import beats, budget, drafts, leases, notify, reaper, runs, steps, ticks
from migration.doors import Misconfigured, Outage
from migration.models import MappingDraft, Run
from migration.states import FINISHED, IllegalMove, RunReason, RunState

log = logging.getLogger(__name__)
# By then a tick has sent others. Without an end they would pile up where runs are many and workers few.
NUDGE_LASTS = timedelta(seconds=90)
AT_LEAST_APART = timedelta(seconds=30)  # ticks of beat, which sends one a minute


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@app.task(name="migration.work")
def work(*, run_id: int, sent: str = "") -> None:
    """Do a turn of the run's work, and pass the nudge on while there is more. One that was `sent` long ago, by the database's clock, is dropped."""
    if sent and ticks.now() - datetime.fromisoformat(sent) > NUDGE_LASTS:
        return
    run = Run.objects.get(pk=run_id)
    planned = run.state == RunState.PLANNED
    outcome = turn(run)
    if outcome == steps.Step.WORKED and planned:
        nudge_all(run)
    elif outcome == steps.Step.WORKED:
        nudge(run_id)
    if outcome != steps.Step.WAITING:
        nudge_next(run)
    if outcome == steps.Step.FINISHED:
        # The next tick would do the same, up to a minute later: of a small account that is most of the time.
        for started in beats.advance(now=ticks.now(), of=run):
            nudge_all(started)


def turn(run: Run) -> steps.Step:
    """One turn of a run's work. What is away is said on the run, and a later tick comes back to it."""
    try:
        return steps.step(run, owner=worker_name())
    except Outage as error:
        runs.note(run, str(error), now=ticks.now())
    except Misconfigured as error:
        runs.interrupt(run, str(error), by=worker_name(), now=ticks.now(), code=RunReason.STOPPED)
    return steps.Step.WAITING


def turn_for_each() -> None:
    """A turn here for each run that has work: for a tick that finds no broker, so that ticks alone bring runs to their end."""
    for run in Run.objects.workable().select_related("account"):
        turn(run)


def work_here(run: Run) -> None:
    """Do a run's work in this process until it ends, or is paused. Raises Outage or Misconfigured, with the run interrupted."""
    while run.state not in (*FINISHED, RunState.PAUSED):
        try:
            if steps.step(run, owner=worker_name(), turn=1.0) == steps.Step.WAITING:
                time.sleep(0.5)
        except (Outage, Misconfigured) as error:
            code = RunReason.OUTAGE if isinstance(error, Outage) else RunReason.STOPPED
            runs.interrupt(run, str(error), by=worker_name(), now=ticks.now(), code=code)
            if run.state not in FINISHED:  # this process may have slept, and others have brought the run to its end
                raise
        run.refresh_from_db()


@app.task(name="migration.count_effect")
def count_effect(*, draft_id: int) -> None:
    """Count what publishing a draft would change."""
    drafts.count_effect(MappingDraft.objects.get(pk=draft_id), now=ticks.now())


@app.task(name="migration.tick")
def tick_of_beat() -> None:
    """What beat sends once a minute. One that comes right after another is left out: ticks pile up while no worker is there to take them.

    By the database's clock: Celery's `expires` goes by that of the worker, and one whose clock is ahead would take every tick for a stale one.
    """
    # Not since its end: one that takes longer than half a minute would leave out every other one.
    last = ticks.last_began()
    # Also where the last one is yet to come: a server that took over may be behind the clock of the one before.
    if last is None or not timedelta(0) <= ticks.now() - last <= AT_LEAST_APART:
        tick()


def tick() -> bool:
    """Dead workers' chunks are freed, batches advanced, every run that has work is nudged; False where the broker is away.

    Two ticks at once only double nudges.
    """
    began = ticks.now()
    reaper.reap()
    beats.advance(now=ticks.now())
    answers = True  # neither a broker nor a CRM that is away is asked for every run
    # Some gates are measured by a run's own queries. While nothing may be read no chunk is, so nothing moves on the word of older evidence.
    measures = not budget.reason_to_stop(budget.current())
    # In no order, so that where nudges pile up none is always last.
    for run in Run.objects.workable().select_related("account").order_by("?"):
        try:
            stand = gates_stand(run, measure=measures)
        except Outage as error:
            log.warning("gates of run %s and of those after it were not measured again: %s", run.pk, error)
            measures = False
            stand = gates_stand(run, measure=False)
        if stand and answers:
            answers = nudge_all(run)
    for notification in notify.due(now=ticks.now()) if answers else ():
        nudge_notification(notification)
    call_command("clearsessions")  # nobody else removes sessions that are over
    ticks.record(by=worker_name(), now=ticks.now(), began=began)
    return answers


@app.task(name="migration.send_notification")
def send_notification(*, notification_id: int) -> None:
    """Try to deliver one message; where that fails, a later tick sends it here again."""
    notify.send(notification_id, now=ticks.now())


def nudge_notification(notification_id: int) -> None:
    """Ask a worker to send a message. The broker may be away: then the next tick asks again."""
    try:
        send_notification.apply_async(kwargs={"notification_id": notification_id}, retry=False)
    except Exception as error:  # noqa: BLE001 - whatever the broker raises, the message is still in its table
        log.warning("no nudge for notification %s: the broker at REDIS_URL does not answer (%s)", notification_id, type(error).__name__)


def gates_stand(run: Run, *, measure: bool = True) -> bool:
    """Whether the run's gates still stand; with `measure`, older evidence is measured again, and Outage raised where that cannot be done."""
    try:
        return runs.may_go_on(run, by="tick", now=ticks.now(), measure=measure)
    except (runs.Refused, IllegalMove) as error:
        log.info("run %s: %s", run.pk, error)  # it ended, or a person was faster: no reason to leave the other runs alone
        return True


def nudge_all(run: Run) -> bool:
    """A nudge for each chunk that could be worked on beside those that are, up to WORKERS_PER_RUN at once; False where the broker is away.

    It is asked no further then: each nudge would wait for it. A worker passes its own nudge on, so a run that has its workers needs no more.
    """
    at_work = leases.workers(run)
    number = max(0 if at_work else 1, min(settings.WORKERS_PER_RUN - at_work, leases.waiting(run) - leases.count(run)))
    return all(nudge(run.pk) for _ in range(number))


def nudge_next(ended: Run) -> None:
    """A worker has given its place at the CRM back: tell the run that has waited longest for one, if there is room."""
    if budget.reason_to_wait(budget.current(), leases.reading()):
        return
    waiting = Run.objects.workable().filter(reason_code=RunReason.READ_BUDGET).exclude(pk=ended.pk).order_by("pk").first()
    if waiting:
        nudge(waiting.pk)


def nudge(run_id: int) -> bool:
    """Ask the workers to look at a run; whether the broker took it. Redis may be away: then the next tick asks again."""
    sent = ticks.now().isoformat()
    try:
        work.apply_async(kwargs={"run_id": run_id, "sent": sent}, retry=False)
    except Exception as error:  # noqa: BLE001 - whatever the broker raises, the run does not depend on it
        log.warning("no nudge for run %s: the broker at REDIS_URL does not answer (%s)", run_id, type(error).__name__)
        return False
    return True


def nudge_count(draft_id: int) -> bool:
    """Ask a worker to count a draft's effect; whether the broker took it. No tick asks again: a person does."""
    try:
        count_effect.apply_async(kwargs={"draft_id": draft_id}, retry=False)
    except Exception as error:  # noqa: BLE001 - whatever the broker raises, the page says that nobody was asked
        log.warning("no count for draft %s: the broker at REDIS_URL does not answer (%s)", draft_id, type(error).__name__)
        return False
    return True
