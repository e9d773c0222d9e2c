"""Has a probe measure and stores what it found: the only writer of Evidence."""

import hashlib
import json
import time
from datetime import datetime, timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

from django.db import connection, transaction

from gates.catalogue import Gate
from gates.models import Evidence
from gates.probes import Finding, Measurement
from migration import events
from migration.doors import Misconfigured
from migration.mapping_checks import MappingError
from migration.models import Account
from migration.pipeline.lookups import UNSTORABLE


def probe(gate: Gate, account: Account | None, *, by: str, now: datetime) -> Evidence:
    """Measure a gate (`account` for one that is asked for each account, else None) and store the evidence.

    Raises Outage where a system does not answer; what is set up wrong is evidence too, and fails.
    """
    stored = None
    while stored is None:
        before = newest_of(gate, account)
        settled = configuration(gate, account)
        found, seconds = measured(gate, account)
        stored = store_unless_overtaken(gate, account, before, settled, found, seconds, by=by, now=now)
        now += timedelta(seconds=seconds)
    return stored


def probe_unless_same(gate: Gate, account: Account | None, newest: Evidence, *, fresh_since: datetime, by: str, now: datetime) -> None:
    """Measure again, and store it only where it says something else than `newest`, or that is older than `fresh_since`."""
    settled = configuration(gate, account)
    found, seconds = measured(gate, account)
    if digest(settled, found.passes) == newest.digest and newest.measured_at >= fresh_since:
        return
    if store_unless_overtaken(gate, account, newest, settled, found, seconds, by=by, now=now) is None:
        probe(gate, account, by=by, now=now + timedelta(seconds=seconds))


def newest_of(gate: Gate, account: Account | None) -> Evidence | None:
    return Evidence.objects.filter(gate=gate.letter, account=account).defer("facts").order_by("-id").first()


def measured(gate: Gate, account: Account | None) -> tuple[Measurement, float]:
    """What the gate's probe finds, and the seconds that it took."""
    started = time.monotonic()
    try:
        found: Measurement = module(gate).measure(account)
    except (Misconfigured, MappingError) as error:
        found = Measurement([Finding(False, str(error))])
    return found, time.monotonic() - started


def store_unless_overtaken(
    gate: Gate, account: Account | None, before: Evidence | None, settled: dict[str, str], found: Measurement, seconds: float, *,
    by: str, now: datetime,
) -> Evidence | None:  # fmt: skip
    """What `store` makes of it; None where evidence that says something else was stored since `before`.

    A probe may take a minute, and another that began later be stored earlier. The newest one counts, so it has to have begun after all others
    were stored: clocks of several machines would not tell.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            key = f"{gate.letter} {account.pk if account else ''}"
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('gates_evidence'), hashtext(%s))", [key])
        last = newest_of(gate, account)
        if last is not None and last != before and last.digest != digest(settled, found.passes):
            return None
        return store(gate, account, settled, found, seconds, by=by, now=now)


def store(
    gate: Gate, account: Account | None, settled: dict[str, str], found: Measurement, seconds: float, *, by: str, now: datetime
) -> Evidence:
    """Keep what was found; `settled` is what it was measured against, as it was before the measuring began."""
    with transaction.atomic():
        evidence = Evidence.objects.create(
            gate_id=gate.letter, account=account, passes=found.passes, findings=storable([vars(each) for each in found.findings]),
            facts=storable(found.facts), configuration=settled, digest=digest(settled, found.passes), seconds=seconds,
            measured_at=now, measured_by=by,
        )  # fmt: skip
        verdict = "passes" if found.passes else "fails"
        events.record("gate measured", f"{gate}: evidence {evidence.pk} {verdict}", now=now, by=by, account=account)
    return evidence


def storable(value: Any) -> Any:
    """The same JSON with what jsonb refuses in a text (audits hold everything) written as ⟨U+0000⟩."""
    if isinstance(value, str):
        return UNSTORABLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", value)
    if isinstance(value, list | tuple):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return {storable(str(key)): storable(each) for key, each in value.items()}
    return value


def configuration(gate: Gate, account: Account | None) -> dict[str, str]:
    """What the gate's probe would measure against now; one that cannot be read is unlike any that was signed."""
    try:
        found: dict[str, str] = module(gate).configuration(account)
    except (Misconfigured, MappingError) as error:
        return {"configuration": str(error)}
    return found


def digest(settled: dict[str, str], passes: bool) -> str:
    """SHA-256 of what was measured against and of the verdict."""
    return hashlib.sha256(json.dumps([settled, passes], sort_keys=True).encode()).hexdigest()


def module(gate: Gate) -> ModuleType:
    return import_module(f"gates.probes.{gate.probe}")


def reason_why_not(evidence: Evidence) -> str:
    """The first finding that fails, as a sentence without its full stop."""
    failing = [each["sentence"] for each in evidence.findings if each["ok"] is False]
    return failing[0].rstrip(".") if failing else "it found nothing to judge"
