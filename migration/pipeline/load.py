"""ActivityLoader: COPY into a temporary staging table with no lock held, then one short CDP transaction: fence, upsert, receipt."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import psycopg

from migration import copytext
from migration.cdp import Cdp
from migration.doors import translated
from migration.mapping import Mapping
from migration.pipeline.problems import Fenced, LiveRowSlippedIn, Problem, Unstorable, failure
from migration.pipeline.records import Candidate, Quarantined, Receipt
from migration.pipeline.rows import COLUMNS, RowWriter, stored_changes
from migration.pipeline.staging import (
    COUNT,
    FENCE,
    FILL_SPANS,
    GIVE_WAY,
    INSERT,
    INSERTED,
    KEEP_AGE,
    KEEP_FINER_FORMER,
    KEEP_FINER_STANDING,
    OCCUPIED,
    OUTCOME,
    SPANS,
    STAGED,
    STAGING,
    TAKE_OUT,
    UPSERT,
    VERDICT,
    classifying,
)  # fmt: skip
from migration.states import Reason

Waived = frozenset[tuple[int, int, str]]  # (CRM person id, audit id, reason)
BLOCK_BYTES = 64 * 1024

# What may be beyond jsonb's numbers (131,072 digits, 16,383 of them after the point) or its depth, by a look that costs little.
LONG_NUMBER = re.compile(rb"[eE][+-]?[0-9]{4}|(?<![0-9])[0-9]{10000}")
MOST_BRACKETS = 1000
OF_CONTACTS = (Reason.TENANT_MISMATCH, Reason.CONTACT_AMBIGUOUS)


@dataclass(frozen=True)
class Target:
    """Where a chunk's rows go: the run and account they belong to, the chunk's fence, and the seam with live sync."""

    run: UUID
    account: UUID
    chunk: UUID
    token: int
    generation: int
    lag: timedelta
    waived: Waived = frozenset()
    part_of_contact: bool = False  # of the contact's audits there are more, in other chunks
    is_secret: Callable[[str], bool] = lambda key: False  # whether an attribute is on the secrets list

    @property
    def names(self) -> dict[str, object]:
        """The parameters of the statements below."""
        return {name: value for name, value in vars(self).items() if name not in ("waived", "part_of_contact", "is_secret")}


def stage(candidates: Iterable[Candidate], cdp: Cdp, writer: RowWriter, waived: Waived, receipt: Receipt) -> Receipt:
    """COPY what is to become a row into staging; count the rest on the receipt. Everything lazy before this step runs here.

    Raises Unstorable where jsonb refuses a value; then nothing is staged.
    """
    with translated("CDP_DATABASE_URL"):
        empty_tables(cdp)
        try:
            with cdp.connection.cursor().copy(f"COPY calm_staging ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                for block in blocks(lines(candidates, writer, waived, receipt)):
                    copy.write(block)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            raise Unstorable(type(error).__name__) from error
    return receipt


def empty_tables(cdp: Cdp) -> None:
    """The temporary tables, empty: made for the session's first chunk, and only emptied for the others."""
    cdp.check_unshared()
    cdp.connection.execute("TRUNCATE calm_staging, calm_spans, calm_verdict" if cdp.has_staging else f"{STAGING}; {SPANS}; {VERDICT}")
    cdp.has_staging = True


def lines(candidates: Iterable[Candidate], writer: RowWriter, waived: Waived, receipt: Receipt) -> Iterator[bytes]:
    """COPY lines of the candidates that become rows; each of the others is counted where it belongs."""
    for candidate in candidates:
        if candidate.beyond:
            receipt.beyond[candidate.category or "unreadable"] += 1
        elif candidate.skipped:
            receipt.skipped[candidate.skipped] += 1
        elif candidate.problem:
            put_aside(receipt, aside(candidate, candidate.problem), waived)
        else:
            try:
                line = writer.line(candidate)
            except Exception as error:  # noqa: BLE001 - one poisoned row is put aside, the chunk goes on
                put_aside(receipt, aside(candidate, failure(error)), waived)
            else:
                if candidate.collisions:
                    receipt.collisions += [c for c in candidate.collisions if c not in receipt.collisions]
                yield line


def blocks(found: Iterable[bytes]) -> Iterator[bytes]:
    """Lines in larger pieces, each with its end: a write for each line would cost a call to the server's socket."""
    held: list[bytes] = []
    size = 0
    for line in found:
        held.append(line)
        size += len(line)
        if size >= BLOCK_BYTES:
            yield b"\n".join([*held, b""])
            held, size = [], 0
    yield b"\n".join([*held, b""])


def put_aside(receipt: Receipt, found: Quarantined, waived: Waived) -> None:
    """Quarantined, unless a named person waived this candidate for this reason."""
    if (found.person_id, found.audit_id, str(found.problem.reason)) in waived:
        receipt.waived[str(found.problem.reason)] += 1
    else:
        receipt.quarantined.append(found)


def aside(candidate: Candidate, problem: Problem) -> Quarantined:
    return Quarantined(candidate.person_id, candidate.audit_id, candidate.contact_id, problem)


def mark_unstorable(candidates: Iterable[Candidate], ask_about: Callable[[Candidate], bool], mapping: Mapping) -> Iterator[Candidate]:
    """Ask jsonb itself about what would be staged of those candidates' changes: what a secret takes with it refuses nothing.

    It asks in a session of its own, since the loader's is in the middle of its COPY.
    """
    with ExitStack() as stack:
        cdp: Cdp | None = None
        for candidate in candidates:
            if ask_about(candidate):
                cdp = cdp or stack.enter_context(closing(Cdp()))
                try:
                    cdp.rows("SELECT %s::jsonb IS NULL", (asked_about(candidate, mapping),))
                except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
                    candidate.problem = Problem(Reason.CHANGES_UNSTORABLE, f"jsonb refuses it ({type(error).__name__})")
            yield candidate


def asked_about(candidate: Candidate, mapping: Mapping) -> str | None:
    """The changes as they would be staged; whole where they nest so deep that no secret can be taken out."""
    try:
        return copytext.read(stored_changes(candidate, mapping))
    except RecursionError:
        return copytext.read(candidate.changes)


def every_row(candidate: Candidate) -> bool:
    """The slow way, taken once staging met a value that it refuses."""
    return candidate.becomes_row


def doubtful(candidate: Candidate) -> bool:
    """Whether jsonb may refuse what its contact keeps from staging: that comes first among the reasons, whatever else is in the chunk."""
    if candidate.problem is None or candidate.problem.reason not in OF_CONTACTS:
        return False
    raw = candidate.changes
    return LONG_NUMBER.search(raw) is not None or raw.count(b"[") + raw.count(b"{") > MOST_BRACKETS


def load(cdp: Cdp, target: Target, receipt: Receipt, checkpoint: Callable[[str], None] = lambda name: None) -> Receipt:
    """One short transaction: fence, classify, upsert, receipt. An earlier receipt of this chunk is returned instead, and nothing written.

    Raises Fenced where a higher token is known, LiveRowSlippedIn where a live row took a key meanwhile.
    """
    names = target.names
    try:
        with cdp.transaction() as connection:
            cdp.check_unshared()
            row = connection.execute(FENCE, names).fetchone()
            if row is None:
                raise Fenced("another worker holds this chunk with a higher fencing token")
            generation, earlier = row
            if earlier and generation == names["generation"]:
                return Receipt.from_json(earlier)
            connection.execute(FILL_SPANS)
            occupied = connection.execute(OCCUPIED).fetchone() == (True,)
            own, formers = classify(connection, target, receipt, occupied=occupied)
            if formers:
                connection.execute(GIVE_WAY)
            changed = connection.execute(UPSERT if occupied else INSERT, names).rowcount
            if changed != receipt.written + receipt.corrected:
                raise LiveRowSlippedIn("rows changed between classification and upsert")
            if formers:
                connection.execute(KEEP_AGE)
            settle_own(connection, target, own, receipt, Receipt.from_json(earlier) if earlier else None)
            checkpoint("before receipt")
            connection.execute(
                "UPDATE calm.receipts SET receipt = %(receipt)s, generation = %(generation)s, committed_at = now() WHERE chunk = %(chunk)s",
                names | {"receipt": json.dumps(receipt.as_json())},
            )
            checkpoint("before commit")
    except psycopg.errors.UniqueViolation as error:
        raise LiveRowSlippedIn("a row with the same id, or the same audit and contact, appeared meanwhile") from error
    return receipt


def foresee(cdp: Cdp, target: Target, receipt: Receipt) -> Receipt:
    """A dry run's `load`: the same classification, nothing written, and up to three rows before -> after kept as a sample."""
    with cdp.transaction() as connection:
        connection.execute(FILL_SPANS)
        classify(connection, target, receipt, occupied=connection.execute(OCCUPIED).fetchone() == (True,))
        receipt.samples = samples(connection)
    return receipt


def classify(connection: psycopg.Connection, target: Target, receipt: Receipt, *, occupied: bool) -> tuple[int, int]:
    """Decide each staged row's outcome, and count on the receipt by outcome, category and actor kind, with the digest of what is to stand there.

    Returns how many this very run wrote before, and how many take the place of a row under another person's id.
    """
    if occupied:
        keep_finer(connection, KEEP_FINER_STANDING, target)
    connection.execute(classifying(occupied=occupied, part_of_contact=target.part_of_contact), target.names)
    counted = connection.execute(COUNT).fetchall()
    formers = sum(row[-1] for row in counted)
    if formers:
        keep_finer(connection, KEEP_FINER_FORMER, target)
        counted = connection.execute(COUNT).fetchall()
    tally: Counter[str] = Counter()
    for outcome, category, actor_kind, old, number, digest, receipt.first, _ in counted:
        tally[outcome] += number
        if outcome in ("written", "corrected", "unchanged", "own"):
            receipt.digest ^= digest
            receipt.categories[category] += number
            receipt.actor_kinds[actor_kind] += number
        if outcome == "corrected":
            receipt.recategorised[f"{old} -> {category}"] += number
    receipt.written, receipt.corrected, receipt.unchanged = tally["written"], tally["corrected"], tally["unchanged"] + tally["own"]
    receipt.already_live = tally["already_live"]
    if tally["probable_overlap"]:
        for each in overlaps(connection):
            put_aside(receipt, each, target.waived)
    return tally["own"], formers


def keep_finer(connection: psycopg.Connection, statement: str, target: Target) -> None:
    """Take for mapped what stands there, where the audit was combined since; less what is secret by now."""
    keys = {key for (found,) in connection.execute(statement, target.names) for key in found}
    if secrets := [key for key in keys if target.is_secret(key)]:
        connection.execute(TAKE_OUT, {"secrets": secrets})


def overlaps(connection: psycopg.Connection) -> list[Quarantined]:
    rows = connection.execute(
        """SELECT ('x' || left(replace(s.id::text, '-', ''), 12))::bit(48)::bigint, s.source_audit_id, s.contact_id::text
           FROM calm_staging s JOIN calm_verdict v USING (id) WHERE v.outcome = 'probable_overlap' ORDER BY s.id"""
    )
    problem = Problem(
        Reason.PROBABLE_OVERLAP, "a live row of the same contact and category follows within the seam's lag and names no audit"
    )
    return [Quarantined(person, audit, contact, problem) for person, audit, contact in rows]


def settle_own(connection: psycopg.Connection, target: Target, number: int, receipt: Receipt, earlier: Receipt | None) -> None:
    """Rows that this very run wrote or corrected before (a chunk done again) keep that outcome in the ledger; `number` of them are as mapped."""
    if not number and not earlier:
        return
    receipt.unchanged -= number
    again = receipt.corrected  # what this pass corrects, it may itself have written before
    written_before = min(earlier.written, number + again) if earlier else inserted(connection, target)
    receipt.written += written_before
    receipt.corrected = number + again - written_before


def inserted(connection: psycopg.Connection, target: Target) -> int:
    """Of the own rows those that this run did not merely correct, where no receipt tells: the console was restored, and knows other chunks."""
    row = connection.execute(INSERTED, target.names).fetchone()
    return row[0] if row else 0


def samples(connection: psycopg.Connection) -> list[dict[str, object]]:
    """Up to three rows that would be written or corrected: what stands there now (null for a new one), and what would."""
    query = f"""SELECT to_jsonb(t) - 'inserted_at', to_jsonb(s) - 'digest' - 'live_category'
                FROM {STAGED} LEFT JOIN contact_activity_logs t ON t.id = s.id
                WHERE {OUTCOME} IN ('written', 'corrected') AND length(s.changes::text) < 4000
                ORDER BY {OUTCOME}, s.id LIMIT 3"""  # noqa: S608 - constants only
    return [{"before": before, "after": after} for before, after in connection.execute(query)]
