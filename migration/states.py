"""Run and chunk states, and every move between them. Imports nothing of ours; docs/states.md is drawn from these tables."""

from enum import StrEnum


class RunMode(StrEnum):
    DRY_RUN = "dry_run"
    PRODUCTION = "production"


class RunState(StrEnum):
    PLANNED = "planned"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    VERIFYING = "verifying"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    WITHDRAWING = "withdrawing"
    WITHDRAWN = "withdrawn"


class ChunkState(StrEnum):
    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"


R, C = RunState, ChunkState

# (from, to): what causes the move. Whoever writes a state checks it against this table.
RUN_MOVES: dict[tuple[RunState, RunState], str] = {
    (R.PLANNED, R.RUNNING): "a worker has counted the candidates and cut the chunks",
    (R.PLANNED, R.INTERRUPTED): "an outage stopped the planning",
    (R.PLANNED, R.FAILED): "the planning met an error that waiting does not cure",
    (R.PLANNED, R.CANCELLED): "a newer run takes its place, or a person cancels it",
    (R.RUNNING, R.VERIFYING): "the last chunk is done",
    (R.RUNNING, R.PAUSING): "a person asks for a pause",
    (R.RUNNING, R.CANCELLING): "a person asks for an end",
    (R.RUNNING, R.CANCELLED): "a newer run takes its place, and no worker holds a chunk",
    (R.RUNNING, R.INTERRUPTED): "an outage, or a worker that was stopped",
    (R.RUNNING, R.FAILED): "a chunk failed for good",
    (R.PAUSING, R.PAUSED): "the workers have handed their chunks back",
    (R.PAUSING, R.RUNNING): "a person takes the pause back",
    (R.PAUSED, R.RUNNING): "a person resumes it",
    (R.PAUSED, R.CANCELLED): "a person cancels it",
    (R.INTERRUPTED, R.PLANNED): "it is started again before its chunks were cut",
    (R.INTERRUPTED, R.RUNNING): "it is started again, or the outage is over",
    (R.INTERRUPTED, R.CANCELLED): "a newer run takes its place, or a person cancels it",
    (R.VERIFYING, R.RUNNING): "verification sent chunks back, once",
    (R.VERIFYING, R.SUCCEEDED): "the ledger balances, verification agrees, nothing is quarantined",
    (R.VERIFYING, R.PARTIAL): "the ledger balances and verification agrees, but candidates are quarantined",
    (R.VERIFYING, R.FAILED): "the ledger or verification disagrees",
    (R.VERIFYING, R.INTERRUPTED): "an outage stopped the verification",
    (R.VERIFYING, R.CANCELLED): "a newer run takes its place, or a person cancels it",
    (R.CANCELLING, R.CANCELLED): "the workers have handed their chunks back",
    (R.SUCCEEDED, R.WITHDRAWING): "a person withdraws the run",
    (R.PARTIAL, R.RUNNING): "a person has quarantined candidates tried again",
    (R.PARTIAL, R.SUCCEEDED): "nothing is quarantined any more",
    (R.PARTIAL, R.WITHDRAWING): "a person withdraws the run",
    (R.FAILED, R.RUNNING): "a person has the failed chunks tried again",
    (R.FAILED, R.WITHDRAWING): "a person withdraws the run",
    (R.CANCELLED, R.WITHDRAWING): "a person withdraws the run",
    (R.WITHDRAWING, R.WITHDRAWN): "the run's last row is removed",
}

CHUNK_MOVES: dict[tuple[ChunkState, ChunkState], str] = {
    (C.PENDING, C.LEASED): "a worker claims it",
    (C.LEASED, C.LEASED): "its lease ran out and another worker claims it",
    (C.LEASED, C.DONE): "its receipt is in the CDP and its rows are read back",
    (C.LEASED, C.PENDING): "the worker hands it back: an outage, a pause, or an error to be tried again",
    (C.LEASED, C.FAILED): "its last attempt failed",
    (C.FAILED, C.PENDING): "a person has it tried again",
    (C.DONE, C.PENDING): "verification sent it back",
}

ACTIVE = (R.PLANNED, R.RUNNING, R.PAUSING, R.PAUSED, R.INTERRUPTED, R.VERIFYING, R.CANCELLING, R.WITHDRAWING)  # one such run per account
WORKABLE = (R.PLANNED, R.RUNNING, R.VERIFYING)  # workers have something to do
COMPLETE = (R.SUCCEEDED, R.PARTIAL)  # ran to its end and balanced
FINISHED = (R.SUCCEEDED, R.PARTIAL, R.FAILED, R.CANCELLED, R.WITHDRAWN)


class IllegalMove(RuntimeError):
    """A state change that the tables above do not know, or that another process was faster with."""


def check_run_move(old: RunState, new: RunState) -> None:
    """Raise IllegalMove unless RUN_MOVES has the move."""
    if (old, new) not in RUN_MOVES:
        raise IllegalMove(f"A run that is {old} cannot become {new}.")


def check_chunk_move(old: ChunkState, new: ChunkState) -> None:
    """Raise IllegalMove unless CHUNK_MOVES has the move."""
    if (old, new) not in CHUNK_MOVES:
        raise IllegalMove(f"A chunk that is {old} cannot become {new}.")


class Reason(StrEnum):
    """Why a candidate is quarantined, in the order in which they are decided (SPEC section 2)."""

    TIME_MISSING = "time_missing"
    CHANGES_UNREADABLE = "changes_unreadable"
    CHANGES_UNSTORABLE = "changes_unstorable"
    TENANT_MISMATCH = "tenant_mismatch"
    CONTACT_AMBIGUOUS = "contact_ambiguous"
    PROBABLE_OVERLAP = "probable_overlap"
    PROCESSING_FAILED = "processing_failed"


class RunReason(StrEnum):
    """Why a run is where it is, for decisions; `Run.reason` says it in words, for people."""

    NONE = ""
    OUTAGE = "outage"
    CHUNK_FAILED = "chunk_failed"
    LEDGER_UNBALANCED = "ledger_unbalanced"
    VERIFICATION_DISAGREES = "verification_disagrees"
    QUARANTINED = "quarantined"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"
    GATE_LAPSED = "gate_lapsed"
    ASKED = "asked"
    CHUNKS_FAILING = "chunks_failing"
