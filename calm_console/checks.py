"""The console's own system checks: settings that each may be right, and together are not. `manage.py check` tells them with a hint."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from calm_console.security import LOCAL_HOSTS


def consistent(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """All of them; they read settings only and reach no server."""
    return [*debug_is_local(), *key_is_given(), *nothing_is_embedded(), *systems_differ()]


def debug_is_local() -> Iterator[CheckMessage]:
    if settings.DEBUG and is_reached_by_others():
        yield Error(
            f"DEBUG is on, and ALLOWED_HOSTS lets others in ({', '.join(settings.ALLOWED_HOSTS)}).",
            hint="Unset DEBUG: its error pages show settings and data to whoever makes an error.",
            id="calm.E001",
        )


def key_is_given() -> Iterator[CheckMessage]:
    """One machine may keep the key that it made; its pages are served to itself alone."""
    if not settings.DEBUG and not settings.SECRET_KEY_IS_GIVEN and "DATABASE_URL" not in settings.EMBEDDED and is_reached_by_others():
        yield Error(
            "SECRET_KEY is not set, so each host makes one of its own.",
            hint="Set SECRET_KEY or SECRET_KEY_FILE to the same long random text on every host.",
            id="calm.E002",
        )


def nothing_is_embedded() -> Iterator[CheckMessage]:
    if settings.EMBEDDED and not settings.DEBUG and is_reached_by_others():
        yield Error(
            f"Embedded servers are used ({', '.join(sorted(settings.EMBEDDED))}), though ALLOWED_HOSTS lets others in.",
            hint="Set these URLs: the embedded servers are for a demo on one machine.",
            id="calm.E003",
        )


def systems_differ() -> Iterator[CheckMessage]:
    console, crm, cdp = (database(url) for url in (settings.DATABASE_URL, settings.CRM_DATABASE_URL, settings.CDP_DATABASE_URL))
    if crm and crm == cdp:
        yield Error(
            f"CRM_DATABASE_URL and CDP_DATABASE_URL name the same database ({crm[2]} on {crm[0]}).",
            hint="Correct one of them: what is read from the one is written to the other.",
            id="calm.E004",
        )
    if console and console in (crm, cdp):
        yield Warning(
            f"DATABASE_URL names the database of the {'CRM' if console == crm else 'CDP'} ({console[2]} on {console[0]}).",
            hint="Give the console a database of its own: its backup is restored without touching what customers see.",
            id="calm.W005",
        )


def database(url: str) -> tuple[str, int, str] | None:
    """Host, port and database, as far as they are given; None for what is no such URL, of which its own use complains."""
    try:
        parts = urlsplit(url)
        name = parts.path.strip("/")
        return ((parts.hostname or "").lower(), parts.port or 5432, name) if name else None
    except ValueError:
        return None


def is_reached_by_others() -> bool:
    return not {*settings.ALLOWED_HOSTS} <= LOCAL_HOSTS
