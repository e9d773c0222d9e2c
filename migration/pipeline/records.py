"""The hand-over types between the steps of one chunk."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from migration.mapping import Role
from migration.pipeline.problems import Problem

Moved = Literal["contact_old", "contact_new", "deal"]


class Actor(NamedTuple):
    kind: str
    id: str | None
    name: str | None


class Naming(NamedTuple):
    """An audit that tells a record's name."""

    audit_id: int
    class_name: str
    version: int | None
    request: str | None
    name: str | None


class Joined(NamedTuple):
    """A join row's audit as it concerns one contact."""

    person_id: int
    moved: Moved | None = None  # how an update moved the link, as link_history.Concern says
    deal_id: int | None = None
    company_id: int | None = None


@dataclass(frozen=True)
class Links:
    """What deal-contact links tell of a chunk's contacts; looked up beforehand in the LinkIndex."""

    by_deal: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)  # deal -> (person, from audit, to audit), both exclusive
    by_audit: dict[int, list[Joined]] = field(default_factory=dict)  # join row's audit -> each contact it concerns


class Collision(NamedTuple):
    """Audits of one record, class and version that give different names: two writers, and nobody knows the last."""

    role: Role
    record_id: int
    class_name: str
    version: int
    candidates: list[tuple[int, str | None]]  # audit id, name


@dataclass(slots=True)
class Candidate:
    """One audit as it concerns one contact. Bytes are fields in COPY's text format, carried through unread where possible."""

    person_id: int
    audit_id: int
    role: Role
    class_name: str
    record_id: bytes
    user_type: bytes
    user_id: bytes
    username: bytes
    action: bytes
    occurred_at: bytes
    beyond: bool  # made at or after the watermark: left to the live sync, counted only
    request: bytes  # request_uuid, which need not be a UUID
    comment: bytes  # as JSON
    changes: bytes  # as JSON, once extract has read it
    moved: Moved | None = None  # for join rows: how an update moved the link, as link_history.Concern says
    deal_id: int | None = None  # for join rows: the two ends besides the contact
    company_id: int | None = None
    contact_id: str | None = None
    actor: Actor | None = None
    category: str = ""
    fallthrough: str | None = None
    live_category: str | None = None  # where it fell through: what live sync may call it already
    associations: dict[str, object] | None = None
    collisions: list[Collision] | None = None
    skipped: str = ""
    problem: Problem | None = None

    @property
    def passed_over(self) -> bool:
        """Whether the steps after the one that decided have nothing to do with it."""
        return bool(self.skipped) or self.problem is not None

    @property
    def becomes_row(self) -> bool:
        """Whether, as far as the steps so far have decided, a row comes of it."""
        return not (self.skipped or self.beyond or self.problem)


@dataclass(slots=True)
class Quarantined:
    person_id: int
    audit_id: int
    contact_id: str | None
    problem: Problem


@dataclass
class Receipt:
    """What became of every candidate of a chunk. As JSON it lies in the CDP beside the rows, and on the chunk in the console."""

    written: int = 0
    corrected: int = 0
    unchanged: int = 0
    already_live: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    waived: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)  # by reason: quarantined by an earlier chunk, decided anew by this one
    quarantined: list[Quarantined] = field(default_factory=list)
    categories: Counter[str] = field(default_factory=Counter)  # of rows that are ours: written, corrected, unchanged
    actor_kinds: Counter[str] = field(default_factory=Counter)
    recategorised: Counter[str] = field(default_factory=Counter)  # of corrected rows: "old -> new"
    beyond: Counter[str] = field(default_factory=Counter)
    collisions: list[Collision] = field(default_factory=list)
    samples: list[dict[str, object]] = field(default_factory=list)  # dry run: rows before -> after
    digest: int = 0  # of the rows that are ours: their digests, each hashed to 64 bits with a sign, by exclusive or
    first: str | None = None  # earliest occurred_at of the rows that are the contact's now, live ones too; PostgreSQL's text, in UTC

    def as_json(self) -> dict[str, object]:
        """Plain JSON; `from_json` is its inverse."""
        plain = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        plain["digest"] = str(self.digest)  # beyond 2**53
        plain["quarantined"] = [
            [q.person_id, q.audit_id, q.contact_id, q.problem.reason, q.problem.detail, q.problem.error_class] for q in self.quarantined
        ]
        return plain

    @classmethod
    def from_json(cls, plain: dict) -> "Receipt":
        quarantined = [Quarantined(p, a, contact, Problem(*problem)) for p, a, contact, *problem in plain["quarantined"]]
        collisions = [
            Collision(Role(role), record, name, version, [tuple(c) for c in found])
            for role, record, name, version, found in plain["collisions"]
        ]
        counters = ("skipped", "waived", "retried", "categories", "actor_kinds", "recategorised", "beyond")
        return cls(
            **plain
            | {name: Counter(plain[name]) for name in counters}
            | {"digest": int(plain["digest"]), "quarantined": quarantined, "collisions": collisions}
        )
