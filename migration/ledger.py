"""What became of every candidate of a run: read from the chunks' receipts, never written."""

from collections import Counter
from dataclasses import dataclass, field

from migration.models import Run
from migration.pipeline.records import Receipt
from migration.states import ChunkState


@dataclass
class Ledger:
    """candidates = skipped + quarantined + waived + already_live + written + corrected + unchanged, or it does not balance.

    `candidates` comes from the counting query on the source, everything else from what the chunks did.
    """

    candidates: int
    written: int = 0
    corrected: int = 0
    unchanged: int = 0
    already_live: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    waived: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    actor_kinds: Counter[str] = field(default_factory=Counter)
    recategorised: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)
    withdrawn: int = 0  # rows of it that were removed again; the outcomes stay what they were

    @property
    def outcomes(self) -> int:
        """Candidates with an outcome."""
        return self.loaded + self.already_live + self.skipped.total() + self.quarantined.total() + self.waived.total()

    @property
    def loaded(self) -> int:
        return self.written + self.corrected + self.unchanged

    @property
    def balances(self) -> bool:
        return self.candidates == self.outcomes

    def as_json(self) -> dict[str, object]:
        """The `ledger` of SPEC section 8."""
        plain: dict[str, object] = {
            name: getattr(self, name) for name in ("candidates", "written", "corrected", "unchanged", "already_live")
        }
        return plain | {name: dict(sorted(getattr(self, name).items())) for name in ("skipped", "quarantined", "waived")}


def of(run: Run) -> Ledger:
    """The run's ledger as far as its chunks are done."""
    ledger = Ledger(candidates=run.candidates or 0, withdrawn=run.removed)
    for plain in run.chunks.filter(state=ChunkState.DONE).values_list("receipt", flat=True).iterator():
        add(ledger, Receipt.from_json(plain or {}))
    for reason in run.quarantined.filter(waiver__isnull=False).values_list("reason", flat=True):
        ledger.quarantined[reason] -= 1
        ledger.waived[reason] += 1
    ledger.quarantined = +ledger.quarantined
    return ledger


def add(ledger: Ledger, receipt: Receipt) -> None:
    for name in ("written", "corrected", "unchanged", "already_live"):
        setattr(ledger, name, getattr(ledger, name) + getattr(receipt, name))
    for name in ("skipped", "waived", "categories", "actor_kinds", "recategorised", "beyond"):
        getattr(ledger, name).update(getattr(receipt, name))
    ledger.quarantined.update(str(q.problem.reason) for q in receipt.quarantined)
    ledger.quarantined.subtract(receipt.retried)
