"""Stand-ins for `settings.GATE_POLICY`: what the gates would allow. tests/gates has the real ones."""

from typing import Any

from gates.policies import Decision
from migration.models import Account
from migration.states import RunMode


def with_d_and_e(account: Account, mode: RunMode, **how: Any) -> Decision:
    """Nothing is refused; D and E are open."""
    return Decision(frozenset({"D", "E"}))


def with_f(account: Account, mode: RunMode, **how: Any) -> Decision:
    """Every gate that gives a capability is open, F too."""
    return Decision(frozenset({"D", "E", "F"}))


def with_d(account: Account, mode: RunMode, **how: Any) -> Decision:
    """Nothing is refused; of the gates that give capabilities D alone is open."""
    return Decision(frozenset({"D"}))


def with_nothing(account: Account, mode: RunMode, **how: Any) -> Decision:
    """Every run is refused."""
    return Decision(frozenset(), ["Gate A is closed."])
