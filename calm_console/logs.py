"""Log lines: one JSON object each where machines read them, plain lines where people do; both with what is bound to the work in hand.

`request` is bound here for each request; run, account and chunk are bound where they are worked on (tasks.py, steps.py).
"""

import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any
from uuid import uuid4

import structlog
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars

FORMATS = ("plain", "json")
# psycopg's and httpx's INFO lines say nothing that a run's events do not, and httpx's hold URLs.
# A retry is no news; that all of them failed is said by whoever asked.
QUIETER = {name: {"level": "WARNING"} for name in ("httpx", "httpcore", "psycopg", "psycopg.pool")} | {"stamina": {"level": "ERROR"}}
# Up to the end of one exception's text; what is quoted may go over several lines.
ROWS = re.compile(r"\n(?:DETAIL|CONTEXT): .*?(?=\n\n(?:The above exception|During handling)|\Z)", re.DOTALL)
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
Handler = Callable[[HttpRequest], HttpResponse]


def configuration(level: str, form: str, *, debug: bool) -> dict[str, Any]:
    """Django's LOGGING. `form` is plain or json; "" is json, but plain while DEBUG is on and on a terminal."""
    if form not in ("", *FORMATS):
        raise ImproperlyConfigured(f"LOG_FORMAT must be plain or json, not {form[:40]!r}.")
    chosen = form or ("plain" if debug or sys.stderr.isatty() else "json")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"()": Plain}, "json": {"()": as_json}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": chosen}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": QUIETER,
    }


class Plain(logging.Formatter):
    """`time LEVEL logger: message [run=1 chunk=2]`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler's, with everything in it
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        bound = " ".join(f"{key}={value}" for key, value in sorted(get_contextvars().items()))
        return super().formatMessage(record) + (f" [{bound}]" if bound else "")

    def formatException(self, ei: Any) -> str:
        return without_rows(super().formatException(ei))


def as_json() -> logging.Formatter:
    """Time (UTC), level, logger, event, what is bound, and with an error its traceback, as one line."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            without_rows_in_exception,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def without_rows_in_exception(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "exception" in event:
        event["exception"] = without_rows(event["exception"])
    return event


def without_rows(traceback: str) -> str:
    """A traceback less what PostgreSQL quotes of rows: people's names and texts do not belong in a log."""
    return ROWS.sub(r"\n(what PostgreSQL says of the row is left out)", traceback)


def request_ids(get_response: Handler) -> Handler:
    """Middleware: every line of a request has its id; the proxy's X-Request-ID where it sent a sound one. The answer names it too."""

    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        name = given if REQUEST_ID.fullmatch(given) else str(uuid4())
        with bound_contextvars(request=name):
            response = get_response(request)
        response.headers["X-Request-ID"] = name
        return response

    return middleware
