"""Two lanes of one worker: while one loads its chunk into the CDP, the other reads and maps the next.

Reading is the replica's work and Python's, loading is the CDP's: one after the other, each would wait for the other. A lane has sessions of its
own, but only one lane reads at a time, and only one loads: of either server a worker asks no more at once than it would with one lane.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from contextvars import copy_context
from dataclasses import replace

from django.db import connection
from structlog.contextvars import bound_contextvars

from migration import attempts, chunks, reaper
from migration.cdp import Cdp
from migration.crm import Crm
from migration.doors import Outage
from migration.models import Chunk
from migration.pipeline.flow import World

log = logging.getLogger(__name__)
Claim = Callable[[World, chunks.Sessions], Chunk | None]  # None: there is nothing to claim at the moment


class Lanes:
    """One turn of a worker at a run's chunks: `work` goes on until none is to be had, the turn is over or a lane failed."""

    def __init__(self, claim: Claim, *, owner: str, turn_ends: float) -> None:
        self.claim, self.owner, self.turn_ends = claim, owner, turn_ends
        self.reading, self.loading, self.claiming = threading.Lock(), threading.Lock(), threading.Lock()
        self.over = False
        self.error: Exception | None = None  # what ended the second lane

    def work(self, world: World, *, ahead: bool) -> None:
        """Work in this thread, and with `ahead` in a second one. Raises what either lane raised, once both have ended.

        SystemExit and KeyboardInterrupt go on to the caller at once: the second lane claims nothing more, and what it holds is the caller's
        to let go of.
        """
        second = threading.Thread(target=copy_context().run, args=(self.work_ahead, world), name="second lane", daemon=True)
        if ahead:
            second.start()
        try:
            self.chunk_by_chunk(world)
        except Exception:
            self.over = True
            self.join(second)
            raise
        except BaseException:
            self.stop()
            raise
        self.join(second)
        if self.error:
            raise self.error

    def join(self, second: threading.Thread) -> None:
        if second.ident is not None:
            try:
                second.join()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Once this returns, no lane claims anything any more; but a claim that takes longer than that is left to its lease."""
        self.over = True
        if self.claiming.acquire(timeout=5):
            self.claiming.release()

    def work_ahead(self, world: World) -> None:
        """The second lane, in its own thread. What is looked up and kept for the run is the first one's: only one lane reads at a time."""
        try:
            with ExitStack() as stack:
                try:
                    crm, cdp = stack.enter_context(closing(Crm())), stack.enter_context(closing(Cdp()))
                except Outage as error:  # its role may have too few connections; should the server be away, the first lane says so
                    log.warning("one lane only: %s", error)
                    return
                self.chunk_by_chunk(replace(world, crm=crm, cdp=cdp))
        except Exception as error:  # noqa: BLE001 - the first lane's thread raises it
            self.error = error
            self.over = True
        finally:
            connection.close()

    def chunk_by_chunk(self, world: World) -> None:
        sessions = reaper.sessions_of(world)
        while time.monotonic() < self.turn_ends:
            with Passage(self.reading, self.loading) as passage:
                with self.claiming:
                    chunk = None if self.over else self.claim(world, sessions)
                if chunk is None:
                    return
                with bound_contextvars(chunk=chunk.number):
                    if chunk.attempts > 1:
                        with chunks.heartbeat(chunk):
                            passage.go_alone()
                    attempts.process(chunk, world, owner=self.owner, staged=passage.load)


class Passage:
    """A chunk's way through a worker: reading, then loading, each shared with the other lane.

    A chunk that was tried before goes alone: should it kill the process, no other chunk's attempt is lost with its own.
    """

    def __init__(self, reading: threading.Lock, loading: threading.Lock) -> None:
        self.reading, self.loading = reading, loading
        self.held: list[threading.Lock] = []

    def __enter__(self) -> "Passage":
        self.take(self.reading)
        return self

    def __exit__(self, *_: object) -> None:
        while self.held:
            self.held.pop().release()

    def take(self, lock: threading.Lock) -> None:
        lock.acquire()
        self.held.append(lock)

    def go_alone(self) -> None:
        """Wait until the other lane has loaded its chunk; it reads no other until this one is done."""
        self.take(self.loading)

    def load(self) -> None:
        """Reading is done: the other lane may read, and this one loads once the other has."""
        if self.loading not in self.held:
            self.held.pop().release()
            self.take(self.loading)
