"""Time by step, for one run that is not used for anything else: a clock that always runs for one step, switched at every border.

Steps are generators that pull on each other, so each pull is such a border; that itself costs about a microsecond a row and step, and so
shares are to be read, not sums.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from migration import boundary, chunks, link_reader, links, steps, worlds
from migration.pipeline import flow, load

GENERATORS: dict[str, tuple[Any, str]] = {  # step -> where its generator function is found
    "extract": (flow, "extract"),
    "resolve": (flow, "resolve_contacts"),
    "map actors": (flow, "map_actors"),
    "map categories": (flow, "map_categories"),
    "enrich": (flow, "enrich_associations"),
    "write rows": (load, "lines"),
}
FUNCTIONS: dict[str, tuple[Any, str]] = {
    "look up links": (link_reader.Reader, "of"),
    "look up organisations": (flow, "organisations"),
    "look up names": (flow, "namings"),
    "COPY into staging": (flow, "stage"),
    "load": (flow, "load"),
    "verify chunk": (flow, "verify"),
    "claim, finish": (chunks, "claim"),
    "open doors": (worlds, "world"),
    "plan": (steps, "plan"),
    "link index": (links, "up_to_date"),
    "verify run": (steps.reconcile, "verify_run"),
    "boundary audit": (boundary, "compare_both"),
}


class Clock:
    """Seconds by step; `enter` and `leave` switch to a step and back."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.stack = ["rest"]
        self.since = time.perf_counter()

    def switch(self) -> None:
        now = time.perf_counter()
        self.spent[self.stack[-1]] += now - self.since
        self.since = now

    def enter(self, step: str) -> None:
        self.switch()
        self.stack.append(step)

    def leave(self) -> None:
        self.switch()
        self.stack.pop()


@contextmanager
def installed(wanted: bool) -> Iterator[dict[str, float]]:
    """Time the steps while the block runs; yields seconds by step, empty where nothing is wanted."""
    clock = Clock()
    if not wanted:
        yield {}
        return
    before: list[tuple[Any, str, Any]] = [
        (place, name, getattr(place, name)) for place, name in [*GENERATORS.values(), *FUNCTIONS.values()]
    ]
    for step, (place, name) in GENERATORS.items():
        setattr(place, name, pulled(clock, step, getattr(place, name)))
    for step, (place, name) in FUNCTIONS.items():
        setattr(place, name, called(clock, step, getattr(place, name)))
    try:
        yield clock.spent
    finally:
        clock.switch()
        for place, name, original in before:
            setattr(place, name, original)


def called(clock: Clock, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **named: Any) -> Any:
        clock.enter(step)
        try:
            return function(*args, **named)
        finally:
            clock.leave()

    return timed


def pulled(clock: Clock, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **named: Any) -> Iterator[Any]:
        inner = function(*args, **named)
        try:
            while True:
                clock.enter(step)
                try:
                    value = next(inner)
                except StopIteration:
                    return
                finally:
                    clock.leave()
                yield value
        finally:
            inner.close()

    return timed
