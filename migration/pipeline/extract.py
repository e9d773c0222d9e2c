"""AuditExtractor: one chunk's candidates from the replica, streamed by COPY, in one snapshot. Only this step reads the CRM."""

import re
from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import datetime

import psycopg
from psycopg import sql

from migration import copytext
from migration.crm import Shape
from migration.mapping import Mapping, Role
from migration.pipeline import changes
from migration.pipeline.problems import NOTHING_CHANGED, Problem, Unreadable
from migration.pipeline.queries import Selection, by_audit, by_contact, by_deal, query, sampled
from migration.pipeline.reading import Reader, UnstorableText, changes_reader
from migration.pipeline.records import Candidate, Joined, Links
from migration.states import Reason

_EMPTY_OBJECT = re.compile(copytext.SPACE.join([b"", rb"\{", rb"\}", b""]))


def extract(
    connection: psycopg.Connection, shape: Shape, mapping: Mapping, selection: Selection, links: Links, watermark: dict[str, datetime]
) -> Generator[Candidate]:
    """Candidates of the selection by all five contact rules; audits beyond the watermark are flagged so.

    Every audit is read once, however many of the chunk's contacts it concerns.
    """
    reader = changes_reader(shape)
    classes = {copytext.write(name): (name, role) for name, role in mapping.role_of.items()}

    def read(source: sql.Composed) -> Generator[Candidate]:
        with connection.cursor().copy(query(shape, mapping, source, watermark)) as copy:
            for row in copy:
                yield candidate(bytes(row[:-1]).split(b"\t"), classes, reader, mapping)

    if selection.pairs is not None:
        deals = {str(deal).encode(): spans for deal, spans in links.by_deal.items()}
        join_roles = (Role.DEAL_CONTACT_JOIN, Role.DEAL_COMPANY_JOIN)
        for found in read(sampled(shape, mapping, selection.pairs)) if selection.pairs else ():
            concerned = [Joined(found.person_id)]
            # Since the pair was made the deal may be another contact's, or the number another audit's.
            if found.role in join_roles:
                concerned = links.by_audit.get(found.audit_id, [])
            elif found.role == Role.DEAL:
                concerned = linked(found, deals.get(found.record_id, []))
            yield from for_each(found, [each for each in concerned if each.person_id == found.person_id])
        return
    if selection.persons:
        yield from read(by_contact(shape, mapping, selection))
    if audits := [audit for audit in links.by_audit if selection.holds(audit)]:
        for found in read(by_audit(mapping, audits)):
            yield from for_each(found, links.by_audit[found.audit_id])
    if links.by_deal and mapping.classes(Role.DEAL):
        for found in read(by_deal(shape, mapping, sorted(links.by_deal), selection)):
            yield from for_each(found, linked(found, links.by_deal[found.person_id]))  # the query's first column: here the deal


def linked(found: Candidate, spans: list[tuple[int, int, int]]) -> list[Joined]:
    """Those to whom the deal was linked when the audit was made."""
    return [Joined(person) for person, start, end in spans if start < found.audit_id < end]


def for_each(found: Candidate, concerned: list[Joined]) -> Iterator[Candidate]:
    """One audit as it concerns each of several contacts."""
    for person, moved, deal, company in concerned[:-1]:
        yield replace(found, person_id=person, moved=moved, deal_id=deal, company_id=company)
    for person, moved, deal, company in concerned[-1:]:  # most concern one: no copy, which costs more than reading the row did
        found.person_id, found.moved, found.deal_id, found.company_id = person, moved, deal, company
        yield found


def candidate(fields: list[bytes], classes: dict[bytes, tuple[str, Role]], reader: Reader, mapping: Mapping) -> Candidate:
    """One row of `query` as a Candidate, with what the row alone decides: skipped, time_missing, changes_unreadable, changes_unstorable."""
    person, audit, class_name, record, user_type, user_id, username, action, occurred, beyond, request, comment, raw = fields
    name, role = classes[class_name]
    # In the order of the record's fields: by name would cost as much again as reading the row did.
    found = Candidate(
        int(person), int(audit), role, name, record, user_type, user_id, username, action, occurred, beyond == b"t", request, comment, raw
    )
    try:
        found.changes = reader(raw)
        if action == b"update" and b'"' not in found.changes and not found.beyond and _EMPTY_OBJECT.fullmatch(found.changes):
            found.skipped = NOTHING_CHANGED
            return found
    except Unreadable as error:
        found.problem = Problem(Reason.CHANGES_UNREADABLE, str(error))
    except UnstorableText as error:
        # What is beyond is counted by category and stored nowhere: there it is enough that it can be read.
        if found.beyond or storable_without_secrets(error.text, mapping):
            found.changes = copytext.write(error.text)
        else:
            found.problem = Problem(Reason.CHANGES_UNSTORABLE, str(error))
    if occurred == copytext.NULL:
        found.problem = Problem(Reason.TIME_MISSING)
    return found


def storable_without_secrets(text: str, mapping: Mapping) -> bool:
    """Whether what jsonb would refuse is in secrets alone, which stay behind."""
    try:
        return not changes.has_unstorable_escape(changes.without(text, mapping.is_secret))
    except (ValueError, LookupError, RecursionError):  # no JSON after all, or so deep that no secret can be taken out
        return False
