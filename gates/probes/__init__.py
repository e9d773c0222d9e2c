"""One module for each gate that is measured. A probe measures and returns what it found; it stores and decides nothing.

Every module has the same two functions:

    configuration(account) -> dict[str, str]   what would be measured against, known without asking any system
    measure(account) -> Measurement            the measuring itself; `account` is None for a global gate

`measure` raises Outage where a system does not answer: then nothing was measured, unless silence is itself what the gate is about.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `ok` None: neither good nor bad by itself, listed for the signers to judge."""

    ok: bool | None
    sentence: str


@dataclass(frozen=True)
class Measurement:
    """What a probe found: findings in words, and `facts` as plain JSON in the shape that the probe's module describes."""

    findings: list[Finding]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether something was looked at, and nothing of it fails."""
        return bool(self.findings) and all(finding.ok is not False for finding in self.findings)
