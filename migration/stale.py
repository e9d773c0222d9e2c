"""Removing rows of ours that should not stand there any more, as a run's verification listed them. A person's act, never done by itself."""

import time
from dataclasses import dataclass
from datetime import datetime

from migration import boundary, events, ours, reconcile, runs, worlds
from migration.doors import Outage
from migration.models import Run, StaleRow
from migration.pipeline.flow import World, of_another_tenant
from migration.runs import Refused
from migration.source_audits import source_ids, source_keys
from migration.states import FINISHED, RunState
from migration.withdrawal import KEYS_AT_ONCE, check_may_delete

REMOVE = """
    DELETE FROM contact_activity_logs WHERE id = ANY(%s) AND account_id = %s AND origin = 'crm_migration' RETURNING id"""

STANDS = "SELECT id, contact_id::text FROM contact_activity_logs WHERE id = ANY(%s)"
LINKS_SECONDS = 20.0  # that a page waits for the link index


@dataclass(frozen=True)
class Step:
    """Rows removed, and rows that are listed no more since they are no longer stale, or no longer ours."""

    removed: int
    kept: int


def check(run: Run) -> None:
    """Raise Refused unless this run's list is the one to go by: that of the account's newest production run, and nobody is at work."""
    if not run.writes:
        raise Refused(f"{run} is a dry run: it lists no rows.")
    if run.state not in FINISHED or run.state in (RunState.CANCELLED, RunState.WITHDRAWN):
        raise Refused(f"{run} is {run.state}: stale rows are removed once a run has come to its end.")
    newer = Run.objects.filter(account=run.account, mode=run.mode, pk__gt=run.pk).exclude(state=RunState.CANCELLED).first()
    active = Run.objects.active().filter(account=run.account).first()
    if newer or active:
        raise Refused(f"{newer or active} came after {run}, whose list may be out of date: go by the list of the newest production run.")


def remove(run: Run, *, by: str, now: datetime, most: int = KEYS_AT_ONCE) -> Step:
    """Look at the next rows of the list again, and remove those that are still stale and ours, in one transaction of the CDP.

    Raises Refused, Outage, and Misconfigured where a right is missing.
    """
    check(run)
    listed = list(run.stale_rows.order_by("person_id", "audit_id")[:most])
    with worlds.opened(run) as world:
        check_may_delete(world.cdp)
        bring_links_up_to_date(world)
        still = still_stale(listed, world)
        with world.cdp.transaction() as connection:
            gone = connection.execute(REMOVE, ([row.row_id for row in still], world.account_id)).fetchall()
    StaleRow.objects.filter(pk__in=[row.pk for row in listed]).delete()
    runs.record(run, stale=run.stale_rows.count())
    sentence = f"{len(gone):,} of {len(listed):,} rows that were looked at again; {run.stale or 0:,} are left on the list"
    events.record("stale rows removed", sentence, now=now, by=by, run=run)
    return Step(len(gone), len(listed) - len(gone))


def bring_links_up_to_date(world: World) -> None:
    """Raises Outage where the index takes long to build."""
    try:
        worlds.links_until_now(world.mapping, world.crm, worlds.until(time.monotonic() + LINKS_SECONDS))
    except worlds.OutOfTime:
        raise Outage(
            "The link index is being built anew, which takes a while: a dry run of the account ends it. Then remove the rows."
        ) from None


def still_stale(listed: list[StaleRow], world: World) -> list[StaleRow]:
    """Those whose audit, read afresh, is not a candidate of any contact that the account has now, or another tenant's; or that stand elsewhere.

    What lies beyond the watermark is no candidate, but there a row is still the only one where no live row shows the same (0042).
    """
    found: list[StaleRow] = []
    persons = sorted({row.person_id for row in listed})
    stands = dict(world.cdp.rows(STANDS, ([row.row_id for row in listed],)))
    for start in range(0, len(persons), reconcile.PERSONS_BY_KEY):
        batch = set(persons[start : start + reconcile.PERSONS_BY_KEY])
        claims = world.cdp.contacts_of(world.account_id, sorted(batch))
        strangers = of_another_tenant(list(claims), world)
        wanted = {key for key in {*source_keys(world, list(claims)), *unshown(claims, world)} if key[0] not in strangers}
        at_home = {row.pk for row in listed if stands.get(row.row_id) in claims.get(row.person_id, ())}
        found += [row for row in listed if row.person_id in batch and not ((row.person_id, row.audit_id) in wanted and row.pk in at_home)]
    return found


def unshown(claims: ours.Claims, world: World) -> set[ours.Key]:
    """Audits of these persons beyond the watermark that the live sync does not show either."""
    told = source_ids(world, list(claims), world.links.of(list(claims)))
    near = [each for person, its in told.items() for each in its.near(person)]
    return boundary.gaps(near, ours.of_contacts(world.cdp, world.account_id, claims), world)
