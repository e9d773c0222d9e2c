"""The one question that runs ask of the gates, through `settings.GATE_POLICY`."""

from dataclasses import dataclass, field

from migration.models import Account
from migration.states import RunMode


@dataclass(frozen=True)
class Decision:
    """What the gates allow: refusals in words (none: go), and the capabilities (D, E, F) that the pipeline is handed."""

    capabilities: frozenset[str]
    refusals: list[str] = field(default_factory=list)


def decide(account: Account, mode: RunMode) -> Decision:
    """Until gates exist: nothing is refused; D and E are on, F is off."""
    return Decision(capabilities=frozenset({"D", "E"}))
