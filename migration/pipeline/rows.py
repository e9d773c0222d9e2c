"""From a mapped candidate to the row of contact_activity_logs, as one line for COPY; and the row's digest, in Python and in SQL."""

import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5

from migration import copytext
from migration.crm import INTEGERS, Shape
from migration.mapping import Mapping
from migration.pipeline import changes
from migration.pipeline.records import Actor, Candidate

COLUMNS = (
    "id",
    "contact_id",
    "category",
    "actor_kind",
    "actor_id",
    "actor_name",
    "occurred_at",
    "source_audit_id",
    "digest",
    "changes",
    "context",
    "live_category",
)
VERSION, VARIANT = 8, 2 << 62  # RFC 9562: UUIDv8, variant 10
SEPARATOR = b"\x1f"

# The digest of a committed row, as `digest` below computes it of the mapped one. Session settings: UTC, ISO dates.
# Joined by ||, which costs half of what concat_ws does.
DIGEST_SQL = r"""md5(t.id || E'\x1f' || t.account_id || E'\x1f' || t.contact_id || E'\x1f' || t.category || E'\x1f' || t.actor_kind || E'\x1f'
    || coalesce(t.actor_id, '\N') || E'\x1f' || coalesce(t.actor_name, '\N') || E'\x1f' || t.occurred_at || E'\x1f' || coalesce(t.source_audit_id::text, '\N')
    || E'\x1f' || t.origin)::uuid"""


def row_id(person_id: int, audit_id: int) -> str:
    """UUIDv8: CRM person id in the upper 48 bits, audit id in the lower 62. Raises ValueError where one does not fit."""
    if not (0 <= person_id < 1 << 48 and 0 <= audit_id < 1 << 62):
        raise ValueError("a CRM person id or audit id is out of the range that a row id can carry")
    return f"{upper_half(person_id)}{(VARIANT | audit_id) >> 48:x}-{audit_id & 0xFFFFFFFFFFFF:012x}"


@lru_cache(maxsize=1000)
def upper_half(person_id: int) -> str:
    """What the ids of all of a person's rows begin with."""
    digits = f"{person_id:012x}"
    return f"{digits[:8]}-{digits[8:]}-{VERSION}000-"


@lru_cache(maxsize=10_000)
def json_field(text: str | None) -> bytes:
    """A text as a JSON value inside a COPY field."""
    return copytext.write(json.dumps(text, ensure_ascii=False))


@lru_cache(maxsize=10_000)
def actor_fields(actor: Actor) -> tuple[bytes, bytes]:
    """The actor's three columns as COPY fields joined by tabs, and as the digest reads them."""
    texts = (actor.kind, actor.id, actor.name)
    return b"\t".join(map(copytext.write, texts)), SEPARATOR.join(b"\\N" if t is None else t.encode() for t in texts)


@lru_cache(maxsize=1000)
def what(action: bytes, class_name: str) -> bytes:
    """The context up to the record's id."""
    return b'{"action": ' + json_field(action.decode()) + b', "auditable_type": ' + json_field(class_name) + b', "auditable_id": '


def stored_changes(candidate: Candidate, mapping: Mapping) -> bytes:
    """audited_changes less the secrets; read only where a secret's name may occur."""
    if not mapping.may_hold_secret(candidate.changes):
        return candidate.changes
    return copytext.write(changes.without(copytext.unescape(candidate.changes).decode(), mapping.is_secret))


@dataclass
class RowWriter:
    """Writes the rows of one chunk; what is the same for all of them is kept here."""

    account_id: str
    mapping: Mapping
    revision: int
    shape: Shape

    def __post_init__(self) -> None:
        self._account = self.account_id.encode()
        self._users: dict[tuple[bytes, bytes], bytes] = {}  # no more than a chunk has
        self._tail = b', "mapping_revision": ' + str(self.revision).encode() + b"}"

    def line(self, candidate: Candidate) -> bytes:
        """The COPY line, without its end. Raises where the candidate cannot become a row."""
        if candidate.actor is None or candidate.contact_id is None:
            raise ValueError("a candidate without actor or contact is no row")
        key = row_id(candidate.person_id, candidate.audit_id).encode()
        contact, category, audit = candidate.contact_id.encode(), candidate.category.encode(), str(candidate.audit_id).encode()
        actor, actor_digest = actor_fields(candidate.actor)
        scalars = (key, self._account, contact, category, actor_digest, candidate.occurred_at, audit, b"crm_migration")
        fields = (
            key,
            contact,
            category,
            actor,
            candidate.occurred_at,
            audit,
            md5(SEPARATOR.join(scalars), usedforsecurity=False).hexdigest().encode(),
            stored_changes(candidate, self.mapping),
            self.context(candidate),
            copytext.NULL if candidate.live_category is None else candidate.live_category.encode(),
        )
        return b"\t".join(fields)

    def context(self, candidate: Candidate) -> bytes:
        """What the audit said besides its changes, as recorded: overrides and look-ups never alter it."""
        parts = [
            what(candidate.action, candidate.class_name),
            self.number(candidate.record_id, self.shape.record_id),
            self.who(candidate.user_type, candidate.user_id),
            candidate.comment,
        ]
        if candidate.fallthrough:
            parts.append(b', "fallthrough": ' + json_field(candidate.fallthrough))
        if candidate.associations:
            parts.append(
                b"".join(
                    b", " + json_field(k) + b": " + copytext.write(json.dumps(v, ensure_ascii=False))
                    for k, v in candidate.associations.items()
                )
            )
        return b"".join(parts) + self._tail

    def who(self, user_type: bytes, user_id: bytes) -> bytes:
        """The context from the record's id to the comment, kept for each user."""
        known = self._users.get((user_type, user_id))
        if known is None:
            known = (
                b', "user_type": '
                + json_field(copytext.read(user_type))
                + b', "user_id": '
                + self.number(user_id, self.shape.user_id)
                + b', "comment": '
            )
            self._users[user_type, user_id] = known
        return known

    def number(self, field: bytes, column_type: str) -> bytes:
        """An id as JSON: a number where the column holds numbers, else text."""
        if field == copytext.NULL:
            return b"null"
        return field if column_type in INTEGERS else json_field(copytext.read(field))
