"""One audit as the CRM holds it, for a person to look at."""

from contextlib import closing
from dataclasses import dataclass, field

from psycopg import sql

from migration.crm import Crm
from migration.doors import Misconfigured, Outage

MOST_CHARACTERS = 1_000_000  # of one column; the longest that was seen has 386,000
PATIENCE = "5s"  # a page waits for this look-up by primary key


@dataclass(frozen=True)
class RawAudit:
    """Every column as PostgreSQL's text, in the table's order; or `trouble`, the sentence that says why there is nothing.

    `is_yaml`: audited_changes is Ruby's YAML, not JSON.
    """

    columns: dict[str, str | None] = field(default_factory=dict)
    is_yaml: bool = False
    trouble: str = ""


def audit(audit_id: int) -> RawAudit:
    """Read one audit by its id. Never raises for an outage or a mistake in the settings: the sentence tells."""
    try:
        with closing(Crm()) as crm:
            crm.rows("SELECT set_config('statement_timeout', %s, false)", (PATIENCE,))
            names = list(crm.tables["audits"])
            shown = sql.SQL(", ").join(sql.SQL("left({}::text, {})").format(sql.Identifier(n), sql.Literal(MOST_CHARACTERS)) for n in names)
            found = crm.rows(sql.SQL("SELECT {} FROM audits WHERE id = %s").format(shown), (audit_id,))
            is_yaml = crm.shape.changes == "text"
    except (Outage, Misconfigured) as error:
        return RawAudit(trouble=str(error))
    if not found:
        return RawAudit(trouble=f"The CRM has no audit {audit_id} any more.")
    return RawAudit(dict(zip(names, found[0], strict=True)), is_yaml)
