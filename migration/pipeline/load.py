"""ActivityLoader: COPY into a temporary staging table with no lock held, then one short CDP transaction: fence, upsert, receipt."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import psycopg

from migration import copytext
from migration.cdp import Cdp
from migration.doors import translated
from migration.pipeline.problems import Fenced, LiveRowSlippedIn, Problem, Unstorable, failure
from migration.pipeline.records import Candidate, Quarantined, Receipt
from migration.pipeline.rows import COLUMNS, RowWriter
from migration.states import Reason

Waived = frozenset[tuple[int, int, str]]  # (CRM person id, audit id, reason)
BLOCK_BYTES = 64 * 1024

STAGING = """
    CREATE TEMP TABLE IF NOT EXISTS calm_staging (
        id uuid NOT NULL, contact_id uuid NOT NULL, category text NOT NULL, actor_kind text NOT NULL, actor_id text, actor_name text,
        occurred_at timestamptz NOT NULL, source_audit_id bigint NOT NULL, digest uuid NOT NULL, changes jsonb NOT NULL, context jsonb NOT NULL)"""

# Only of rows that are not simply new: most of a first load are, and need no line here.
VERDICT = "CREATE TEMP TABLE IF NOT EXISTS calm_verdict (id uuid NOT NULL, old_category text, outcome text NOT NULL)"
STAGED = "calm_staging s LEFT JOIN calm_verdict v USING (id)"
OUTCOME = "coalesce(v.outcome, 'written')"

# Whether the row in the CDP (t) is what was mapped (s). `*=` compares the stored bytes: 0.50 is not 0.5, and no text is made of either. The
# revision's number alone is no difference: it would make every row one.
SAME = """(t.account_id, t.contact_id, t.category, t.actor_kind, t.occurred_at, t.source_audit_id)
        = (%(account)s, s.contact_id, s.category, s.actor_kind, s.occurred_at, s.source_audit_id)
     AND ROW(t.actor_id, t.actor_name, t.changes)::record *= ROW(s.actor_id, s.actor_name, s.changes)::record
     AND (ROW(t.context)::record *= ROW(s.context)::record OR t.context - 'mapping_revision' = s.context - 'mapping_revision')"""

# The row that stands under a staged row's id. OFFSET 0 keeps the planner to one look by primary key for each, at any size of the table and
# whatever its statistics say: they lag behind while a table is being filled.
STANDING = "LEFT JOIN LATERAL (SELECT * FROM contact_activity_logs WHERE id = s.id OFFSET 0) t ON true"

# For each person the lowest and the highest staged id: what lies between the ids of two persons is mostly other accounts'.
SPANS = "CREATE TEMP TABLE IF NOT EXISTS calm_spans (low uuid NOT NULL, high uuid NOT NULL)"
FILL_SPANS = """
    INSERT INTO calm_spans SELECT min(id::text COLLATE "C")::uuid, max(id::text COLLATE "C")::uuid
    FROM calm_staging GROUP BY substring(uuid_send(id) FOR 6)"""
IN_SPANS = "calm_spans CROSS JOIN LATERAL (SELECT * FROM contact_activity_logs WHERE id BETWEEN low AND high OFFSET 0) t"

# Whether any row stands where staged ones belong: in a first load none does, and no row need be looked for.
OCCUPIED = f"SELECT EXISTS (SELECT FROM {IN_SPANS})"  # noqa: S608 - constants only
NOTHING = "CROSS JOIN (SELECT NULL::uuid AS id, NULL::text AS category) t"

# The outcome of each staged row that is not simply new. A live row holds the audit; or one without an audit id is so close behind that it
# may be the same. Live rows are read contact by contact for the same reason.
CLASSIFY = """
    INSERT INTO calm_verdict (id, old_category, outcome)
    WITH live AS MATERIALIZED (
        SELECT l.* FROM (SELECT DISTINCT contact_id FROM calm_staging) c CROSS JOIN LATERAL (
            SELECT contact_id, category, occurred_at, source_audit_id FROM contact_activity_logs
            WHERE contact_id = c.contact_id AND origin = 'live' OFFSET 0) l),
    overlapping AS MATERIALIZED (
        SELECT s.id FROM calm_staging s JOIN live l USING (contact_id, category)
        WHERE l.source_audit_id IS NULL AND s.occurred_at >= %(seam)s::timestamptz AND l.occurred_at BETWEEN s.occurred_at AND s.occurred_at + %(lag)s)
    SELECT * FROM (
        SELECT s.id, t.category AS old_category,
               CASE WHEN named.source_audit_id IS NOT NULL THEN 'already_live'
                    WHEN s.id IN (SELECT id FROM overlapping) THEN 'probable_overlap'
                    {standing} END AS outcome
        FROM calm_staging s {t}
        LEFT JOIN live named ON named.source_audit_id = s.source_audit_id AND named.contact_id = s.contact_id) decided
    WHERE outcome IS NOT NULL"""
CLASSIFY_NEW = CLASSIFY.format(t=NOTHING, standing="")
CLASSIFY_STANDING = CLASSIFY.format(
    t=STANDING,
    standing=f"""
                    WHEN t.id IS NULL THEN NULL
                    WHEN ({SAME}) IS NOT TRUE THEN 'corrected'
                    WHEN t.run_id = %(run)s THEN 'own'
                    ELSE 'unchanged'""",
)

UPSERT = f"""
    INSERT INTO contact_activity_logs AS t (id, account_id, contact_id, category, actor_kind, actor_id, actor_name, occurred_at, changes, context,
                                            origin, source_audit_id, run_id)
    SELECT s.id, %(account)s, s.contact_id, s.category, s.actor_kind, s.actor_id, s.actor_name, s.occurred_at, s.changes, s.context,
           'crm_migration', s.source_audit_id, %(run)s
    FROM {STAGED} WHERE {OUTCOME} IN ('written', 'corrected') ORDER BY s.id
    ON CONFLICT (id) DO UPDATE SET
        account_id = excluded.account_id, contact_id = excluded.contact_id, category = excluded.category, actor_kind = excluded.actor_kind,
        actor_id = excluded.actor_id, actor_name = excluded.actor_name, occurred_at = excluded.occurred_at, changes = excluded.changes,
        context = excluded.context, source_audit_id = excluded.source_audit_id, run_id = excluded.run_id
    WHERE t.origin = 'crm_migration'"""  # noqa: S608 - constants only

# `first` is the same in every group: of all rows that stay or come, before `probable_overlap` is put aside.
COUNT = f"""
    SELECT {OUTCOME}, s.category, s.actor_kind, v.old_category, count(*),
           (min(min(s.occurred_at)) FILTER (WHERE {OUTCOME} <> 'probable_overlap') OVER ())::text
    FROM {STAGED} GROUP BY 1, 2, 3, 4"""  # noqa: S608 - constants only

# A row of this run that was inserted after the account's run before it had committed its last. All times are the CDP's.
INSERTED = """
    SELECT count(*) FROM calm_verdict v JOIN contact_activity_logs t USING (id)
    WHERE v.outcome = 'own' AND t.inserted_at > (
        SELECT coalesce(max(committed_at), '-infinity') FROM calm.receipts WHERE account_id = %(account)s AND run_id <> %(run)s AND committed_at < (
            SELECT coalesce(min(committed_at), 'infinity') FROM calm.receipts WHERE run_id = %(run)s))"""

FENCE = """
    INSERT INTO calm.receipts AS r (chunk, run_id, account_id, token, generation) VALUES (%(chunk)s, %(run)s, %(account)s, %(token)s, %(generation)s)
    ON CONFLICT (chunk) DO UPDATE SET token = excluded.token WHERE r.token <= excluded.token
    RETURNING generation, receipt"""


@dataclass(frozen=True)
class Target:
    """Where a chunk's rows go: the run and account they belong to, the chunk's fence, and the seam with live sync."""

    run: UUID
    account: UUID
    chunk: UUID
    token: int
    generation: int
    seam: str  # timestamptz: nothing before it can be a live row's double
    lag: timedelta
    waived: Waived = frozenset()

    @property
    def names(self) -> dict[str, object]:
        """The parameters of the statements below."""
        return {name: value for name, value in vars(self).items() if name != "waived"}


def stage(candidates: Iterable[Candidate], cdp: Cdp, writer: RowWriter, waived: Waived, receipt: Receipt) -> Receipt:
    """COPY what is to become a row into staging; count the rest on the receipt. Everything lazy before this step runs here.

    Raises Unstorable where jsonb refuses a value; then nothing is staged.
    """
    with translated("CDP_DATABASE_URL"):
        cdp.connection.execute(f"{STAGING}; {SPANS}; {VERDICT}; TRUNCATE calm_staging, calm_spans, calm_verdict")
        try:
            with cdp.connection.cursor().copy(f"COPY calm_staging ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                for block in blocks(lines(candidates, writer, waived, receipt)):
                    copy.write(block)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            raise Unstorable(type(error).__name__) from error
        cdp.connection.execute(FILL_SPANS)
    return receipt


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
                receipt.collisions += [c for c in candidate.collisions or () if c not in receipt.collisions]
                yield line


def blocks(found: Iterable[bytes]) -> Iterator[bytes]:
    """Lines in larger pieces: each write costs a call to the server's socket."""
    held: list[bytes] = []
    size = 0
    for line in found:
        held.append(line)
        size += len(line)
        if size >= BLOCK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def put_aside(receipt: Receipt, found: Quarantined, waived: Waived) -> None:
    """Quarantined, unless a named person waived this candidate for this reason."""
    if (found.person_id, found.audit_id, str(found.problem.reason)) in waived:
        receipt.waived[str(found.problem.reason)] += 1
    else:
        receipt.quarantined.append(found)


def aside(candidate: Candidate, problem: Problem) -> Quarantined:
    return Quarantined(candidate.person_id, candidate.audit_id, candidate.contact_id, problem)


def mark_unstorable(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Ask jsonb itself about every candidate's changes; the slow way, taken once staging met a value that it refuses.

    It asks in a session of its own, since the loader's is in the middle of its COPY.
    """
    with closing(Cdp()) as cdp:
        for candidate in candidates:
            if not candidate.passed_over and not candidate.beyond:
                try:
                    cdp.rows("SELECT %s::jsonb IS NULL", (copytext.read(candidate.changes),))
                except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
                    candidate.problem = Problem(Reason.CHANGES_UNSTORABLE, f"jsonb refuses it ({type(error).__name__})")
            yield candidate


def load(cdp: Cdp, target: Target, receipt: Receipt, checkpoint: Callable[[str], None] = lambda name: None) -> Receipt:
    """One short transaction: fence, classify, upsert, receipt. An earlier receipt of this chunk is returned instead, and nothing written.

    Raises Fenced where a higher token is known, LiveRowSlippedIn where a live row took a key meanwhile.
    """
    names = target.names
    try:
        with cdp.transaction() as connection:
            row = connection.execute(FENCE, names).fetchone()
            if row is None:
                raise Fenced("another worker holds this chunk with a higher fencing token")
            generation, earlier = row
            if earlier and generation == names["generation"]:
                return Receipt.from_json(earlier)
            own = classify(connection, target, receipt)
            changed = connection.execute(UPSERT, names).rowcount
            if changed != receipt.written + receipt.corrected:
                raise LiveRowSlippedIn("rows changed between classification and upsert")
            settle_own(connection, target, own, receipt, Receipt.from_json(earlier) if earlier else None)
            checkpoint("before receipt")
            connection.execute(
                "UPDATE calm.receipts SET receipt = %(receipt)s, generation = %(generation)s, committed_at = now() WHERE chunk = %(chunk)s",
                names | {"receipt": json.dumps(receipt.as_json())},
            )
            checkpoint("before commit")
    except psycopg.errors.UniqueViolation as error:
        raise LiveRowSlippedIn("a row with the same audit and contact appeared meanwhile") from error
    return receipt


def foresee(cdp: Cdp, target: Target, receipt: Receipt) -> Receipt:
    """A dry run's `load`: the same classification, nothing written, and up to three rows before -> after kept as a sample."""
    with cdp.transaction() as connection:
        classify(connection, target, receipt)
        receipt.samples = samples(connection)
    return receipt


def classify(connection: psycopg.Connection, target: Target, receipt: Receipt) -> int:
    """Decide each staged row's outcome, and count on the receipt by outcome, category and actor kind; how many this very run wrote before."""
    occupied = connection.execute(OCCUPIED).fetchone() == (True,)
    connection.execute(CLASSIFY_STANDING if occupied else CLASSIFY_NEW, target.names)
    counted = connection.execute(COUNT).fetchall()
    tally: Counter[str] = Counter()
    for outcome, category, actor_kind, old, number, receipt.first in counted:
        tally[outcome] += number
        if outcome in ("written", "corrected", "unchanged", "own"):
            receipt.categories[category] += number
            receipt.actor_kinds[actor_kind] += number
        if outcome == "corrected":
            receipt.recategorised[f"{old} -> {category}"] += number
    receipt.written, receipt.corrected, receipt.unchanged = tally["written"], tally["corrected"], tally["unchanged"] + tally["own"]
    receipt.already_live = tally["already_live"]
    if tally["probable_overlap"]:
        for each in overlaps(connection):
            put_aside(receipt, each, target.waived)
    return tally["own"]


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
    query = f"""SELECT to_jsonb(t) - 'inserted_at', to_jsonb(s) - 'digest'
                FROM {STAGED} LEFT JOIN contact_activity_logs t ON t.id = s.id
                WHERE {OUTCOME} IN ('written', 'corrected') AND length(s.changes::text) < 4000
                ORDER BY {OUTCOME}, s.id LIMIT 3"""  # noqa: S608 - constants only
    return [{"before": before, "after": after} for before, after in connection.execute(query)]
