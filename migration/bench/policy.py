"""The gates of the benchmark: all open, for scratch databases and for nothing else."""

from dataclasses import dataclass, field

from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from migration.bench.server import PREFIX
from migration.models import Account
from migration.states import RunMode


@dataclass(frozen=True)
class Decision:
    capabilities: frozenset[str]
    refusals: list[str] = field(default_factory=list)


def decide(account: Account, mode: RunMode, **details: object) -> Decision:
    """As gates.policies.decide is asked: every capability, where both systems are scratch databases; else a refusal."""
    for variable in ("CRM_DATABASE_URL", "CDP_DATABASE_URL"):
        if not str(conninfo_to_dict(getattr(settings, variable)).get("dbname")).startswith(PREFIX):
            return Decision(
                frozenset(), [f"{variable} names no scratch database of the benchmark, and the benchmark's open gates are for those only."]
            )
    return Decision(frozenset({"D", "E", "F"}))
