"""The ledger, by the chunks that the candidates lie in, beside what the source has there now: which chunks what came or went meanwhile lies in."""

from bisect import bisect_right
from dataclasses import dataclass, field

from migration.ledger import Ledger, add
from migration.models import Run
from migration.pipeline.records import Receipt
from migration.states import ChunkState


@dataclass
class Share:
    """One range of CRM person ids, or several that only together can be compared."""

    chunks: list[int] = field(default_factory=list)  # their numbers
    accounted: int = 0  # candidates with an outcome
    counted: int = 0  # candidates that the source has now


class Shares:
    """A run's candidates by ranges of CRM person ids.

    A heavy contact's chunks are one share. So are all chunks with candidates that were tried again: those ended in another chunk, which tells
    their number, not their places.
    """

    def __init__(self, run: Run) -> None:
        self.starts: list[int] = []
        self.shares: list[Share] = []
        chunks = run.chunks.exclude(state=ChunkState.SPLIT)
        ranges = chunks.filter(pairs__isnull=True).order_by("person_from", "number")
        for number, start, state, receipt in ranges.values_list("number", "person_from", "state", "receipt").iterator():
            if not self.starts or self.starts[-1] != start:
                self.starts.append(start)
                self.shares.append(Share())
            self.shares[-1].chunks.append(number)
            self.shares[-1].accounted += outcomes(receipt) if state == ChunkState.DONE else 0
        self.tried_again = Share()
        again = chunks.filter(pairs__isnull=False, state=ChunkState.DONE)
        for pairs, receipt in again.values_list("pairs", "receipt").iterator():
            self.tried_again.accounted += outcomes(receipt)
            for at in {self.at(person) for person, _, _ in pairs or ()}:
                self.join(at)

    def at(self, person: int) -> int:
        return bisect_right(self.starts, person) - 1

    def join(self, at: int) -> None:
        """Make a range part of the share of what was tried again."""
        former, self.shares[at] = self.shares[at], self.tried_again
        if former is not self.tried_again:
            self.tried_again.chunks += former.chunks
            self.tried_again.accounted += former.accounted

    def count(self, person: int, candidates: int) -> None:
        """Count what the source has of a person now."""
        self.shares[self.at(person)].counted += candidates

    def uneven(self) -> set[int]:
        """Numbers of the chunks whose candidates are not as many as the source has there now."""
        return {number for share in self.shares if share.accounted != share.counted for number in share.chunks}


def outcomes(receipt: dict | None) -> int:
    alone = Ledger(candidates=0)
    add(alone, Receipt.from_json(receipt or {}))
    return alone.outcomes
