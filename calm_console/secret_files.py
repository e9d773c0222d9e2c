"""Secrets in files: Docker and Kubernetes hand them out so. NAME_FILE names the file, in NAME's place."""

from collections.abc import MutableMapping
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

SECRETS = (
    "SECRET_KEY",
    "DATABASE_URL",
    "CRM_DATABASE_URL",
    "CDP_DATABASE_URL",
    "REDIS_URL",
    "EMAIL_URL",
    "NOTIFY_WEBHOOK_SECRET",
    "METRICS_TOKEN",
    "SENTRY_DSN",
)


def read(variables: MutableMapping[str, str]) -> None:
    """Set each secret that a file is named for; the settings and the embedded servers then find it as if it had been given."""
    for name in SECRETS:
        path = variables.get(f"{name}_FILE", "").strip()
        if path:
            variables[name] = secret(name, Path(path), variables.get(name, "").strip())


def secret(name: str, path: Path, given: str) -> str:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{name}_FILE names {path}, which cannot be read ({type(error).__name__}): correct it.") from error
    if not text:
        raise ImproperlyConfigured(f"{name}_FILE names {path}, which is empty: write the secret into it.")
    if given not in ("", text):  # alike in a process that another of ours started
        raise ImproperlyConfigured(f"{name} and {name}_FILE are both set, and differ: unset one of them.")
    return text
