"""Many accounts at once: what the console's own database has to bear. Times the account sync, a batch's beat and the pages that staff look at."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import time as clock_time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from migration import accounts, batch_plans, beats, reaper
from migration.bench.build import SQL
from migration.bench.meter import Meter
from migration.cdp import Cdp
from migration.models import Account, Run
from migration.pipeline.records import Receipt
from migration.windows import Window

PAGES = ("account", "run", "chunk", "event", "batch", "quarantinedcandidate")


def estate(options: dict[str, Any], clock: Meter) -> Callable[[], dict[str, Any]]:
    """See migration.bench.tasks. The CDP gets the accounts, the console two finished runs of each."""
    with closing(Cdp()) as cdp:
        cdp.connection.execute(
            "INSERT INTO accounts SELECT md5('estate ' || n)::uuid, 100000 + n, 'Account ' || n FROM generate_series(1, %s) n",
            (options["accounts"],),
        )

    def work() -> dict[str, Any]:
        return {"rows": options["accounts"], "estate": dict(everything(options["accounts"]))}

    return work


def everything(number: int) -> Iterator[tuple[str, dict[str, float]]]:
    now = timezone.now()
    yield "first sync", timed(lambda: accounts.sync(now=now))
    yield "second sync", timed(lambda: accounts.sync(now=now))
    fill()
    most = min(number, batch_plans.MOST_ACCOUNTS)
    wish = batch_plans.Plan(
        "bench",
        list(Account.objects.filter(crm_organization_id__gt=100_000)[:most]),
        Window(frozenset(range(7)), clock_time(), clock_time(), "UTC"),
    )
    yield f"plan a batch of {most}", timed(lambda: batch_plans.plan(wish, by="bench", now=now))
    yield "its first beat, customers told", timed(lambda: beats.advance(now=now))
    yield "a later beat", timed(lambda: beats.advance(now=now + timedelta(minutes=1)))
    yield "the tick's look for dead workers", timed(reaper.reap)
    yield "the tick's look for runs with work", timed(lambda: list(Run.objects.workable().select_related("account")))
    settings.ALLOWED_HOSTS = ["*"]
    client = Client()
    client.force_login(User.objects.create_superuser("bench"))
    for url in ("admin:index", *(f"admin:migration_{page}_changelist" for page in PAGES)):
        yield f"page {url}", timed(lambda url=url: client.get(reverse(url), secure=True))  # type: ignore[misc]


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds and queries."""
    queries = 0

    def counted(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(*arguments)

    with connection.execute_wrapper(counted):
        begun = time.monotonic()
        answer = work()
        spent = time.monotonic() - begun
    if getattr(answer, "status_code", 200) != 200:
        raise RuntimeError(f"a page answered {answer.status_code}")
    return {"seconds": round(spent, 3), "queries": queries}


def fill() -> None:
    """A dry run and a production run of each account, with a few chunks each."""
    with connection.cursor() as cursor:
        cursor.execute((SQL / "estate.sql").read_text(), {"receipt": json.dumps(Receipt(written=8_333).as_json())})
