"""The gates in their order: what is confirmed, who signs, what each one holds back, and which probe measures it.

The table `gates_gate` holds the same eight, seeded by a schema migration, as what evidence and sign-offs belong to; what a gate does
is decided here, so that no row which somebody removes can open one.
"""

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What a gate holds back until it is open."""

    RUN = "run"  # any run, dry runs too
    PRODUCTION = "production"  # production runs
    CAPABILITY = "capability"  # nothing is refused; the pipeline is handed one capability less
    BADGE = "badge"  # the status endpoint answers visible: false
    ADVISORY = "advisory"  # shown, holds nothing back


@dataclass(frozen=True)
class Gate:
    """One gate. `statement` is the sentence that is signed; `probe` a module of gates.probes, "" where people judge without one."""

    letter: str
    title: str
    statement: str
    owners: tuple[str, ...]  # groups; every one of them must sign
    effect: Effect
    until_open: str
    question: str = ""
    per_account: bool = False
    probe: str = ""

    def __str__(self) -> str:
        return f"Gate {self.letter}"


GATES = (
    Gate(
        letter="A",
        title="The CRM is read only",
        statement="The console reaches the CRM by a read-only DSN or replica whose role may SELECT on audits and users, and nothing else.",
        owners=("CRM Squad", "Platform"),
        effect=Effect.RUN,
        until_open="no run",
        question="OQ-1",
        probe="read_only",
    ),
    Gate(
        letter="B",
        title="The extraction is cheap",
        statement="EXPLAIN ANALYZE of the extraction queries shows that the CRM's indexes carry them, without harm to the CRM.",
        owners=("CRM DBA",),
        effect=Effect.RUN,
        until_open="no run",
        question="OQ-2",
        probe="query_plans",
    ),
    Gate(
        letter="C",
        title="Contacts carry their CRM id",
        statement="At least 99 % of the account's CDP contacts with source 'crm' carry a source_id.",
        owners=("CDP",),
        effect=Effect.PRODUCTION,
        until_open="no production run of the account",
        per_account=True,
        probe="coverage",
    ),
    Gate(
        letter="D",
        title="Deactivated users are known",
        statement="What GetUsersByEmails returns for deactivated users is known, and the console reads it right.",
        owners=("Platform",),
        effect=Effect.CAPABILITY,
        until_open="deactivated users are shown as unknown ones",
        question="OQ-9",
        probe="deactivated_users",
    ),
    Gate(
        letter="E",
        title="Classes and id-sets are right",
        statement="The join models' class names and attributes, and the won, done and resolved ids, are those of the CRM.",
        owners=("CRM Squad", "CDP"),
        effect=Effect.CAPABILITY,
        until_open="won, done, resolved, linked, unlinked and moved fall through to a plain update",
        question="OQ-12",
        probe="classes",
    ),
    Gate(
        letter="F",
        title="Names are collision-safe",
        statement="The AssociationLogEnricher's match key is collision-safe, and the RFC's R3 delta review agrees.",
        owners=("RFC reviewer", "CDP"),
        effect=Effect.CAPABILITY,
        until_open="activities carry no names of deals and companies",
        question="OQ-13",
        probe="match_keys",
    ),
    Gate(
        letter="G",
        title="Badge and indicator are designed",
        statement="The Figma frames for the badge and the status indicator are final, and what the console shows is what they show.",
        owners=("Design",),
        effect=Effect.BADGE,
        until_open="the status endpoint answers visible: false",
        question="OQ-10",
    ),
    Gate(
        letter="H",
        title="The shared backend owner has the time",
        statement="The queue of the shared backend owner (Customer Segmentation P2) is sequenced with this work.",
        owners=("Delivery",),
        effect=Effect.ADVISORY,
        until_open="nothing: advisory",
    ),
)
BY_LETTER = {gate.letter: gate for gate in GATES}
OWNER_GROUPS = tuple(dict.fromkeys(owner for gate in GATES for owner in gate.owners))
CAPABILITIES = tuple(gate.letter for gate in GATES if gate.effect == Effect.CAPABILITY)
