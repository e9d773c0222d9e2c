"""From a wish to a run, and every move of its state: the only writer of run states."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.module_loading import import_string

from migration import chunks, events, worlds
from migration.models import Account, MappingRevision, Run
from migration.pipeline.flow import VERSION
from migration.states import FINISHED, ChunkState, IllegalMove, RunMode, RunReason, RunState, check_run_move


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


def start(wish: Wish, *, by: str, now: datetime) -> Run:
    """The account's active run if it is this very wish, else a new one in state planned.

    A run that nobody works on and that is another wish is cancelled; one that somebody works on raises Busy. Raises Refused.
    """
    decision = gate_decision(wish.account, wish.mode)
    if decision.refusals:
        raise Refused(" ".join(decision.refusals))
    revision = MappingRevision.objects.order_by("-number").first()
    if revision is None:
        raise Refused("No mapping revision is published: run `manage.py publish_mapping --file mapping.json --yes`.")
    asked = {
        "mode": wish.mode, "mapping_revision": revision, "pipeline_version": VERSION, "capabilities": sorted(decision.capabilities),
        "systems": worlds.systems(),
    }  # fmt: skip
    try:
        with transaction.atomic():
            Account.objects.select_for_update().get(pk=wish.account.pk)  # two starts at once: the second sees the first's run
            return continued(wish, asked, by=by, now=now) or created(wish, asked, by=by, now=now)
    except IntegrityError as error:
        raise Busy(f"Another run of {wish.account} was started at this moment: try again.") from error


def gate_decision(account: Account, mode: RunMode) -> Decision:
    """What the gates allow: the one seam through which migration asks them."""
    decision: Decision = import_string(settings.GATE_POLICY)(account, mode)
    return decision


def created(wish: Wish, asked: dict, *, by: str, now: datetime) -> Run:
    size = wish.chunk_size or settings.CHUNK_SIZE
    run = Run.objects.create(uuid=uuid4(), account=wish.account, chunk_size=size, planned_at=now, planned_by=by, **asked)
    events.record("run planned", f"{run.get_mode()} of {wish.account}, chunks of {size}", now=now, by=by, run=run)
    return run


def continued(wish: Wish, asked: dict, *, by: str, now: datetime) -> Run | None:
    """The active run, taken up again; None where there is none, or it had to make way."""
    run = Run.objects.active().filter(account=wish.account).first()
    if run is None:
        return None
    same = all(getattr(run, name) == value for name, value in asked.items()) and wish.chunk_size in (None, run.chunk_size)
    if same and run.state in (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING):
        return run
    if same and run.state == RunState.INTERRUPTED:
        return resume(run, by=by, now=now)
    if chunks.is_held(run) or run.state not in (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING, RunState.INTERRUPTED):
        raise Busy(f"{run} is {run.state} and would have to end first: wait for it, or cancel it.")
    move(run, RunState.CANCELLED, code=RunReason.SUPERSEDED, reason="Another run takes its place.", by=by, now=now)
    return None


def resume(run: Run, *, by: str, now: datetime) -> Run:
    """Go on with an interrupted run where it stopped."""
    run.chunks.filter(state=ChunkState.PENDING).update(not_before=None)
    return move(run, RunState.RUNNING if run.chunks.exists() else RunState.PLANNED, by=by, now=now)


def move(run: Run, new: RunState, *, by: str, now: datetime, code: RunReason = RunReason.NONE, reason: str = "", **fields: object) -> Run:
    """The one door for a run's state: checked against the table, compare-and-set, with an Event in the same transaction."""
    old = RunState(run.state)
    check_run_move(old, new)
    values = {"state": new, "reason_code": code, "reason": reason, "lease_owner": "", "lease_expires_at": None} | fields
    if new in FINISHED:
        values["finished_at"] = now
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, state=old).update(**values):
            raise IllegalMove(f"{run} is no longer {old}: another process was faster.")
        events.record(f"run {new}", reason or f"{old} to {new}", now=now, by=by, run=run)
    run.refresh_from_db()
    return run


def interrupt(run: Run, reason: str, *, by: str, now: datetime, code: RunReason = RunReason.OUTAGE) -> Run:
    """Stop working on a run that cannot go on by itself; starting it again goes on where it stopped."""
    run.refresh_from_db()
    return move(run, RunState.INTERRUPTED, by=by, now=now, code=code, reason=reason)


def note(run: Run, reason: str) -> None:
    """Say in words what a run is waiting for; its state stays."""
    Run.objects.filter(pk=run.pk).update(reason_code=RunReason.OUTAGE, reason=reason)
