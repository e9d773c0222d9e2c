"""Builds the console's objects in a given state, whole enough for every constraint. Whatever does not matter to a test has a default."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from time import time
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Permission, User
from django.test import Client

from migration.models import Account, Chunk, Event, MappingRevision, QuarantinedCandidate, Run, Waiver
from migration.pipeline.records import Receipt
from migration.states import FINISHED, ChunkState, Reason, RunMode, RunState

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
WATERMARK = dict.fromkeys(("contact", "deal", "task", "ticket", "note"), "2026-03-01T12:00:00+00:00")
numbers = count(1001)  # no organisation of the sample


def superuser(name: str = "root") -> User:
    """Without a password, as hashing one takes long: `client.force_login` needs none."""
    return User.objects.create_superuser(name)


def viewer(*models: str, name: str = "viewer") -> User:
    """Staff who may view these models (by lower-case name), or all of the migration's, and nothing else."""
    user = User.objects.create_user(name, is_staff=True)
    may = Permission.objects.filter(content_type__app_label="migration", codename__startswith="view_")
    user.user_permissions.set(may.filter(codename__in=[f"view_{model}" for model in models]) if models else may)
    return user


def password_typed(client: Client) -> None:
    """As if this person had typed the password again just now, which what cannot be taken back asks for."""
    session = client.session
    session["password_typed_at"] = time()
    session.save()


def account(**fields: Any) -> Account:
    number = next(numbers)
    given = {"cdp_id": uuid4(), "crm_organization_id": number, "name": f"Account {number}", "synced_at": NOON}
    return Account.objects.create(**given | fields)


def mapping(**fields: Any) -> MappingRevision:
    number = next(numbers)
    given = {"number": number, "digest": f"{number:064x}", "document": {"id_sets": {"won": [str(number)]}}, "published_at": NOON}
    return MappingRevision.objects.create(**given | {"published_by": "ana"} | fields)


def run(state: RunState = RunState.SUCCEEDED, mode: RunMode = RunMode.PRODUCTION, **fields: Any) -> Run:
    """A run as planned, and with its times as far as the state has them; `candidates` 10 once it was planned."""
    begun = state != RunState.PLANNED
    given: dict[str, Any] = {
        "uuid": uuid4(),
        "state": state,
        "mode": mode,
        "pipeline_version": 1,
        "capabilities": ["D", "E"],
        "systems": "0" * 64,
        "chunk_size": 10_000,
        "planned_at": NOON,
        "planned_by": "ana",
        "started_at": NOON + timedelta(seconds=1) if begun else None,
        "finished_at": NOON + timedelta(seconds=201) if state in FINISHED else None,
        "candidates": 10 if begun else None,
        "watermark": WATERMARK if begun else None,
    }
    given["account"] = fields.pop("account", None) or account()
    given["mapping_revision"] = fields.pop("mapping_revision", None) or MappingRevision.objects.first() or mapping()
    return Run.objects.create(**given | fields)


def receipt(**counts: Any) -> Receipt:
    """Counters may be given as plain dicts."""
    return Receipt(**{name: Counter(value) if isinstance(value, dict) else value for name, value in counts.items()})


def chunk(of: Run, state: ChunkState = ChunkState.DONE, result: Receipt | None = None, **fields: Any) -> Chunk:
    """The run's next chunk, of ten persons; a done one has a receipt of ten rows written where none is given."""
    number = of.chunks.count() + 1
    given: dict[str, Any] = {"uuid": uuid4(), "run": of, "number": number, "state": state, "expected": 10}
    given |= {"person_from": 10 * number, "person_to": 10 * number + 9}
    if state == ChunkState.DONE:
        done = result or receipt(written=10, categories={"contact/create": 10}, actor_kinds={"user": 10})
        given |= {"receipt": done.as_json(), "seconds": 1.25, "attempts": 1}
    if state == ChunkState.LEASED:
        given |= {"lease_owner": "host:1", "lease_expires_at": NOON, "token": 1, "attempts": 1}
    return Chunk.objects.create(**given | fields)


def quarantined(of: Chunk, reason: Reason = Reason.TIME_MISSING, **fields: Any) -> QuarantinedCandidate:
    number = next(numbers)
    given = {"run": of.run, "account": of.run.account, "chunk": of, "audit_id": number, "person_id": of.person_from, "reason": reason}
    error = "KeyError" if reason == Reason.PROCESSING_FAILED else ""
    return QuarantinedCandidate.objects.create(**given | {"error_class": error} | fields)


def waived(candidate: QuarantinedCandidate, note: str = "the source is lost", by: str = "ana") -> Waiver:
    """The candidate, waived."""
    same = {name: getattr(candidate, name) for name in ("account", "person_id", "audit_id", "reason")}
    candidate.waiver = Waiver.objects.create(**same, note=note, waived_by=by, waived_at=NOON)
    candidate.save(update_fields=["waiver"])
    return candidate.waiver


def event(of: Run | None = None, **fields: Any) -> Event:
    given = {"at": NOON, "by": "ana", "kind": "run planned", "sentence": "planned to running", "run": of}
    return Event.objects.create(**given | {"account": of.account if of else None} | fields)


def verification(**figures: Any) -> dict[str, Any]:
    """As reconcile.Verification stores it: ten candidates, all well."""
    well = {
        "candidates": 10,
        "accounted": 10,
        "missing": 0,
        "stale": 0,
        "sampled": 10,
        "differing": 0,
        "misfits": 0,
        "examples": [],
        "agrees": True,
    }
    return well | figures
