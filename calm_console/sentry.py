"""Errors to Sentry, where SENTRY_DSN names one: off otherwise, and sentry-sdk need not be installed. Nothing of a person leaves.

An event is built anew from what is allowed, rather than cleaned of what is not: what a later release of the SDK adds stays here too.
"""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from structlog.contextvars import get_contextvars

from calm_console import scrubbing

OURS = ("calm_console.", "migration.", "gates.", "status_api.")
PLAIN = ("event_id", "timestamp", "platform", "level", "logger", "transaction", "release", "environment", "server_name", "sdk")
FRAME = ("filename", "module", "function", "lineno", "in_app", "pre_context", "context_line", "post_context")
TAGS = ("run", "account", "chunk", "request")  # ids; see logs.py
Event = dict[str, Any]


def start(dsn: str) -> None:
    """Have unhandled errors and what is logged as an error sent to `dsn`. Raises ImproperlyConfigured where that cannot be."""
    try:
        import sentry_sdk  # here, since it is installed only where it is wanted
    except ImportError as error:
        raise ImproperlyConfigured("SENTRY_DSN is set, but sentry-sdk is not installed: see docs/operations.md.") from error
    try:
        sentry_sdk.init(
            dsn=dsn,
            before_send=allowed,  # type: ignore[arg-type]
            before_breadcrumb=lambda crumb, hint: None,
            send_default_pii=False,
            include_local_variables=False,
            max_request_body_size="never",
            auto_session_tracking=False,
            send_client_reports=False,
            shutdown_timeout=2,
        )
    except sentry_sdk.utils.BadDsn as error:
        raise ImproperlyConfigured("SENTRY_DSN cannot be read: it is https://KEY@HOST/NUMBER.") from error


def allowed(event: Event, hint: Event) -> Event:
    """The event that may leave: where in the code, which class of error, which run; none of what was being handled."""
    kept = {name: event[name] for name in PLAIN if name in event}
    kept["tags"] = {name: str(value) for name, value in get_contextvars().items() if name in TAGS}
    if "logentry" in event:
        kept["logentry"] = {"message": event["logentry"].get("message", "")}  # before its arguments are put in
    if "exception" in event:
        kept["exception"] = {"values": [exception(each) for each in event["exception"].get("values") or []]}
    return blanked(kept)


def exception(found: Event) -> Event:
    """What an error of somebody else's says may quote a row; our own are sentences about systems."""
    module, frames = found.get("module") or "", (found.get("stacktrace") or {}).get("frames") or []
    return {
        "type": found.get("type"),
        "module": module,
        "value": found.get("value") if module.startswith(OURS) else "",
        "stacktrace": {"frames": [{name: frame[name] for name in FRAME if name in frame} for frame in frames]},
    }


def blanked(value: Any) -> Any:
    """Without any secret of the settings and any e-mail address, however deep."""
    if isinstance(value, dict):
        return {name: blanked(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [blanked(each) for each in value]
    return scrubbing.EMAIL.sub(scrubbing.HIDDEN, scrubbing.scrubbed(value)) if isinstance(value, str) else value
