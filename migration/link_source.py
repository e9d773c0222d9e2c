"""The CRM's audits of join rows, as the LinkIndex reads them: in the order of the rows' ids, by row, or by what is new."""

from collections import defaultdict
from datetime import datetime

from psycopg import sql

from migration.crm import TEXTS, Crm
from migration.link_history import History, JoinAudit, number, replay
from migration.mapping import Mapping, Role
from migration.pipeline.queries import literals
from migration.pipeline.reading import changes_reader, values

BATCH = 5_000  # audits of join rows at a time


class Source:
    """The CRM's join-row audits, read through the gem's index."""

    def __init__(self, mapping: Mapping, crm: Crm) -> None:
        self.mapping, self.crm = mapping, crm
        self.classes = mapping.classes(Role.DEAL_CONTACT_JOIN) + mapping.classes(Role.DEAL_COMPANY_JOIN)
        self.deal_classes = set(mapping.classes(Role.DEAL))
        self.read = changes_reader(crm.shape)
        self.id_is_text = crm.shape.record_id in TEXTS
        self.record_id = sql.SQL("auditable_id::bigint" if self.id_is_text else "auditable_id")

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

    def next_cut(self, after: int) -> int | None:
        """The join-row id up to which the next batch goes: about BATCH audits of the class that has most; None at the end."""
        statement = sql.SQL(
            "SELECT max(id) FROM (SELECT {id} AS id FROM audits WHERE auditable_type = {name} AND {id} > {after} ORDER BY {id} LIMIT {batch}) batch"
        )
        tops = []
        for name in self.classes:
            found = self.crm.rows(
                statement.format(id=self.record_id, name=sql.Literal(name), after=sql.Literal(after), batch=sql.Literal(BATCH))
            )[0][0]
            if found is not None:
                tops.append(found)
        return min(tops) if tops else None

    def between(self, after: int, upper: int) -> sql.Composed:
        return sql.SQL("{id} > {after} AND {id} <= {upper}").format(id=self.record_id, after=sql.Literal(after), upper=sql.Literal(upper))

    def of_rows(self, rows: list[tuple[Role, int]]) -> sql.Composed:
        ids = sorted({row for _, row in rows})
        kind = sql.SQL("text[]" if self.id_is_text else "bigint[]")
        return sql.SQL("auditable_id = ANY({}::{})").format(sql.Literal("{" + ",".join(map(str, ids)) + "}"), kind)

    def histories(self, which: sql.Composed) -> dict[tuple[Role, int], History]:
        """The whole history of each join row that `which` selects."""
        statement = sql.SQL(
            """SELECT id, auditable_type, {id}, action, audited_changes::text, associated_type, associated_id::text
               FROM audits WHERE auditable_type IN ({classes}) AND {which}"""
        ).format(id=self.record_id, classes=literals(self.classes), which=which)
        grouped: dict[tuple[Role, int], list[JoinAudit]] = defaultdict(list)
        for audit_id, name, row, action, text, associated, associated_id in self.crm.rows(statement):
            hint = number(associated_id) if associated in self.deal_classes else None
            grouped[self.mapping.role_of[name], row].append(JoinAudit(audit_id, name, action, values(text, self.read), hint))
        return {(role, row): self.replayed(role, audits) for (role, row), audits in grouped.items()}

    def replayed(self, role: Role, audits: list[JoinAudit]) -> History:
        deal = {name: ends.deal for name, ends in self.mapping.joins.items()}
        if role == Role.DEAL_CONTACT_JOIN:
            return replay(audits, deal, {name: ends.contact for name, ends in self.mapping.joins.items()})
        return replay(audits, deal, {name: ends.company for name, ends in self.mapping.joins.items()})

    def first_since(self, moment: datetime, below: int) -> int:
        """An audit id below which everything was made before `moment`: going back from `below` by primary key, page by page."""
        statement = sql.SQL(
            """SELECT min(id), count(*) FILTER (WHERE created_at >= {moment}) FROM
               (SELECT id, created_at FROM audits WHERE id <= {below} ORDER BY id DESC LIMIT 2000) page"""
        )
        kind = "timestamp" if self.crm.shape.created_at == "timestamp without time zone" else "timestamptz"
        literal = sql.SQL("{}::{}").format(
            sql.Literal(moment.replace(tzinfo=None).isoformat() if kind == "timestamp" else moment.isoformat()), sql.SQL(kind)
        )
        while True:
            lowest, recent = self.crm.rows(statement.format(moment=literal, below=sql.Literal(below)))[0]
            if lowest is None or not recent:
                return below if lowest is None else lowest
            below = lowest - 1

    def changed_rows(self, low: int, high: int) -> list[tuple[Role, int]]:
        """Join rows with an audit from id `low` (inclusive) to `high` (exclusive), by primary key."""
        statement = sql.SQL(
            "SELECT DISTINCT auditable_type, {id} FROM audits WHERE id >= {low} AND id < {high} AND auditable_type IN ({classes})"
        ).format(id=self.record_id, low=sql.Literal(low), high=sql.Literal(high), classes=literals(self.classes))
        return sorted({(self.mapping.role_of[name], row) for name, row in self.crm.rows(statement)})
