"""What a batch's page tells, and the one on which it is planned: what would start when, in the batch's own time zone and in UTC."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from migration import batch_limits, batches, forecast, windows
from migration.admin.batch_form import CLOSES, WORKS
from migration.batch_plans import Plan, window_of
from migration.forecast import Place, Terms
from migration.models import Batch, BatchItem
from migration.states import OPEN_ITEM, AtClose, BatchState, BatchWork, ItemState, RunMode
from migration.windows import Window

MOST_ROWS = 200
MOST_EVENTS = 50
MOST_OPENINGS = 4

# What a state means where the batch itself gives no reason.
MEANING = {
    BatchState.PLANNED: "It begins by itself when its window opens.",
    BatchState.RUNNING: "Its accounts start as the window, the limits and those before them let them.",
    BatchState.PAUSED: "It is paused until a person resumes it.",
    BatchState.STOPPED: "It was stopped; a person has to look, and resume or cancel it.",
    BatchState.DONE: "All its accounts have ended.",
    BatchState.CANCELLED: "It was cancelled.",
}


def of(batch: Batch, *, now: datetime) -> dict[str, Any]:
    """The page's parts, by the names that its template uses."""
    items = batches.items_of(batch)
    window = window_of(batch)
    goes_on = batch.state in (BatchState.PLANNED, BatchState.RUNNING)
    return {
        "sentence": sentence(batch, window, now=now),
        "counts": batch_limits.in_words(items),
        "done": sum(item.state not in OPEN_ITEM for item in items),
        "total": len(items),
        "is_live": batch.state in (BatchState.PLANNED, BatchState.RUNNING),
        "window": window,
        "openings": list(openings(window, now=now)) if goes_on else [],
        "work": WORKS[BatchWork(batch.work)],
        "at_close": CLOSES[AtClose(batch.at_close)],
        "rows": list(islice(rows(items, batch, goes_on=goes_on, now=now), MOST_ROWS)),
        "more": max(0, len(items) - MOST_ROWS),
        "verbs": batches.possible(batch),
        "events": batch.events.select_related("run__account", "account").order_by("-id")[:MOST_EVENTS],
        "undone": len(undone(items)),
    }


def undone(items: list[BatchItem]) -> list[int]:
    """Organisation ids of the accounts that ended without being done."""
    return [item.account.crm_organization_id for item in items if item.state not in (*OPEN_ITEM, ItemState.DONE)]


def sentence(batch: Batch, window: Window, *, now: datetime) -> str:
    """The batch's reason, or what its state means; and when the window opens that it waits for."""
    said = batch.reason or MEANING[BatchState(batch.state)]
    if batch.state not in (BatchState.PLANNED, BatchState.RUNNING) or windows.is_open(window, now):
        return said
    opens = windows.next_opening(window, now)
    return f"{said} The window is closed{f' until {opens.start:%Y-%m-%d %H:%M} UTC' if opens else ''}."


def openings(window: Window, *, now: datetime) -> Iterator[dict[str, Any]]:
    """The next openings as `{"start", "end", "here_start", "here_end", "is_now"}`, `here` being the window's time zone."""
    for each in islice(windows.openings(window, now), 1 if window.is_always_open else MOST_OPENINGS):
        here = {"here_start": local(each.start, window), "here_end": local(each.end, window)}
        yield {"start": each.start, "end": each.end, "is_now": now in each} | here


def local(moment: datetime | None, window: Window) -> str:
    return f"{moment.astimezone(ZoneInfo(window.zone)):%a %d %b %Y %H:%M}" if moment else ""


def here(place: Place, window: Window) -> dict[str, str]:
    return {"here": local(place.start, window), "here_end": local(place.end, window)}


def rows(items: list[BatchItem], batch: Batch, *, goes_on: bool, now: datetime) -> Iterator[dict[str, Any]]:
    """One for each account: the item, and where it goes on when it starts and how long it takes."""
    window = window_of(batch)
    found: list[Place | None] = [None] * len(items)
    if goes_on:
        terms = Terms(window, batch.at_once, batch.canary, AtClose(batch.at_close))
        found = [*forecast.places(forecast.works(items, BatchWork(batch.work), now=now), terms, now=now)]
    for item, place in zip(items, found, strict=True):
        told = place if item.state in OPEN_ITEM else None
        runs = [run for run in (item.dry_run, item.production) if run]
        yield {"item": item, "runs": runs, "place": told} | (here(told, window) if told else {})


def outlook(plan: Plan, *, now: datetime) -> dict[str, Any]:
    """What would start when, if it were planned now."""
    items = [BatchItem(position=number, account=account) for number, account in enumerate(plan.accounts, 1)]
    terms = Terms(plan.window, plan.at_once, plan.canary, plan.at_close)
    found = forecast.places(forecast.works(items, plan.work, now=now), terms, now=now)
    rehearsed = forecast.rehearsals(plan.accounts, now=now)
    shown = [
        {
            "position": item.position,
            "account": item.account,
            "runs": ", then ".join(named(mode) for mode in forecast.modes_of(plan.work, item.account_id in rehearsed)),
            "place": place,
        }
        | here(place, plan.window)
        for item, place in zip(items, found, strict=True)
    ]
    whole = forecast.total(place.takes for place in found)
    return {
        "rows": shown[:MOST_ROWS],
        "more": max(0, len(shown) - MOST_ROWS),
        "window": plan.window,
        "openings": list(openings(plan.window, now=now)),
        "takes": whole if isinstance(whole, timedelta) else None,
        "ends": max((place.end for place in found if place.end), default=None) if whole is not None else None,
    }


def named(mode: RunMode) -> str:
    return mode.replace("_", " ")
