"""Gates as Prometheus metrics. Read only; nothing is measured for a scrape."""

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric

from gates import by_account, standing
from gates.catalogue import GATES


def families(*, now: datetime) -> Iterator[Metric]:
    """Whether each gate is open, and for how many accounts one that is asked for each; the queries do not grow with accounts."""
    shared = GaugeMetricFamily("calm_gate_open", "Whether a gate is open.", labels=["gate"])
    for each in standing.of_all([gate for gate in GATES if not gate.per_account], now=now):
        shared.add_metric([each.rule.letter], each.is_open)
    yield shared
    counted = GaugeMetricFamily("calm_gate_accounts", "Accounts by whether a gate is open for them.", labels=["gate", "open"])
    for gate in (gate for gate in GATES if gate.per_account):
        tally = by_account.tally(gate, now=now)
        counted.add_metric([gate.letter, "yes"], tally.open)
        counted.add_metric([gate.letter, "no"], tally.closed)
    yield counted
