"""How a run gets on, on a terminal as a live bar with rate and ETA, elsewhere as plain lines; always on standard error."""

import math
import sys
import time
from datetime import timedelta

from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from migration import chunks, leases, progress, tasks
from migration.management.output import Output
from migration.models import Run
from migration.states import WORKABLE, RunState

LINE_EVERY = 5.0  # seconds between plain lines where nothing but the count changes
STILL_FOR = 10.0  # seconds until it is nudged again: a lost nudge would otherwise wait for the tick


class Watch:
    def __init__(self, run: Run, out: Output) -> None:
        self.run, self.out = run, out
        self.last_text, self.last_line = "", 0.0
        self.last_stand, self.still_since = ("", 0), time.monotonic()
        self.bar = bar() if sys.stderr.isatty() else None
        self.task = self.bar.add_task("", total=None, about="") if self.bar else None

    def __enter__(self) -> "Watch":
        if self.bar:
            self.bar.start()
        self.show()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or issubclass(kind, Exception):  # stopped from outside, nothing can be asked any more
            self.show(final=True)
        if self.bar:
            self.bar.stop()

    def show(self, *, final: bool = False) -> None:
        """The run's state and progress now; plain lines only where something changed or time passed."""
        done = progress.of(self.run, now=timezone.now())
        about = f"{self.run.state}{' (' + self.run.reason.rstrip('.') + ')' if self.run.reason else ''}"
        if self.last_stand != (about, done.done):
            self.last_stand, self.still_since = (about, done.done), time.monotonic()
        pace = f"{done.rate:,.0f}/s" + (f", about {clock(done.eta)} left" if done.eta and self.run.state == RunState.RUNNING else "")
        if self.bar and self.task is not None:
            label = f"{about}  {done.done:,} of {done.total:,}  {pace}"
            self.bar.update(self.task, completed=done.done, total=done.total or None, description=f"Run {self.run.pk}", about=label)
            return
        if about != self.last_text or final or time.monotonic() - self.last_line > LINE_EVERY:
            line = f"Run {self.run.pk} {about}: {done.done:,} of {done.total:,} audits, chunk {done.chunks_done} of {done.chunks}, {pace}"
            if not final or about != self.last_text:
                self.out.aside(line)
            self.last_text, self.last_line = about, time.monotonic()

    def waiting(self) -> None:
        """Say what an inline run waits for."""
        held = self.run.chunks.filter(state="leased").order_by("lease_expires_at").first()
        owner = held.lease_owner if held else self.run.lease_owner
        if owner and time.monotonic() - self.last_line > LINE_EVERY:
            self.out.aside(
                f"Run {self.run.pk} waits for {owner}, whose lease runs out within {chunks.lease().seconds} seconds unless it is alive."
            )
            self.last_line = time.monotonic()

    def renudge(self) -> None:
        """Nudge again where the run stands still and nobody is at it, and say what may be missing, unless the run itself says what it waits for.

        Between two chunks nobody holds one, so a single look tells nothing.
        """
        if self.run.state not in WORKABLE or time.monotonic() - self.still_since < STILL_FOR or leases.is_held(self.run):
            return
        self.still_since = time.monotonic()
        if not tasks.nudge_all(self.run):
            self.out.aside(f"The broker at REDIS_URL does not answer: run {self.run.pk} waits until a worker can be asked for.")
        elif not self.run.reason:
            self.out.aside(f"No worker is at run {self.run.pk}: start one with `celery -A calm_console worker`, or use --inline.")


def bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[about]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def clock(span: timedelta) -> str:
    """A span as people say it; seconds are rounded up, so that what takes a moment takes no "0 s"."""
    seconds = math.ceil(span.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60} min"
