"""What stops a batch, and whether its canary balanced: questions about its accounts that read only."""

from collections import Counter

from migration.models import Batch, BatchItem, Run
from migration.states import COMPLETE, OPEN_ITEM, ItemState, RunReason, RunState


def reason_to_stop(batch: Batch, items: list[BatchItem]) -> str:
    """Why no further account may start, in a sentence; "" where they may."""
    for item in items:
        if found := stuck(item) or canary_failure(batch, item) or excess(batch, item):
            return found
    undone = [item for item in items if item.state in (ItemState.FAILED, ItemState.REFUSED) and not item.is_accepted]
    if len(undone) <= batch.most_failures:
        return ""
    told = f"{undone[-1].account}: {undone[-1].reason}"
    if len(undone) == 1:
        return told
    return f"{len(undone)} accounts failed or were refused, and no more than {batch.most_failures} may. The last, {told}"


def stuck(item: BatchItem) -> str:
    run = item.run
    return f"{run} is {run.state}: {run.reason}" if item.state == ItemState.RUNNING and run and cannot_go_on(run) else ""


def cannot_go_on(run: Run) -> bool:
    """Whether it stands still until a person has mended something: every other account would come to the same."""
    lapsed = run.state in (RunState.PAUSING, RunState.PAUSED) and run.reason_code == RunReason.GATE_LAPSED
    return run.state == RunState.INTERRUPTED or lapsed


def canary_failure(batch: Batch, item: BatchItem) -> str:
    undone = item.state in (ItemState.FAILED, ItemState.REFUSED, ItemState.CANCELLED) and not item.is_accepted
    return f"{item.account} is of the canary and did not balance: {item.reason}" if undone and item.position <= batch.canary else ""


def canary_balanced(batch: Batch, items: list[BatchItem]) -> bool:
    """Whether the first accounts have all ended and balanced, or a person took them for good enough."""
    return all(item.is_accepted and item.state not in OPEN_ITEM for item in items if item.position <= batch.canary)


def excess(batch: Batch, item: BatchItem) -> str:
    """Of a run that ended, be it a dry run before anything is written: that too many of its candidates are quarantined."""
    if item.is_accepted or not is_ended(item):
        return ""
    run = item.run
    quarantined, candidates = (run.quarantined.filter(waiver__isnull=True).count(), run.candidates or 0) if run else (0, 0)
    if 100 * quarantined <= batch.most_quarantined * candidates:
        return ""
    share = 100 * quarantined / candidates
    return f"{share:.2f} % of the candidates of {run} are quarantined ({quarantined:,} of {candidates:,}), more than {batch.most_quarantined} %."


def is_within(batch: Batch, item: BatchItem) -> bool:
    """Whether it is done and need not be looked at again."""
    return item.state == ItemState.DONE and not item.is_accepted and not excess(batch, item)


def is_ended(item: BatchItem) -> bool:
    """Whether the run that it is at, or was at last, ran to its end."""
    return item.state in (ItemState.RUNNING, ItemState.DONE) and item.run is not None and item.run.state in COMPLETE


def is_under_way(item: BatchItem) -> bool:
    return item.state == ItemState.RUNNING and not is_ended(item)


def in_words(items: list[BatchItem]) -> str:
    """`12 accounts done, 1 refused.`"""
    counted = Counter(item.state for item in items)
    parts = [f"{counted[state]:,} {state}" for state in ItemState if counted[state]]
    return f"Of {len(items):,} account{'s' if len(items) != 1 else ''} {', '.join(parts)}."
