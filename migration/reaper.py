"""The reaper: frees the chunks of workers that did not come back, and ends the database sessions that they left.

A worker that is frozen in the middle of a transaction would go on holding its locks. Which sessions are its own is noted with each claim.
"""

import logging
from contextlib import closing

from migration import chunks, worlds
from migration.cdp import Cdp
from migration.crm import Crm
from migration.doors import Misconfigured, Outage
from migration.models import Chunk, Run
from migration.pipeline.flow import World

log = logging.getLogger(__name__)

ME = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
# A process id alone may be another session's by now.
END = """
    SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a
    JOIN unnest(%s::integer[], %s::timestamptz[]) AS left_over(pid, started) ON a.pid = left_over.pid AND a.backend_start = left_over.started"""


def reap(run: Run | None = None) -> int:
    """Free what is leased beyond its time, in one run or in all, and end the sessions that go with it; the number of chunks freed."""
    freed = chunks.free(run)
    for chunk in freed:
        log.warning("chunk %s of run %s is free again: %s", chunk.number, chunk.run_id, chunk.reason)
    end_sessions(freed)
    return len(freed)


def end_sessions(left: list[Chunk]) -> int:
    """End the sessions of whoever held these chunks; how many there were. Where that cannot be done, the log says so."""
    here = [chunk.sessions for chunk in left if chunk.sessions and chunk.run.systems == worlds.systems()]
    ended = 0
    for system, door in (("cdp", Cdp), ("crm", Crm)):
        sessions = [session for found in here for session in found.get(system, ())]
        if not sessions:
            continue
        try:
            with closing(door()) as opened:
                ended += opened.rows(END, ([pid for pid, _ in sessions], [start for _, start in sessions]))[0][0]
        except (Outage, Misconfigured) as error:
            log.warning("sessions of a worker that did not come back are not ended: %s", error)
    return ended


def sessions_of(world: World) -> chunks.Sessions:
    """What a worker notes with each chunk: the sessions that it works with."""
    return {"crm": [world.crm.rows(ME)[0]], "cdp": [world.cdp.rows(ME)[0]]}
