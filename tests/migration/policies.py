"""Stand-ins for `settings.GATE_POLICY`: which capabilities the gates would give."""

from gates.policies import Decision
from migration.models import Account
from migration.states import RunMode


def with_f(account: Account, mode: RunMode) -> Decision:
    """Every gate that gives a capability is open, F too."""
    return Decision(frozenset({"D", "E", "F"}))
