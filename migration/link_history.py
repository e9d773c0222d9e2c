"""What the audits of one join row tell: which contacts they concern, and from when to when it linked which contact to which deal.

Pure. Order is audit-id order; `created_at` plays no part. A link "just before" audit x exists where `from_audit < x < to_audit`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

CONTACT_OLD, CONTACT_NEW, DEAL_MOVED = "contact_old", "contact_new", "deal"


@dataclass(frozen=True, slots=True)
class JoinAudit:
    """One audit of a join row; `values` is its audited_changes, None where nobody can read it."""

    audit_id: int
    class_name: str
    action: str
    values: dict[str, Any] | None
    deal_hint: int | None = None  # the associated record, where that is a deal: the deal after this audit
    person_hint: int | None = None  # the same, where it is a contact


@dataclass(frozen=True, slots=True)
class Link:
    """A contact linked to a deal by one join row, after audit `from_audit` and before audit `to_audit` (None: to this day)."""

    person_id: int
    deal_id: int
    from_audit: int
    to_audit: int | None


@dataclass(frozen=True, slots=True)
class Concern:
    """An audit of a join row that concerns a contact (rule 3); `moved` says how, where an update moved the link."""

    person_id: int
    audit_id: int
    moved: str = ""
    deal_id: int | None = None  # the deal that the contact was linked to, or unlinked from, by this audit


@dataclass(frozen=True, slots=True)
class Belonging:
    """An audit of a join row and a deal it belongs to, before or after it; for deal-company rows (rule 5) with the company."""

    deal_id: int
    audit_id: int
    other_id: int | None = None


@dataclass
class History:
    """What was found. `contactless`: audits whose contact nobody tells; `startless`: destroyed links whose start no audit tells."""

    links: list[Link] = field(default_factory=list)
    concerns: list[Concern] = field(default_factory=list)
    belongings: list[Belonging] = field(default_factory=list)
    contactless: list[int] = field(default_factory=list)
    startless: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Row:
    """A join row as its audits have told it so far."""

    deal: int | None = None
    person: int | None = None
    since: int | None = None  # the audit that linked the two
    gone: bool = False  # destroyed; what was known of it still is, for an update that another writer had under way meanwhile


def replay(audits: Iterable[JoinAudit], deal_attribute: dict[str, str], other_attribute: dict[str, str]) -> History:
    """The history of the join rows of one id, which classes (a renamed one, or two of one role) may share.

    `deal_attribute` and `other_attribute` name, by class, the attributes that hold the two ends.
    """
    history = History()
    rows: dict[str, Row] = {}
    for audit in sorted(audits, key=lambda each: each.audit_id):
        row = row_of(audit, rows, deal_attribute, other_attribute)
        ends = Ends(audit, deal_attribute[audit.class_name], other_attribute[audit.class_name])
        {"create": created, "update": updated, "destroy": destroyed}.get(audit.action, noted)(audit, row, ends, history)
    for row in rows.values():
        close(row, None, history)
    return history


def row_of(audit: JoinAudit, rows: dict[str, Row], deal_attribute: dict[str, str], other_attribute: dict[str, str]) -> Row:
    """The audit's row. Where its class is new to this id, a row that an earlier class told and that agrees with it is the same, renamed."""
    if audit.class_name not in rows:
        ends = Ends(audit, deal_attribute[audit.class_name], other_attribute[audit.class_name])
        agreeing = (name for name, row in rows.items() if not row.gone and ends.agree_with(row, audit))
        former = None if audit.action == "create" else next(agreeing, None)
        rows[audit.class_name] = rows.pop(former) if former else Row()
    return rows[audit.class_name]


class Ends:
    """The two ends of a join row as one audit states them: before it, after it, and whether it changed them."""

    def __init__(self, audit: JoinAudit, deal: str, other: str) -> None:
        values = audit.values or {}
        update = audit.action == "update"
        self.deal_before, self.deal_after, self.deal_moved = stated(values, deal, update)
        self.person_before, self.person_after, self.person_moved = stated(values, other, update)

    def agree_with(self, row: Row, audit: JoinAudit) -> bool:
        """Whether something is known of the row, and nothing stated here contradicts it; nor the record it is associated with, if not moved."""
        deal = known(self.deal_before, None if self.deal_moved else audit.deal_hint)
        person = known(self.person_before, None if self.person_moved else audit.person_hint)
        told = [(said, held) for said, held in [(deal, row.deal), (person, row.person)] if held is not None]
        return bool(told) and all(said in (None, held) for said, held in told)


def stated(values: dict[str, Any], attribute: str, update: bool) -> tuple[int | None, int | None, bool]:
    """(before, after, changed) of an attribute. A scalar in an update (rows combined by max_audits) tells the value, not a change."""
    value = values.get(attribute)
    if update and isinstance(value, list):
        before, after = (number(value[0]), number(value[1])) if len(value) == 2 else (None, None)
        return before, after, before != after
    return number(value), number(value), False


def number(value: Any) -> int | None:
    """A record id, also where it was written as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19 else None


def created(audit: JoinAudit, row: Row, ends: Ends, history: History) -> None:
    close(row, audit.audit_id, history)
    row.deal, row.person = known(ends.deal_after, audit.deal_hint), ends.person_after
    begin(row, audit.audit_id)
    concern(audit, row.person, row.deal, "", history)
    belongs(audit, [row.deal], row.person, history)


def updated(audit: JoinAudit, row: Row, ends: Ends, history: History) -> None:
    new_deal = ends.deal_after if ends.deal_moved else known(ends.deal_after, row.deal, audit.deal_hint)
    # What this audit says of the deal before it goes before what earlier ones told: a row can be moved unaudited in between.
    old_deal = ends.deal_before if ends.deal_moved else known(ends.deal_before, row.deal, new_deal)
    new_person = ends.person_after if ends.person_moved else known(ends.person_after, row.person)
    if ends.deal_moved or ends.person_moved or (new_deal, new_person) != (row.deal, row.person):
        close(row, audit.audit_id, history)
        row.deal, row.person = new_deal, new_person
        begin(row, audit.audit_id)
    if ends.person_moved:
        concern(audit, ends.person_before, old_deal, CONTACT_OLD, history, quiet=new_person is not None)
        concern(audit, new_person, new_deal, CONTACT_NEW, history, quiet=ends.person_before is not None)
    else:
        concern(audit, new_person, new_deal, DEAL_MOVED if ends.deal_moved else "", history)
    belongs(audit, [new_deal, old_deal], new_person, history)


def destroyed(audit: JoinAudit, row: Row, ends: Ends, history: History) -> None:
    if row.since is None:
        history.startless.append(audit.audit_id)
    deal, person = known(ends.deal_after, row.deal, audit.deal_hint), known(ends.person_after, row.person)
    close(row, audit.audit_id, history)
    row.deal, row.person, row.gone = deal, person, True
    concern(audit, person, deal, "", history)
    belongs(audit, [deal], person, history)


def noted(audit: JoinAudit, row: Row, ends: Ends, history: History) -> None:
    """An action that the gem does not write: it concerns the contact as known, and changes nothing."""
    deal, person = known(ends.deal_after, row.deal, audit.deal_hint), known(ends.person_after, row.person)
    concern(audit, person, deal, "", history)
    belongs(audit, [deal], person, history)


def known(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def begin(row: Row, audit_id: int) -> None:
    row.since, row.gone = audit_id if row.deal is not None and row.person is not None else None, False


def close(row: Row, audit_id: int | None, history: History) -> None:
    """End the row's link, if it had begun."""
    if row.since is not None and row.deal is not None and row.person is not None:
        history.links.append(Link(row.person, row.deal, row.since, audit_id))
    row.since = None


def concern(audit: JoinAudit, person: int | None, deal: int | None, moved: str, history: History, *, quiet: bool = False) -> None:
    if person is not None:
        history.concerns.append(Concern(person, audit.audit_id, moved, deal))
    elif not quiet:
        history.contactless.append(audit.audit_id)


def belongs(audit: JoinAudit, deals: list[int | None], other: int | None, history: History) -> None:
    """The deal after the audit comes first: a contact linked to both is told of that one."""
    history.belongings += [Belonging(deal, audit.audit_id, other) for deal in dict.fromkeys(deals) if deal is not None]
