"""Evidence for a reader: the findings, and what each probe found in a shape of its own. One file per probe, named like it.

Facts were stored when they were measured and stay as they were, so nothing is taken for granted: what is missing is left out, what is
unknown is ignored.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gates.catalogue import BY_LETTER
from gates.models import Evidence

VERDICTS = {True: "passes", False: "fails", None: "for judgement"}
ORDER = ("fails", "for judgement", "passes")  # what a reader has to look at comes first


@dataclass(frozen=True)
class Finding:
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Exhibit:
    """`findings` in ORDER; `shown` is what the probe's own template takes; None where the facts hold nothing of it."""

    evidence: Evidence
    findings: list[Finding]
    shown: Any
    template: str


def of(evidence: Evidence) -> Exhibit:
    probe = BY_LETTER[evidence.gate_id].probe
    facts = evidence.facts if isinstance(evidence.facts, dict) else {}
    shown = import_module(f"gates.admin.exhibits.{probe}").of(facts) if probe and facts else None
    findings = [Finding(VERDICTS.get(each.get("ok"), "for judgement"), str(each.get("sentence", ""))) for each in evidence.findings]
    findings.sort(key=lambda finding: ORDER.index(finding.verdict))
    return Exhibit(evidence, findings, shown, f"admin/gates/exhibits/{probe}.html" if probe else "")
