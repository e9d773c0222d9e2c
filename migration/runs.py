"""From a wish to a run, and every move of its state: the only writer of run states."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.module_loading import import_string

from migration import chunks, events, fences, leases, outbox, reaper, revisions, summaries, worlds
from migration.models import Account, Chunk, Run
from migration.pipeline.flow import VERSION
from migration.states import FINISHED, RUN_MOVES, VERBS, Overtaken, RunMode, RunReason, RunState, Verb, check_run_move, possible

# A run that would go on says what it waits for. One that is paused, is to be, or has ended says why that is.
MAY_WAIT = (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING, RunState.CANCELLING, RunState.WITHDRAWING)


class Refused(RuntimeError):
    """The run may not start; the sentences say what is missing and who can give it."""


class Busy(RuntimeError):
    """Another run of the account is being worked on."""


class Decision(Protocol):
    """Of settings.GATE_POLICY: refusals in words (none: go), and the capabilities that the pipeline is handed."""

    @property
    def refusals(self) -> list[str]: ...
    @property
    def capabilities(self) -> frozenset[str]: ...


@dataclass(frozen=True)
class Wish:
    """What somebody asks for."""

    account: Account
    mode: RunMode
    chunk_size: int | None = None
    downgrade_confirmed: bool = False  # production may run with fewer capabilities than the account's last production run


def start(wish: Wish, *, by: str, now: datetime) -> Run:
    """The account's active run if it is this very wish, else a new one in state planned.

    A run that nobody works on and that is another wish is cancelled; one that somebody works on raises Busy, and so does a mapping that is
    published at this moment. Raises Refused, and Outage where a gate cannot be measured.
    """
    revision = revisions.current()  # before the gates are asked, which may take a minute: what they say is said of this one
    decision = gate_decision(wish.account, wish.mode, now=now, measure=True, downgrade_confirmed=wish.downgrade_confirmed)
    if decision.refusals:
        raise Refused(" ".join(decision.refusals))
    if revision is None:
        raise Refused("No mapping revision is published: run `manage.py publish_mapping --file mapping.json --yes`.")
    asked = {
        "mode": wish.mode, "mapping_revision": revision, "pipeline_version": VERSION, "capabilities": sorted(decision.capabilities),
        "systems": worlds.systems(), "settings": worlds.settings_here(),
    }  # fmt: skip
    try:
        with transaction.atomic():
            Account.objects.select_for_update(no_key=True).get(pk=wish.account.pk)  # two starts at once: the second sees the first's run
            if revisions.current() != revision:
                raise Busy("Another mapping revision was published while the gates were asked: try again.")
            return continued(wish, asked, by=by, now=now) or created(wish, asked, by=by, now=now)
    except IntegrityError as error:
        raise Busy(f"Another run of {wish.account} was started at this moment: try again.") from error


def gate_decision(
    account: Account, mode: RunMode, *, now: datetime, measure: bool = False, run: Run | None = None, downgrade_confirmed: bool = False
) -> Decision:
    """What the gates allow: the one seam through which migration asks them; see gates.policies.decide."""
    decide = import_string(settings.GATE_POLICY)
    decision: Decision = decide(account, mode, now=now, measure=measure, run=run, downgrade_confirmed=downgrade_confirmed)
    return decision


def may_go_on(run: Run, *, by: str, now: datetime, measure: bool = False) -> bool:
    """Whether the gates that production needs still stand; a run for which one has lapsed is paused, with the reason.

    Asked before each chunk; `measure` has older evidence measured again, and then raises Outage where that cannot be done.
    """
    if not run.writes or run.state not in VERBS[Verb.PAUSE]:
        return True  # a wish and a withdrawal need no gate
    refusals = gate_decision(run.account, RunMode(run.mode), now=now, measure=measure, run=run).refusals
    if refusals:
        pause(run, by=by, now=now, code=RunReason.GATE_LAPSED, reason=" ".join(refusals))
    return not refusals


def created(wish: Wish, asked: dict, *, by: str, now: datetime) -> Run:
    size = wish.chunk_size or settings.CHUNK_SIZE
    run = Run.objects.create(uuid=uuid4(), account=wish.account, chunk_size=size, planned_at=now, planned_by=by, **asked)
    events.record("run planned", f"{run.get_mode()} of {wish.account}, chunks of {size}", now=now, by=by, run=run)
    if wish.downgrade_confirmed:
        events.record("downgrade confirmed", "it may have fewer capabilities than the last production run", now=now, by=by, run=run)
    if run.writes:
        summaries.refresh(wish.account, now=now)
    return run


def continued(wish: Wish, asked: dict, *, by: str, now: datetime) -> Run | None:
    """The active run, taken up again; None where there is none, or it had to make way.

    A paused run of the same wish is taken up, whoever paused it: a person who starts it says the same as one who resumes it, and gates
    were asked again. A paused run of another wish stays: somebody put it aside, and somebody has to end it.
    """
    # Locked, so that nobody claims a chunk between the look at its leases and its end.
    run = Run.objects.active().filter(account=wish.account).select_for_update(of=("self",), no_key=True).first()
    if run is None:
        return None
    # None: an older release has planned it, which kept no settings.
    same = all(getattr(run, name) in (value, None) for name, value in asked.items()) and wish.chunk_size in (None, run.chunk_size)
    if same and run.state in (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING):
        return run
    if same and run.state in (RunState.INTERRUPTED, RunState.PAUSING, RunState.PAUSED):
        return taken_up(run, by=by, now=now)
    if leases.is_held(run) or run.state not in (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING, RunState.INTERRUPTED):
        ways_out = {RunState.WITHDRAWING: "abandon its withdrawal", RunState.CANCELLING: "force its end once it has waited long"}
        raise Busy(f"{run} is {run.state} and would have to end first: wait for it, or {ways_out.get(RunState(run.state), 'cancel it')}.")
    end(run, RunState.CANCELLED, code=RunReason.SUPERSEDED, reason="Another run takes its place.", by=by, now=now)
    return None


def taken_up(run: Run, *, by: str, now: datetime) -> Run:
    """Go on with a run where it stopped. One that was being verified finds no chunk to do, and is verified from the beginning."""
    chunks.wake(run)
    return move(run, RunState.RUNNING if run.chunks.exists() else RunState.PLANNED, by=by, now=now)


def pause(
    run: Run,
    *,
    by: str,
    now: datetime,
    code: RunReason = RunReason.ASKED,
    reason: str = "",
    only: Collection[RunState] = VERBS[Verb.PAUSE],
) -> Run:
    """Ask for a pause: no chunk is claimed any more, the workers end the one in hand. Paused at once where none is held; asked again, no change,
    but that a batch does not take up what a person asked for.

    Raises Refused where the state does not allow it, or is none of `only`.
    """
    run.refresh_from_db()
    if code == RunReason.ASKED and is_paused_by_batch(run):
        return taken_from_batch(run, by=by, now=now, code=code, reason=reason or f"{by} asked for a pause.")
    if run.state in (RunState.PAUSING, RunState.PAUSED):
        return run
    check_verb(run, Verb.PAUSE)
    if run.state not in only:
        raise Refused(f"{run} is {run.state} by now, and is not paused there.")
    try:
        move(run, RunState.PAUSING, by=by, now=now, code=code, reason=reason or f"{by} asked for a pause.")
    except Overtaken:
        return pause(run, by=by, now=now, code=code, reason=reason, only=only)
    return paused(run, by=by, now=now)


def is_paused_by_batch(run: Run) -> bool:
    return run.state in (RunState.PAUSING, RunState.PAUSED) and run.reason_code == RunReason.BATCH


def taken_from_batch(run: Run, *, by: str, now: datetime, code: RunReason, reason: str) -> Run:
    """A pause that a batch asked for has another reason from now on: the batch takes the run up no more. No change where it just has."""
    with transaction.atomic():
        mine = Run.objects.filter(pk=run.pk, state__in=(RunState.PAUSING, RunState.PAUSED), reason_code=RunReason.BATCH)
        if mine.update(reason_code=code, reason=reason):
            events.record("pause taken over", reason, now=now, by=by, run=run)
            if run.writes:
                summaries.refresh(run.account, now=now)
    run.refresh_from_db()
    return run


def fitting(run: Run) -> list[Verb]:
    """The verbs that a person may ask of it now. A pause by its batch can still be made a person's."""
    never = {Verb.WITHDRAW} if not run.writes else {Verb.RETRY} if run.withdrawal is not None else set()
    verbs = [verb for verb in possible(run.state) if verb not in never]
    return [Verb.PAUSE, *verbs] if is_paused_by_batch(run) else verbs


def paused(run: Run, *, by: str, now: datetime) -> Run:
    """A pausing run whose last chunk was handed back is paused, by whoever sees it first; its reason stays."""
    if run.state == RunState.PAUSING and not leases.is_held(run):
        try:
            return move(run, RunState.PAUSED, by=by, now=now, code=RunReason(run.reason_code), reason=run.reason)
        except Overtaken:
            run.refresh_from_db()
    return run


def settle(run: Run, *, by: str, now: datetime) -> Run:
    """What workers make of a wish once none of them holds a chunk: pausing becomes paused, cancelling cancelled, by whoever sees it first.

    Raises Outage where the CDP does not answer, which has to keep out whoever may still wake up.
    """
    run.refresh_from_db()
    if run.state == RunState.CANCELLING and not leases.is_held(run):
        try:
            return end(run, RunState.CANCELLED, code=RunReason.ASKED, reason=asked(run), by=by, now=now)
        except Overtaken:
            run.refresh_from_db()
    return paused(run, by=by, now=now)


def asked(run: Run) -> str:
    """Who asked for what the run is about to do, in words: its reason may say by now what that waits for."""
    return run.events.filter(kind=f"run {run.state}").values_list("sentence", flat=True).first() or run.reason


def end(run: Run, new: RunState, *, code: RunReason, reason: str, by: str, now: datetime) -> Run:
    """Move to a state after which nobody may write for this run: leases are taken away, and whoever held one is fenced in the CDP.

    Raises Outage where the CDP cannot be asked for that; then nothing has changed.
    """
    with transaction.atomic():
        left = seized(run)
        move(run, new, code=code, reason=reason, by=by, now=now)
        reaper.end_sessions(left)
        fences.shut_out(run)
    return run


def seized(run: Run) -> list[Chunk]:
    """Take away whatever leases there are, inside the transaction of the move that ends the work: nobody claims before it is over.

    Locks in the order of everybody else: run, chunks, then the summary, which the move writes. Not against rows that name the run: a chunk that
    is finished with quarantined candidates has their foreign keys looked at when it commits, holding what is locked here next.
    """
    Run.objects.select_for_update(no_key=True).get(pk=run.pk)
    return chunks.take_away(run)


def check_verb(run: Run, verb: Verb) -> None:
    """Raise Refused, naming what is possible, unless VERBS allows the verb now."""
    if run.state not in VERBS[verb]:
        now_possible = ", ".join(fitting(run)) or "nothing"
        raise Refused(f"{run} is {run.state}: {verb} is for a run that is {' or '.join(VERBS[verb])}. Possible now: {now_possible}.")


def move(run: Run, new: RunState, *, by: str, now: datetime, code: RunReason = RunReason.NONE, reason: str = "", **fields: object) -> Run:
    """The one door for a run's state: checked against the table, compare-and-set, with an Event in the same transaction."""
    old = RunState(run.state)
    check_run_move(old, new)
    values = {"state": new, "reason_code": code, "reason": reason, "lease_owner": "", "lease_expires_at": None} | fields
    if new in FINISHED and old != RunState.PARTIAL:  # waiving what is left is no work of the run
        values["finished_at"] = now
    elif old in FINISHED and new == RunState.RUNNING:
        values["finished_at"] = None
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, state=old).update(**values):
            raise Overtaken(f"{run} is no longer {old}: another process was faster.")
        events.record(f"run {new}", reason or f"{old} to {new}", now=now, by=by, run=run)
        if run.writes:
            summaries.refresh(run.account, now=now)
        outbox.run_moved(run.pk, now=now)
    run.refresh_from_db()
    return run


def interrupt(run: Run, reason: str, *, by: str, now: datetime, code: RunReason = RunReason.OUTAGE) -> Run:
    """Stop working on a run that cannot go on by itself; starting it again goes on where it stopped.

    One that is to stop anyway stays as it is; what keeps it from its end, or from its withdrawal, is said on it.
    """
    run.refresh_from_db()
    if (RunState(run.state), RunState.INTERRUPTED) not in RUN_MOVES:
        if run.state in (RunState.CANCELLING, RunState.WITHDRAWING):
            note(run, reason, now=now, code=code)
        return run
    return move(run, RunState.INTERRUPTED, by=by, now=now, code=code, reason=reason)


def record(run: Run, **figures: object) -> None:
    """Keep figures with a run; its state stays."""
    Run.objects.filter(pk=run.pk).update(**figures)
    run.refresh_from_db()


def note(run: Run, reason: str, *, now: datetime, code: RunReason = RunReason.OUTAGE) -> None:
    """Say in words what a run is waiting for; its state stays."""
    if Run.objects.filter(pk=run.pk, state__in=MAY_WAIT).update(reason_code=code, reason=reason):
        run.reason_code, run.reason = code, reason
        summaries.waits(run, now=now)


def goes_on(run: Run) -> None:
    """What it waited for is there: no more is said of it."""
    waits = (RunReason.READ_BUDGET, RunReason.OUTAGE, RunReason.STOPPED)
    waited = Run.objects.filter(pk=run.pk, state__in=MAY_WAIT, reason_code__in=waits)
    if waited.update(reason_code=RunReason.NONE, reason=""):
        summaries.goes_on(run)
    run.reason_code, run.reason = RunReason.NONE, ""
