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
    SPLIT = "split"
    DONE = "done"
    FAILED = "failed"


class Verb(StrEnum):
    """What a person may ask of a run."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"
    FORCE = "force"
    ABANDON = "abandon"
    WITHDRAW = "withdraw"


R, C = RunState, ChunkState

# (from, to): what causes the move. Whoever writes a state checks it against this table.
RUN_MOVES: dict[tuple[RunState, RunState], str] = {
    (R.PLANNED, R.RUNNING): "a worker has counted the candidates and cut the chunks",
    (R.PLANNED, R.INTERRUPTED): "an outage stopped the planning",
    (R.PLANNED, R.FAILED): "the planning met an error that waiting does not cure",
    (R.PLANNED, R.PAUSING): "a person asks for a pause",
    (R.PLANNED, R.CANCELLING): "a person asks for an end",
    (R.PLANNED, R.CANCELLED): "a newer run takes its place",
    (R.RUNNING, R.VERIFYING): "the last chunk is done",
    (R.RUNNING, R.PAUSING): "a person asks for a pause, or a gate that the run needs is no longer open",
    (R.RUNNING, R.CANCELLING): "a person asks for an end",
    (R.RUNNING, R.CANCELLED): "a newer run takes its place, and no worker holds a chunk",
    (R.RUNNING, R.INTERRUPTED): "an outage, or a worker that was stopped",
    (R.RUNNING, R.FAILED): "a chunk failed for good, or more than half of the last fifty did",
    (R.PAUSING, R.PAUSED): "no worker holds a chunk any more, or a person forces it",
    (R.PAUSING, R.PLANNED): "a person takes the pause back before its chunks were cut",
    (R.PAUSING, R.RUNNING): "a person takes the pause back",
    (R.PAUSING, R.CANCELLING): "a person asks for an end",
    (R.PAUSED, R.PLANNED): "a person resumes it before its chunks were cut",
    (R.PAUSED, R.RUNNING): "a person resumes it, or starts the same run again",
    (R.PAUSED, R.CANCELLING): "a person asks for an end",
    (R.INTERRUPTED, R.PAUSING): "a person asks for a pause, so that starting it again is up to a person",
    (R.INTERRUPTED, R.CANCELLING): "a person asks for an end",
    (R.INTERRUPTED, R.PLANNED): "it is started again before its chunks were cut",
    (R.INTERRUPTED, R.RUNNING): "it is started again, or the outage is over",
    (R.INTERRUPTED, R.CANCELLED): "a newer run takes its place",
    (R.VERIFYING, R.RUNNING): "verification sent chunks back",
    (R.VERIFYING, R.SUCCEEDED): "the ledger balances, verification agrees, nothing is quarantined",
    (R.VERIFYING, R.PARTIAL): "the ledger balances and verification agrees, but candidates are quarantined",
    (R.VERIFYING, R.FAILED): "the ledger or verification disagrees",
    (R.VERIFYING, R.INTERRUPTED): "an outage stopped the verification",
    (R.VERIFYING, R.PAUSING): "a person asks for a pause; resumed, it is verified from the beginning",
    (R.VERIFYING, R.CANCELLING): "a person asks for an end",
    (R.VERIFYING, R.CANCELLED): "a newer run takes its place",
    (R.CANCELLING, R.CANCELLED): "no worker holds a chunk any more, or a person forces it; whoever held one is fenced in the CDP",
    (R.SUCCEEDED, R.WITHDRAWING): "a person withdraws the run",
    (R.PARTIAL, R.RUNNING): "a person has quarantined candidates tried again",
    (R.PARTIAL, R.SUCCEEDED): "nothing is quarantined any more",
    (R.PARTIAL, R.WITHDRAWING): "a person withdraws the run",
    (R.FAILED, R.RUNNING): "a person has the failed chunks tried again",
    (R.FAILED, R.WITHDRAWING): "a person withdraws the run",
    (R.CANCELLED, R.WITHDRAWING): "a person withdraws the run",
    (R.WITHDRAWING, R.WITHDRAWN): "the run's last row is removed",
    (R.WITHDRAWING, R.FAILED): "a person gives the withdrawal up; the rows that are left stay",
}

CHUNK_MOVES: dict[tuple[ChunkState, ChunkState], str] = {
    (C.PENDING, C.LEASED): "a worker claims it",
    (C.LEASED, C.DONE): "its receipt is in the CDP and its rows are read back",
    (C.LEASED, C.PENDING): "the worker hands it back (outage, stop, error to be tried again), its lease ran out, or it is taken away",
    (C.LEASED, C.SPLIT): "its last attempt failed: smaller chunks take its place",
    (C.LEASED, C.FAILED): "its rows read back differ a second time, or its last attempt failed and no candidate is to blame",
    (C.FAILED, C.PENDING): "a person has it tried again",
    (C.DONE, C.PENDING): "verification sent it back",
    (C.DONE, C.SPLIT): "it tried quarantined candidates again, and verification sent back the chunks that these lie in",
}

ACTIVE = (R.PLANNED, R.RUNNING, R.PAUSING, R.PAUSED, R.INTERRUPTED, R.VERIFYING, R.CANCELLING, R.WITHDRAWING)  # one such run per account
WORKABLE = (R.PLANNED, R.RUNNING, R.PAUSING, R.VERIFYING, R.CANCELLING, R.WITHDRAWING)  # workers have something to do
COMPLETE = (R.SUCCEEDED, R.PARTIAL)  # ran to its end and balanced
FINISHED = (R.SUCCEEDED, R.PARTIAL, R.FAILED, R.CANCELLED, R.WITHDRAWN)


# Which states a verb is for; whoever asks at another time is told what is possible.
VERBS: dict[Verb, tuple[RunState, ...]] = {
    Verb.PAUSE: (R.PLANNED, R.RUNNING, R.INTERRUPTED, R.VERIFYING),
    Verb.RESUME: (R.PAUSING, R.PAUSED, R.INTERRUPTED),
    Verb.CANCEL: (R.PLANNED, R.RUNNING, R.PAUSING, R.PAUSED, R.INTERRUPTED, R.VERIFYING),
    Verb.RETRY: (R.FAILED,),
    Verb.FORCE: (R.PAUSING, R.CANCELLING),
    Verb.ABANDON: (R.WITHDRAWING,),
    Verb.WITHDRAW: (R.SUCCEEDED, R.PARTIAL, R.FAILED, R.CANCELLED, R.WITHDRAWING),
}


def possible(state: str) -> list[Verb]:
    """The verbs that fit a run's state."""
    return [verb for verb, states in VERBS.items() if state in states]


class IllegalMove(RuntimeError):
    """A state change that the tables above do not know."""


class Overtaken(IllegalMove):
    """Another process moved the run first."""


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
    BATCH = "batch"
    READ_BUDGET = "read_budget"


class BatchState(StrEnum):
    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DONE = "done"
    CANCELLED = "cancelled"


class ItemState(StrEnum):
    """Where one account of a batch is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class BatchWork(StrEnum):
    """What a batch does with each of its accounts."""

    BOTH = "both"
    DRY_RUN = "dry_run"
    PRODUCTION = "production"


class AtClose(StrEnum):
    """What becomes of the runs under way when the window closes."""

    PAUSE = "pause"
    FINISH = "finish"


B, A = BatchState, ItemState

BATCH_MOVES: dict[tuple[BatchState, BatchState], str] = {
    (B.PLANNED, B.RUNNING): "its window opens for the first time",
    (B.PLANNED, B.PAUSED): "a person pauses it before it has begun",
    (B.PLANNED, B.CANCELLED): "a person cancels it",
    (B.RUNNING, B.PAUSED): "a person pauses it",
    (B.RUNNING, B.STOPPED): "a limit is passed, an account of the canary did not balance, or a run cannot go on by itself",
    (B.RUNNING, B.DONE): "its last account has ended",
    (B.RUNNING, B.CANCELLED): "a person cancels it",
    (B.PAUSED, B.RUNNING): "a person resumes it",
    (B.PAUSED, B.CANCELLED): "a person cancels it",
    (B.STOPPED, B.RUNNING): "a person resumes it, and so takes what stopped it for mended or for granted",
    (B.STOPPED, B.CANCELLED): "a person cancels it",
}

ITEM_MOVES: dict[tuple[ItemState, ItemState], str] = {
    (A.WAITING, A.RUNNING): "its turn has come and nothing refuses its run",
    (A.WAITING, A.REFUSED): "a gate, or what production needs beside gates, refuses its run",
    (A.WAITING, A.CANCELLED): "a person cancels the batch",
    (A.RUNNING, A.DONE): "its run has balanced and nothing follows",
    (A.RUNNING, A.FAILED): "its run failed",
    (A.RUNNING, A.REFUSED): "its production is refused after its dry run",
    (A.RUNNING, A.CANCELLED): "a person cancelled or withdrew its run, or cancels the batch",
    (A.FAILED, A.DONE): "a person had its run tried again, and it has balanced",
    (A.FAILED, A.WAITING): "a person resumes the batch and has it tried again",
    (A.REFUSED, A.WAITING): "a person resumes the batch and has it tried again",
    (A.CANCELLED, A.WAITING): "a person resumes the batch and has it tried again",
}

# What a person may ask of a batch, and in which states.
BATCH_VERBS: dict[Verb, tuple[BatchState, ...]] = {
    Verb.PAUSE: (B.PLANNED, B.RUNNING),
    Verb.RESUME: (B.PAUSED, B.STOPPED),
    Verb.CANCEL: (B.PLANNED, B.RUNNING, B.PAUSED, B.STOPPED),
}

LIVE_BATCH = (B.PLANNED, B.RUNNING, B.PAUSED, B.STOPPED)  # the tick looks at it
OPEN_ITEM = (A.WAITING, A.RUNNING)  # an account is open in one batch at most


def check_batch_move(old: BatchState, new: BatchState) -> None:
    """Raise IllegalMove unless BATCH_MOVES has the move."""
    if (old, new) not in BATCH_MOVES:
        raise IllegalMove(f"A batch that is {old} cannot become {new}.")


def check_item_move(old: ItemState, new: ItemState) -> None:
    """Raise IllegalMove unless ITEM_MOVES has the move."""
    if (old, new) not in ITEM_MOVES:
        raise IllegalMove(f"An account of a batch that is {old} there cannot become {new}.")
