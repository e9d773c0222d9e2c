"""/metrics for Prometheus: what the ledger says, read at each scrape, and what this process counted of its calls.

The ledger's readers are named in settings.METRICS_SOURCES; each is called with `now` and gives metric families.
"""

import hmac
import logging
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.module_loading import import_string
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from calm_console import faults

log = logging.getLogger(__name__)
STATEMENT_TIMEOUT = "5s"


def view(request: HttpRequest) -> HttpResponse:
    """The page, for whoever has METRICS_TOKEN as bearer token; without one in the settings there is no such page."""
    if not settings.METRICS_TOKEN:
        return HttpResponse(status=404)
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {settings.METRICS_TOKEN}".encode()):
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    return HttpResponse(generate_latest(calls()) + generate_latest(ledger()), content_type=CONTENT_TYPE_LATEST)


def calls() -> CollectorRegistry:
    """What processes counted: this one alone, or with METRICS_FOLDER all that share it."""
    if not settings.METRICS_FOLDER:
        return REGISTRY
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Folder(Path(settings.METRICS_FOLDER)))
    return registry


def ledger() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Ledger())
    return registry


class Folder(Collector):
    """The sums of every process's file; one folder for each host, as process ids are alike in containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterator[Metric]:
        yield from MultiProcessCollector.merge([str(file) for file in sorted(self.folder.glob("*/*.db"))])


class Ledger(Collector):
    """The console's database in one snapshot, and whether it answered. A scrape never waits long for it."""

    def collect(self) -> Iterator[Metric]:
        try:
            found = snapshot()
        except DatabaseError as error:
            log.warning("metrics without the ledger: %s", faults.sentence("DATABASE_URL", error))
            found = []
        yield GaugeMetricFamily("calm_ledger_up", "Whether the console's database answered this scrape.", value=bool(found))
        yield from found


def snapshot() -> list[Metric]:
    now = timezone.now()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
        return [family for source in settings.METRICS_SOURCES for family in import_string(source)(now=now)]
