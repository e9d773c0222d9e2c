"""The CRM's audits of join rows, as the LinkIndex reads them: in the order of the rows' ids, by row, or by what is new.

A join row is kept under its id. One whose id is no number from zero up (a UUID in a text column) is kept under a number made of it, beyond all
others; an audit that names no row is a row of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from psycopg import sql

from migration.crm import TEXTS, Crm
from migration.link_history import History, JoinAudit, number, replay
from migration.mapping import Mapping, Role
from migration.pipeline.queries import joins, literals
from migration.pipeline.reading import changes_reader, values

BATCH = 5_000  # audits of join rows at a time
IDS_AT_ONCE = 100_000  # of them in the index's order, where nothing but ids is looked at
PAGE = 5_000  # audits at a time, when an extension looks for changed join rows: the last page is read again wherever one was written since
ROWS_AT_ONCE = 500  # whose whole history is asked for
AHEAD = "2 days"  # by which the clock of whoever writes audits may be wrong
ODD, NAMELESS = 1 << 61, 1 << 62  # where the numbers begin of rows whose id is none, and of audits without a row
NUMBER = "'^(0|[1-9][0-9]{0,17})$'"


class Page(NamedTuple):
    """Some thousand audits in the order of their ids."""

    following: int | None  # where the next page begins; None where this one is not full
    is_recent: bool  # whether one of them was made since the moment that was asked for
    told: str  # differs where an audit of a join row came, went or changed, or the page ends elsewhere


class Source:
    """The CRM's join-row audits, read through the gem's index."""

    def __init__(self, mapping: Mapping, crm: Crm) -> None:
        self.mapping, self.crm = mapping, crm
        self.classes = joins(mapping)
        self.deal_classes, self.contact_classes = set(mapping.classes(Role.DEAL)), set(mapping.classes(Role.CONTACT))
        self.read = changes_reader(crm.shape)
        self.id_is_text = crm.shape.record_id in TEXTS
        self.is_odd = sql.SQL(f"auditable_id !~ {NUMBER}" if self.id_is_text else "auditable_id < 0")
        self.row = sql.SQL(
            """CASE WHEN auditable_id IS NULL THEN {nameless} + id::bigint
                    WHEN {is_odd} THEN {odd} + ('x' || substr(md5(auditable_id::text), 1, 15))::bit(60)::bigint ELSE auditable_id::bigint END"""
        ).format(nameless=sql.Literal(NAMELESS), is_odd=self.is_odd, odd=sql.Literal(ODD))
        self.known_digits: dict[str, list[int]] = {}

    def highest_audit(self) -> int:
        return self.crm.rows("SELECT coalesce(max(id), 0) FROM audits")[0][0]

    def settled(self, below: int) -> int:
        """How many audits of join rows have an id under `below`: all of them, from the index alone, less the few above."""
        statement = sql.SQL(
            """SELECT (SELECT count(*) FROM audits WHERE auditable_type IN ({classes}))
                    - (SELECT count(*) FROM audits WHERE id >= {below} AND auditable_type IN ({classes}))"""
        )
        return self.crm.rows(statement.format(classes=literals(self.classes), below=sql.Literal(below)))[0][0]

    def within(self, low: int, high: int) -> int:
        """How many audits of join rows have an id from `low` (inclusive) to `high` (exclusive), by primary key."""
        statement = sql.SQL("SELECT count(*) FROM audits WHERE id >= {low} AND id < {high} AND auditable_type IN ({classes})")
        return self.crm.rows(statement.format(low=sql.Literal(low), high=sql.Literal(high), classes=literals(self.classes)))[0][0]

    def next_batch(self, after: int) -> tuple[int, list[sql.Composed]] | None:
        """The join-row id up to which the next batch goes, about BATCH audits of the class that has most, and what selects its rows.

        None after the last number.
        """
        ids_of = self.next_texts if self.id_is_text else self.next_numbers
        found = [ids for name in self.classes if (ids := ids_of(name, after))]
        if not found:
            return None
        upper = min(ids[-1] for ids in found)
        if self.id_is_text:
            return upper, list(self.of_rows(str(row) for ids in found for row in ids if row <= upper))
        return upper, [sql.SQL("auditable_id > {} AND auditable_id <= {}").format(sql.Literal(after), sql.Literal(upper))]

    def next_numbers(self, name: str, after: int) -> list[int]:
        """A class's next ids, ascending, one for each audit."""
        return self.ids(name, sql.SQL("auditable_id > {}").format(sql.Literal(after)))

    def next_texts(self, name: str, after: int) -> list[int]:
        """The same where ids are texts: those with as many digits as the first of them.

        The index has them in the order of texts, where only numbers of as many digits are in their own order: it is walked once for each number of
        digits. To have the server sort by number would cost all of the class for each batch.
        """
        which = sql.SQL("auditable_id > {} AND length(auditable_id) = {} AND NOT {}")
        last = str(after) if after >= 0 else ""
        for digits in self.digits(name):
            if digits >= len(last):
                beyond = sql.Literal(last if digits == len(last) else "")
                if ids := self.ids(name, which.format(beyond, sql.Literal(digits), self.is_odd)):
                    return ids
        return []

    def ids(self, name: str, which: sql.Composed) -> list[int]:
        statement = sql.SQL(
            "SELECT auditable_id::bigint AS row FROM audits WHERE auditable_type = {} AND {} ORDER BY auditable_id LIMIT {}"
        )
        return [row for (row,) in self.crm.rows_in_order(statement.format(sql.Literal(name), which, sql.Literal(BATCH)))]

    def digits(self, name: str) -> list[int]:
        """How many digits a class's ids have that are numbers in a text column, ascending; looked up once."""
        if name not in self.known_digits:
            statement = sql.SQL("SELECT DISTINCT length(auditable_id) FROM audits WHERE auditable_type = {} AND NOT {} ORDER BY 1")
            self.known_digits[name] = [row[0] for row in self.crm.rows(statement.format(sql.Literal(name), self.is_odd))]
        return self.known_digits[name]

    def odd(self) -> Iterator[sql.Composed]:
        """Every join row whose id is no number, and every audit without a row, some at a time; after what `next_batch` finds."""
        for name in self.classes:
            last, found = self.next_odd(name, None)
            while last is not None:
                yield from self.of_rows(found or [])
                last, found = self.next_odd(name, last)
        yield from self.nameless(0, self.highest_audit() + 1)

    def next_odd(self, name: str, after: int | str | None) -> tuple[int | str | None, list[int | str] | None]:
        """Up to which id of a class a look beyond `after` came, and those it found that are no number; None where there is no id beyond.

        A text column is looked through id by id, in the index's order: how far the next odd one is, nobody knows.
        """
        statement = sql.SQL(
            """SELECT max(auditable_id), array_agg(auditable_id) FILTER (WHERE {is_odd}) FROM (
                   SELECT auditable_id FROM audits WHERE auditable_type = {name} AND {which} AND ({after} IS NULL OR auditable_id > {after})
                   ORDER BY auditable_id LIMIT {limit}) ids"""
        )
        names = {
            "is_odd": self.is_odd,
            "name": sql.Literal(name),
            "which": sql.SQL("true") if self.id_is_text else self.is_odd,
            "after": sql.SQL("{}::text" if self.id_is_text else "{}::bigint").format(sql.Literal(after)),
            "limit": sql.Literal(IDS_AT_ONCE if self.id_is_text else BATCH),
        }
        return self.crm.rows(statement.format(**names))[0]

    def nameless(self, low: int, high: int) -> Iterator[sql.Composed]:
        """The audits without a row, from id `low` (inclusive) to `high` (exclusive), some at a time."""
        statement = sql.SQL(
            """SELECT max(id) FROM (
                   SELECT id FROM (SELECT id FROM audits
                                   WHERE auditable_type IN ({classes}) AND auditable_id IS NULL AND id >= {low} AND id < {high} OFFSET 0) found
                   ORDER BY id LIMIT {batch}) batch"""
        )  # OFFSET 0: in the order of the primary key all audits would be looked through for a few
        names = {"classes": literals(self.classes), "high": sql.Literal(high), "batch": sql.Literal(BATCH)}
        while (last := self.crm.rows(statement.format(low=sql.Literal(low), **names))[0][0]) is not None:
            yield sql.SQL("auditable_id IS NULL AND id >= {} AND id <= {}").format(sql.Literal(low), sql.Literal(last))
            low = last + 1

    def of_rows(self, ids: Iterable[int | str]) -> Iterator[sql.Composed]:
        """The join rows with these ids, as the column has them, some hundred at a time."""
        wanted = sorted(set(ids))
        kind = sql.SQL("text[]" if self.id_is_text else "bigint[]")
        for at in range(0, len(wanted), ROWS_AT_ONCE):
            yield sql.SQL("auditable_id = ANY({}::{})").format(sql.Literal(wanted[at : at + ROWS_AT_ONCE]), kind)

    def histories(self, which: sql.Composed) -> dict[tuple[Role, int], History]:
        """The whole history of each join row that `which` selects."""
        statement = sql.SQL(
            """SELECT id, auditable_type, {row}, action, audited_changes::text, associated_type, associated_id::text
               FROM audits WHERE auditable_type IN ({classes}) AND {which}"""
        ).format(row=self.row, classes=literals(self.classes), which=which)
        grouped: dict[tuple[Role, int], list[JoinAudit]] = defaultdict(list)
        for audit_id, name, row, action, text, associated, associated_id in self.crm.rows(statement):
            hints = [number(associated_id) if associated in classes else None for classes in (self.deal_classes, self.contact_classes)]
            grouped[self.mapping.role_of[name], row].append(JoinAudit(audit_id, name, action, values(text, self.read), *hints))
        return {(role, row): self.replayed(role, audits) for (role, row), audits in grouped.items()}

    def replayed(self, role: Role, audits: list[JoinAudit]) -> History:
        deal = {name: ends.deal for name, ends in self.mapping.joins.items()}
        if role == Role.DEAL_CONTACT_JOIN:
            return replay(audits, deal, {name: ends.contact for name, ends in self.mapping.joins.items()})
        return replay(audits, deal, {name: ends.company for name, ends in self.mapping.joins.items()})

    def first_since(self, moment: datetime, below: int) -> int:
        """An audit id below which everything was made before `moment`: going back from `below` by primary key, page by page.

        What a clock far ahead has dated does not count: every page of a source may hold one.
        """
        statement = sql.SQL(
            """SELECT min(id), count(*) FILTER (WHERE created_at >= {moment} AND created_at < {moment} + interval {most}) FROM
               (SELECT id, created_at FROM audits WHERE id <= {below} ORDER BY id DESC LIMIT 2000) page"""
        )
        names = {"moment": self.moment(moment), "most": sql.Literal(AHEAD)}
        while True:
            lowest, recent = self.crm.rows(statement.format(below=sql.Literal(below), **names))[0]
            if lowest is None or not recent:
                return below if lowest is None else lowest
            below = lowest - 1

    def moment(self, moment: datetime) -> sql.Composed:
        """A moment as the type of `created_at` has it."""
        if self.crm.shape.created_at == "timestamp without time zone":
            return sql.SQL("{}::timestamp").format(sql.Literal(moment.replace(tzinfo=None).isoformat()))
        return sql.SQL("{}::timestamptz").format(sql.Literal(moment.isoformat()))

    def page(self, low: int, moment: datetime) -> Page:
        """The PAGE audits from id `low` on. Counted by audits, since ids have gaps of any size."""
        statement = sql.SQL(
            """SELECT count(*), max(id), count(*) FILTER (WHERE created_at >= {moment} AND created_at < {moment} + interval {most}),
                      md5(string_agg(told, ',' ORDER BY id))
               FROM (SELECT id, created_at,
                            CASE WHEN auditable_type IN ({classes}) THEN
                                ROW(id, auditable_type, auditable_id, action, md5(audited_changes::text), associated_type, associated_id)::text END AS told
                     FROM audits WHERE id >= {low} ORDER BY id LIMIT {page}) page"""
        )
        names = {"moment": self.moment(moment), "most": sql.Literal(AHEAD), "classes": literals(self.classes)}
        number, last, recent, digest = self.crm.rows(statement.format(low=sql.Literal(low), page=sql.Literal(PAGE), **names))[0]
        following = last + 1 if number == PAGE else None
        return Page(following, recent > 0, f"{following} {digest}")

    def rows_kept_as(self, numbers: Iterable[int], *, since: int) -> set[int | str]:
        """The ids, as the column has them, of join rows that are kept under these numbers.

        Of a row whose id is no number, only where an audit with an id from `since` on names it.
        """
        wanted = set(numbers)
        found: set[int | str] = {str(row) if self.id_is_text else row for row in wanted if row < ODD}
        if odd := [row for row in wanted if ODD <= row < NAMELESS]:
            statement = sql.SQL(
                """SELECT DISTINCT auditable_id FROM audits
                   WHERE id >= {since} AND auditable_type IN ({classes}) AND auditable_id IS NOT NULL AND {row} = ANY({odd}::bigint[])"""
            )
            names = {"since": sql.Literal(since), "classes": literals(self.classes), "row": self.row, "odd": sql.Literal(odd)}
            found |= {row for (row,) in self.crm.rows(statement.format(**names))}
        return found

    def changed_rows(self, low: int, high: int, also: Iterable[int | str] = ()) -> Iterator[sql.Composed]:
        """Join rows with an audit from id `low` (inclusive) to `high` (exclusive), by primary key, and `also` these; some hundred at a time."""
        statement = sql.SQL("SELECT DISTINCT auditable_id FROM audits WHERE id >= {low} AND id < {high} AND auditable_type IN ({classes})")
        names = {"low": sql.Literal(low), "high": sql.Literal(high), "classes": literals(self.classes)}
        ids = {row for (row,) in self.crm.rows(statement.format(**names))}
        yield from self.of_rows({*ids, *also} - {None})
        if None in ids:
            yield from self.nameless(low, high)
