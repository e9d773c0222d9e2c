"""Django's settings. Every environment variable that the console reads is read here, at the top; README lists them."""

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_urlsafe
from socket import gethostname
from typing import Any

import environ as django_environ
from django.core.exceptions import ImproperlyConfigured
from kombu import Exchange, Queue

from calm_console import embedded, logs, secret_files, security, sentry

BASE_DIR = Path(__file__).resolve().parent.parent
env = django_environ.Env()
if (BASE_DIR / ".env").is_file():
    env.read_env(str(BASE_DIR / ".env"))
secret_files.read(env.ENVIRON)
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
SECRET_KEY_IS_GIVEN = bool(env.str("SECRET_KEY", default=""))
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# On by default wherever others than this machine are let in: whoever serves them without TLS has to say so.
BEHIND_TLS = env.bool("BEHIND_TLS", default=not DEBUG and not {*ALLOWED_HOSTS} <= security.LOCAL_HOSTS)
PROXIES = number("PROXIES", 0)

DATABASE_URL = url("DATABASE_URL")
CRM_DATABASE_URL = url("CRM_DATABASE_URL")
CDP_DATABASE_URL = url("CDP_DATABASE_URL")
REDIS_URL = url("REDIS_URL")
USMAN_URL = url("USMAN_URL")
IAG_URL = url("IAG_URL")
EMBEDDED = tuple(embedded_urls)  # the URLs of which the console serves itself

CRM_USER_NAME_COLUMN = env.str("CRM_USER_NAME_COLUMN", default="full_name")
CRM_USER_DEACTIVATED_COLUMN = env.str("CRM_USER_DEACTIVATED_COLUMN", default="deactivated_at")
CRM_USER_DELETED_COLUMN = env.str("CRM_USER_DELETED_COLUMN", default="deleted_at")
CRM_ORGANIZATION_ATTRIBUTE = env.str("CRM_ORGANIZATION_ATTRIBUTE", default="organization_id")
CRM_STATEMENT_TIMEOUT_SECONDS = number("CRM_STATEMENT_TIMEOUT_SECONDS", 300, least=1)
CDP_STATEMENT_TIMEOUT_SECONDS = number("CDP_STATEMENT_TIMEOUT_SECONDS", 300, least=1)
CONNECT_TIMEOUT_SECONDS = number("CONNECT_TIMEOUT_SECONDS", 5, least=1)
USMAN_TIMEOUT_SECONDS = number("USMAN_TIMEOUT_SECONDS", 5, least=1)

SAFETY_LAG_HOURS = number("SAFETY_LAG_HOURS", 24)
SEAM_LAG_SECONDS = number("SEAM_LAG_SECONDS", 10)
CHUNK_SIZE = number("CHUNK_SIZE", 10_000, least=1)
LEASE_SECONDS = number("LEASE_SECONDS", 30, least=1)
FORCE_AFTER_SECONDS = number("FORCE_AFTER_SECONDS", 300)
WORKERS_PER_RUN = number("WORKERS_PER_RUN", 4, least=1)
TURN_SECONDS = number("TURN_SECONDS", 20, least=1)
READ_AHEAD = env.bool("READ_AHEAD", default=True)
READ_AT_ONCE = number("READ_AT_ONCE", 4, least=1)
READ_LAG_LIMIT_SECONDS = number("READ_LAG_LIMIT_SECONDS", 30, least=1)
READ_CHUNK_SECONDS = number("READ_CHUNK_SECONDS", 20, least=1)
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOG_FORMAT = env.str("LOG_FORMAT", default="").strip()
METRICS_TOKEN = env.str("METRICS_TOKEN", default="").strip()
METRICS_FOLDER = env.str("METRICS_FOLDER", default="").strip()
SENTRY_DSN = env.str("SENTRY_DSN", default="").strip()

EMAIL_URL = env.str("EMAIL_URL", default="").strip()
NOTIFY_EMAIL_TO = env.list("NOTIFY_EMAIL_TO", default=[])
NOTIFY_EMAIL_FROM = env.str("NOTIFY_EMAIL_FROM", default="calm-console@localhost")
NOTIFY_WEBHOOK_URL = env.str("NOTIFY_WEBHOOK_URL", default="").strip()
NOTIFY_WEBHOOK_SECRET = env.str("NOTIFY_WEBHOOK_SECRET", default="").strip()
NOTIFY_WEBHOOK_ALLOW_PRIVATE = env.bool("NOTIFY_WEBHOOK_ALLOW_PRIVATE", default=False)

STATUS_ALLOWED_ORIGINS = env.list("STATUS_ALLOWED_ORIGINS", default=[])
STATUS_REQUESTS_PER_MINUTE = number("STATUS_REQUESTS_PER_MINUTE", 60, least=1)
# --------------------------------------------------------------------------------------------------------------------


# A peer that is gone without a word (its host died, a firewall forgot the connection) is given up after a minute, not after the kernel's two hours.
TCP_PATIENCE: dict[str, Any] = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}


def console_database() -> dict[str, Any]:
    """DATABASE_URL as Django wants it; only PostgreSQL will do."""
    wanted = "DATABASE_URL must name a PostgreSQL database: postgresql://user:password@host:5432/name."
    if not DATABASE_URL.startswith(("postgresql://", "postgres://")):
        raise ImproperlyConfigured(wanted)
    try:
        config: dict[str, Any] = dict(env.db_url_config(DATABASE_URL))
    except ValueError as error:
        raise ImproperlyConfigured(wanted) from error
    options = config.setdefault("OPTIONS", {})
    for name, value in ({"connect_timeout": CONNECT_TIMEOUT_SECONDS} | TCP_PATIENCE).items():
        options.setdefault(name, value)
    return config | {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True}


def mail_server() -> dict[str, Any]:
    """EMAIL_URL as Django wants it; without one, whatever is sent goes nowhere."""
    if not EMAIL_URL:
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    try:
        found: dict[str, Any] = {key: value for key, value in env.email_url_config(EMAIL_URL).items() if key.isupper() and key != "OPTIONS"}
    except (ImproperlyConfigured, ValueError) as error:
        raise ImproperlyConfigured("EMAIL_URL must be smtp://, smtp+tls:// or smtp+ssl://user:password@host:port.") from error
    return found


globals().update(mail_server())
EMAIL_TIMEOUT = 10  # seconds
DEFAULT_FROM_EMAIL = NOTIFY_EMAIL_FROM
if NOTIFY_EMAIL_TO and not EMAIL_URL:
    raise ImproperlyConfigured("EMAIL_URL is not set, though NOTIFY_EMAIL_TO is: set it to smtp://user:password@host:port.")
if NOTIFY_WEBHOOK_URL and not NOTIFY_WEBHOOK_SECRET:
    raise ImproperlyConfigured("NOTIFY_WEBHOOK_SECRET is not set, though NOTIFY_WEBHOOK_URL is: set it to a long random text.")

METRICS_SOURCES = ["migration.figures.families", "gates.figures.families"]
LAST_TICK = "migration.ticks.last"
if METRICS_FOLDER:  # named before prometheus_client is first imported, which looks there
    counted_here = Path(METRICS_FOLDER) / gethostname()
    counted_here.mkdir(parents=True, exist_ok=True)
    env.ENVIRON["PROMETHEUS_MULTIPROC_DIR"] = str(counted_here)

GATE_POLICY = "gates.policies.decide"
STATUS_VISIBLE_POLICY = "gates.policies.is_open"  # asked for gate G

DATABASES = {"default": console_database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "calm_console",
    "migration",
    "gates",
    "status_api",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "corsheaders",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
MIDDLEWARE = [
    "calm_console.health.answering",  # first: probers come by address and without TLS
    "calm_console.logs.request_ids",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "calm_console.security.permissions_policy",
    "corsheaders.middleware.CorsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "migration.admin.lost.middleware",
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
LANGUAGES = [("en", "English"), ("id", "Bahasa Indonesia")]  # of the status endpoint; the pages for staff are in English
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
COLLECTED = BASE_DIR / "static-collected"  # made by the image's build
STATIC_ROOT = COLLECTED if COLLECTED.is_dir() else None
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # Without that folder finders serve the files straight from the packages: nothing to collect before the demo can show its pages.
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if STATIC_ROOT
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not STATIC_ROOT
globals().update(security.settings(BEHIND_TLS))
DEFAULT_EXCEPTION_REPORTER = "calm_console.scrubbing.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "calm_console.scrubbing.Filter"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}  # the throttle's; the status endpoint needs no Redis

REST_FRAMEWORK = {
    # Each view says whom it admits; a view that forgot would admit nobody.
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]
    + (["rest_framework.renderers.BrowsableAPIRenderer"] if DEBUG else []),
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "status_api.problems.answer",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,  # ?format= chooses nothing
}
SPECTACULAR_SETTINGS = {
    "TITLE": "CALM console: migration status",
    "DESCRIPTION": "How far the move of an account's CRM history is. docs/status-api.md has the how-to.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {"StateEnum": "status_api.status.State"},
}

CORS_ALLOWED_ORIGINS = STATUS_ALLOWED_ORIGINS
CORS_URLS_REGEX = r"^/api/v1/migration-status$"
CORS_ALLOW_CREDENTIALS = True
CORS_ALLOW_METHODS = ["GET", "HEAD", "OPTIONS"]
CORS_ALLOW_HEADERS = ["accept", "accept-language", "if-none-match"]
CORS_EXPOSE_HEADERS = ["ETag", "Retry-After"]
CORS_PREFLIGHT_MAX_AGE = 600

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True  # the chunk table is the truth; a result would be a second one
CELERY_TASK_DEFAULT_QUEUE = "calm"
# What is short has a queue of its own, which workers ask in turn with the other: a tick would wait behind many runs' nudges.
CELERY_TASK_QUEUES = [Queue(name, Exchange(name), routing_key=name) for name in ("calm", "calm-short")]
CELERY_TASK_ROUTES = {
    "migration.tick": {"queue": "calm-short"},
    "migration.send_notification": {"queue": "calm-short"},
    "migration.*": {"queue": CELERY_TASK_DEFAULT_QUEUE},
}
CELERY_TASK_ACKS_LATE = False  # a lost nudge is sent again by the tick; a doubled one would only be work
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # for ever, of workers and beat: nothing starts one that gave up (0 is no retry at all)
CELERY_BROKER_CHANNEL_ERROR_RETRY = True  # one that refuses writes (a replica after a failover, a full disk) is waited for as well
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "retry_on_timeout": True,
    "max_retries": 1,  # of whoever nudges: waiting for a broker that is away, six seconds else, would keep a worker from its work
    # Nothing is kept in Redis for messages in hand: a worker that wants to put them back, but finds Redis away, would end (kombu 5.7).
    "ack_emulation": False,
}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {"tick": {"task": "migration.tick", "schedule": timedelta(seconds=60)}}
CELERY_BEAT_SCHEDULER = "calm_console.beat:Scheduler"
CELERY_BEAT_SCHEDULE_FILENAME = env.str("BEAT_SCHEDULE_FILE", default=str(BASE_DIR / ".calm" / "celerybeat-schedule"))

LOGGING = logs.configuration(LOG_LEVEL, LOG_FORMAT, debug=DEBUG)
if SENTRY_DSN:
    sentry.start(SENTRY_DSN)
