"""Django's settings. Every environment variable that the console reads is read here, at the top; README lists them."""

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import environ as django_environ
from django.core.exceptions import ImproperlyConfigured

from calm_console import embedded

BASE_DIR = Path(__file__).resolve().parent.parent
env = django_environ.Env()
if (BASE_DIR / ".env").is_file():
    env.read_env(str(BASE_DIR / ".env"))
embedded_urls = embedded.environment(env.ENVIRON)


def url(name: str) -> str:
    """The URL in variable `name`; an unset one is the embedded server's, or '' where there is none to take its place."""
    return env.str(name, default="").strip() or embedded_urls.get(name, "")


def number(name: str, default: int, least: int = 0) -> int:
    """A whole number in variable `name`."""
    text = env.str(name, default="").strip()
    if text and not (text.isdecimal() and int(text) >= least):
        raise ImproperlyConfigured(f"{name} must be a whole number of at least {least}, not {text[:40]!r}.")
    return int(text) if text else default


def secret_key() -> str:
    """SECRET_KEY, or one made at random on first use and kept beside the embedded servers' data (never a constant)."""
    given = env.str("SECRET_KEY", default="")
    if given:
        return given
    kept = BASE_DIR / env.str("CALM_HOME", default=str(BASE_DIR / ".calm")) / "secret_key"
    try:
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            made = kept.with_name(f"secret_key.{os.getpid()}")
            made.touch(mode=0o600)
            made.write_text(token_urlsafe(50))
            with suppress(FileExistsError):  # another process was first: its key counts, and is whole
                kept.hardlink_to(made)
            made.unlink()
    except OSError as error:
        raise ImproperlyConfigured(f"SECRET_KEY is not set, and {kept} cannot be written ({error.strerror}): set SECRET_KEY.") from error
    return kept.read_text()


# --- every environment variable -------------------------------------------------------------------------------------
SECRET_KEY = secret_key()
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

DATABASE_URL = url("DATABASE_URL")
CRM_DATABASE_URL = url("CRM_DATABASE_URL")
CDP_DATABASE_URL = url("CDP_DATABASE_URL")
REDIS_URL = url("REDIS_URL")
USMAN_URL = url("USMAN_URL")
IAG_URL = url("IAG_URL")

CRM_USER_NAME_COLUMN = env.str("CRM_USER_NAME_COLUMN", default="full_name")
CRM_ORGANIZATION_ATTRIBUTE = env.str("CRM_ORGANIZATION_ATTRIBUTE", default="organization_id")
CRM_STATEMENT_TIMEOUT_SECONDS = number("CRM_STATEMENT_TIMEOUT_SECONDS", 300, least=1)
CDP_STATEMENT_TIMEOUT_SECONDS = number("CDP_STATEMENT_TIMEOUT_SECONDS", 300, least=1)
CONNECT_TIMEOUT_SECONDS = number("CONNECT_TIMEOUT_SECONDS", 5, least=1)
USMAN_TIMEOUT_SECONDS = number("USMAN_TIMEOUT_SECONDS", 5, least=1)

SAFETY_LAG_HOURS = number("SAFETY_LAG_HOURS", 24)
SEAM_LAG_SECONDS = number("SEAM_LAG_SECONDS", 10)
CHUNK_SIZE = number("CHUNK_SIZE", 10_000, least=1)
LEASE_SECONDS = number("LEASE_SECONDS", 30, least=1)
WORKERS_PER_RUN = number("WORKERS_PER_RUN", 4, least=1)
TURN_SECONDS = number("TURN_SECONDS", 20, least=1)
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
# --------------------------------------------------------------------------------------------------------------------


def console_database() -> dict[str, object]:
    """DATABASE_URL as Django wants it; only PostgreSQL will do."""
    wanted = "DATABASE_URL must name a PostgreSQL database: postgresql://user:password@host:5432/name."
    if not DATABASE_URL.startswith(("postgresql://", "postgres://")):
        raise ImproperlyConfigured(wanted)
    try:
        config: dict[str, Any] = dict(env.db_url_config(DATABASE_URL))
    except ValueError as error:
        raise ImproperlyConfigured(wanted) from error
    options = config.setdefault("OPTIONS", {})
    options.setdefault("connect_timeout", CONNECT_TIMEOUT_SECONDS)
    return config | {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True}


GATE_POLICY = "gates.policies.decide"

DATABASES = {"default": console_database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "migration",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "calm_console.urls"
WSGI_APPLICATION = "calm_console.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # Finders serve the files straight from the packages: nothing to collect before the demo can show its pages.
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True
SESSION_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS: list[str] = []

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True  # the chunk table is the truth; a result would be a second one
CELERY_TASK_DEFAULT_QUEUE = "calm"
CELERY_TASK_ROUTES = {"migration.*": {"queue": CELERY_TASK_DEFAULT_QUEUE}}
CELERY_TASK_ACKS_LATE = False  # a lost nudge is sent again by the tick; a doubled one would only be work
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5, "socket_connect_timeout": 2, "retry_on_timeout": True}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {"tick": {"task": "migration.tick", "schedule": timedelta(seconds=60), "options": {"expires": 55}}}
CELERY_BEAT_SCHEDULE_FILENAME = env.str("BEAT_SCHEDULE_FILE", default=str(BASE_DIR / ".calm" / "celerybeat-schedule"))

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # psycopg's and httpx's INFO lines say nothing that a run's events do not, and httpx's hold URLs.
    # A retry is no news; that all of them failed is said by whoever asked.
    "loggers": {name: {"level": "WARNING"} for name in ("httpx", "httpcore", "psycopg", "psycopg.pool")} | {"stamina": {"level": "ERROR"}},
}
