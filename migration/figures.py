"""Runs, chunks, outcomes, replica and tick as Prometheus metrics. Read only.

Every query here costs the same whatever was moved: it reads runs, summaries (a row for each account) and single rows, and of the chunks only
those of each account's newest run, by index.
"""

from collections.abc import Iterator
from datetime import datetime

from django.conf import settings
from django.db.models import Count, F, Max, Min, Q, Sum
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from migration import budget, ticks
from migration.models import Chunk, ReadBudget, Run, Summary, Tally
from migration.states import ChunkState, RunMode, RunReason, RunState
from migration.tallies import OUTCOMES


def families(*, now: datetime) -> Iterator[Metric]:
    """The metrics of this app; six queries."""
    yield from runs_by_state()
    yield outcomes()
    yield quarantined()
    yield from chunks(now)
    yield from replica(now)
    yield since_tick(now)


def runs_by_state() -> Iterator[Metric]:
    family = GaugeMetricFamily("calm_runs", "Runs by mode and state.", labels=["mode", "state"])
    kept = Q(state__in=(RunState.CANCELLING, RunState.WITHDRAWING), reason_code__in=(RunReason.OUTAGE, RunReason.STOPPED))
    rows = list(Run.objects.order_by().values_list("mode", "state").annotate(number=Count("pk"), kept=Count("pk", filter=kept)))
    found = {(mode, state): number for mode, state, number, _ in rows}
    for mode in RunMode:
        for state in RunState:
            family.add_metric([mode, state], found.get((mode, state), 0))
    yield family
    yield GaugeMetricFamily(
        "calm_runs_kept_from_end", "Runs that something keeps from being cancelled or withdrawn.", value=sum(row[3] for row in rows)
    )


def outcomes() -> Metric:
    family = CounterMetricFamily(
        "calm_outcomes", "Candidates that finished chunks reported, by mode and outcome.", labels=["mode", "outcome"]
    )
    rows = {row.mode: row for row in Tally.objects.all()}
    for mode in RunMode:
        for outcome in OUTCOMES:
            family.add_metric([mode, outcome], getattr(rows.get(mode, Tally()), outcome))
    return family


def quarantined() -> Metric:
    """A partial run has balanced, so what of it is not done is quarantined."""
    left = Summary.objects.filter(run_state=RunState.PARTIAL).aggregate(left=Sum(F("total") - F("done")))["left"]
    return GaugeMetricFamily("calm_quarantined", "Quarantined candidates of the production runs that stand as partial.", value=left or 0)


def chunks(now: datetime) -> Iterator[Metric]:
    """Of each account's newest run: earlier ones no longer matter."""
    newest = Run.objects.order_by().values("account").annotate(newest=Max("pk")).values("newest")
    leased, failed = Q(state=ChunkState.LEASED), Q(state=ChunkState.FAILED)
    found = Chunk.objects.filter(leased | failed, run__in=newest).aggregate(
        leased=Count("pk", filter=leased), failed=Count("pk", filter=failed), ends=Min("lease_expires_at")
    )
    age = settings.LEASE_SECONDS - (found["ends"] - now).total_seconds() if found["ends"] else 0
    yield GaugeMetricFamily("calm_chunks_leased", "Chunks that a worker holds.", value=found["leased"])
    yield GaugeMetricFamily("calm_chunks_failed", "Chunks of each account's newest run that failed for good.", value=found["failed"])
    yield GaugeMetricFamily(
        "calm_oldest_lease_age_seconds", "Since the lease of a chunk was renewed that waits for it longest.", value=max(0, age)
    )


def replica(now: datetime) -> Iterator[Metric]:
    row = ReadBudget.objects.filter(pk=1).first() or ReadBudget()
    if row.lag_seconds is not None:
        yield GaugeMetricFamily("calm_replica_lag_seconds", "How far the CRM's replica is behind, as last measured.", value=row.lag_seconds)
    if row.looked_at is not None:
        age = (now - row.looked_at).total_seconds()
        yield GaugeMetricFamily("calm_replica_lag_age_seconds", "Since the replica's lag was measured.", value=max(0, age))
    yield GaugeMetricFamily("calm_readers_allowed", "Chunks that may be read from the CRM at once now.", value=budget.readers(row))
    yield GaugeMetricFamily("calm_reading_stopped", "Whether staff stopped reading from the CRM.", value=row.stopped_at is not None)


def since_tick(now: datetime) -> Metric:
    """Without a tick there is no sample: alert on its absence."""
    family = GaugeMetricFamily("calm_seconds_since_tick", "Since the last tick ended.")
    if last := ticks.last():
        family.add_metric([], max(0.0, (now - last).total_seconds()))
    return family
