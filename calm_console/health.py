"""What machines ask the web process: /healthz (does it run), /readyz (can it work), /metrics (how does it go).

They are answered before any other middleware: a prober calls by address, which ALLOWED_HOSTS does not name, and without TLS.
"""

import threading
from collections.abc import Callable
from datetime import datetime
from functools import cache
from queue import Empty, SimpleQueue

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.module_loading import import_string

from calm_console import faults, metrics

PATIENCE = 1.0  # seconds, for each check
MOST_SECONDS_SINCE_TICK = 180  # three ticks
Handler = Callable[[HttpRequest], HttpResponse]


def answering(get_response: Handler) -> Handler:
    """The middleware."""

    def middleware(request: HttpRequest) -> HttpResponse:
        answer = PATHS.get(request.path_info)
        if answer is None:
            return get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
        response = answer(request)
        response.headers["Cache-Control"] = "no-store"
        return response

    return middleware


def healthz(request: HttpRequest) -> HttpResponse:
    """That this process answers; nothing else is asked, so an outage elsewhere gets no process restarted."""
    return JsonResponse({"ok": True})


def readyz(request: HttpRequest) -> HttpResponse:
    """Each check with `ok` and `why`; 503 where one fails. `?exclude=NAME`, as often as you like, leaves checks out."""
    asked = {name: check for name, check in CHECKS.items() if name not in request.GET.getlist("exclude")}
    whys = {name: check.why() for name, check in asked.items()}
    checks = {name: {"ok": not why, "why": why} for name, why in whys.items()}
    ok = not any(whys.values())
    return JsonResponse({"ok": ok, "checks": checks}, status=200 if ok else 503)


class Check:
    """A question that may hang, asked in a thread of its own and waited for PATIENCE seconds; never two at once, however often one asks."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self.ask = ask
        self._busy = threading.Lock()

    def why(self) -> str:
        """What is amiss, in words; "" where nothing is."""
        if not self._busy.acquire(timeout=PATIENCE):
            return "an earlier check still waits for the answer"
        answer: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=self._work, args=(answer,), daemon=True).start()
        try:
            return answer.get(timeout=PATIENCE)
        except Empty:
            return f"no answer within {PATIENCE:g} s"

    def _work(self, answer: "SimpleQueue[str]") -> None:
        try:
            answer.put(self.ask())
        except DatabaseError as error:
            answer.put(faults.sentence("DATABASE_URL", error, schema_cure="run `manage.py migrate` with the same DATABASE_URL"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer must say so; its text could hold a password
            answer.put(type(error).__name__)
        finally:
            connection.close()  # this thread's own
            self._busy.release()


def database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def schema() -> str:
    applied = MigrationRecorder(connection).applied_migrations()
    missing = [".".join(leaf) for leaf in newest_schema() if leaf not in applied]
    return f"schema migrations are not applied ({', '.join(missing)}): run `manage.py migrate`" if missing else ""


@cache
def newest_schema() -> list[tuple[str, str]]:
    """The last schema migration of each app in this release."""
    return sorted(MigrationLoader(None).graph.leaf_nodes())


def broker() -> str:
    """Redis, asked as the workers' queue is: over a new connection."""
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        return f"REDIS_URL: the broker does not answer ({type(error).__name__})"
    return ""


def tick() -> str:
    """The last tick: where it is old, beat, the broker or every worker is away."""
    last: datetime | None = import_string(settings.LAST_TICK)()
    if last is None:
        return "no tick has ended yet: start beat and a worker"
    age = (timezone.now() - last).total_seconds()
    return f"the last tick ended {age:.0f} s ago: see whether beat and a worker run" if age > MOST_SECONDS_SINCE_TICK else ""


CHECKS = {"database": Check(database), "schema": Check(schema), "broker": Check(broker), "tick": Check(tick)}
PATHS: dict[str, Handler] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics.view}
