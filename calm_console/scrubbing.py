"""Django's reports of errors, on the page of DEBUG and elsewhere, without any secret of the settings: neither by name nor by value."""

import re
from collections.abc import Iterator
from html import escape
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

URLS = ("DATABASE_URL", "CRM_DATABASE_URL", "CDP_DATABASE_URL", "REDIS_URL", "USMAN_URL", "IAG_URL", "EMAIL_URL")
WHOLE = ("SECRET_KEY", "NOTIFY_WEBHOOK_SECRET", "METRICS_TOKEN", "SENTRY_DSN")
HIDDEN = "********"
EMAIL = re.compile(r"[^\s<>\"'(),:;]+@[\w-]+(?:\.[\w-]+)+")
SHORTEST = 4  # a shorter secret would blank half of the page


class Filter(SafeExceptionReporterFilter):
    """Hides settings and variables by their names: Django's own list, and every URL."""

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|_URL|DATABASES|URLS", re.IGNORECASE)


class Reporter(ExceptionReporter):
    """Blanks in the whole report, with its messages and local variables, what is secret in the settings."""

    def get_traceback_html(self) -> SafeString:
        return SafeString(scrubbed(super().get_traceback_html()))  # escaped by the template already  # nosec B703

    def get_traceback_text(self) -> SafeString:
        return SafeString(scrubbed(super().get_traceback_text()))  # plain text  # nosec B703


def scrubbed(report: str) -> str:
    for secret in sorted({*secrets()}, key=len, reverse=True):
        for written in (secret, escape(secret), repr(secret)[1:-1]):
            report = report.replace(written, HIDDEN)
    return report


def secrets() -> Iterator[str]:
    """Every secret of the settings, as it is written in a URL and as it is meant. A webhook's path and query are one too."""
    found = [getattr(settings, name, "") for name in WHOLE]
    for name in URLS:
        found.append(urlsplit(getattr(settings, name, "")).password or "")
    hook = urlsplit(settings.NOTIFY_WEBHOOK_URL)
    found += [hook.password or "", hook.path, hook.query]
    for secret in found:
        yield from (text for text in (secret, unquote(secret)) if len(text) >= SHORTEST)
