"""One sentence for what a PostgreSQL server or the network answers: the variable, what happened, the cure. Never a password."""

import re

import psycopg
from django.db import InterfaceError, OperationalError

# No writes: a standby, a setting, a full disk; and transactions that the server ends for their length: for psycopg these are its InternalError.
REFUSED_FOR_NOW = ("25006", "25P03", "25P04")
CURES = (
    (
        ("password authentication failed", "no password supplied"),
        "the user or password is refused",
        "correct user and password in {variable}",
    ),
    (("role", "does not exist"), "the user does not exist there", "correct the user in {variable}, or create the role"),
    (("database", "does not exist"), "the database does not exist", "correct the database name in {variable}, or create it"),
    (("connection refused",), "nothing listens at its host and port", "start the server, or correct host and port in {variable}"),
    (
        ("could not translate host name", "failed to resolve host", "name or service not known"),
        "the host name is unknown",
        "correct the host in {variable}",
    ),
    (("timeout expired", "connection timeout"), "the server did not answer in time", "check host, port and firewall for {variable}"),
    (
        ("too many clients", "too many connections", "remaining connection slots"),
        "the server has no connection left",
        "raise max_connections, or the limit of the role or database, or stop other clients",
    ),
    (
        ("the database system is starting up", "shutting down", "terminating connection"),
        "the server is going down or coming up",
        "wait for it",
    ),
    (
        ("server closed the connection", "connection is lost", "connection is closed", "consuming input failed"),
        "the server closed the connection",
        "see the server's log",
    ),
    (
        ("in a read-only transaction", "during recovery"),
        "the server takes no writes",
        "name the primary in {variable}, or have its owner say why (a full disk, a setting)",
    ),
    (("ssl",), "the server and the client disagree about TLS", "correct sslmode in {variable}"),
)


def is_away(error: BaseException | None) -> bool:
    """Whether an error of Django's says that the console's own database does not answer, or takes no writes for now."""
    return isinstance(error, OperationalError | InterfaceError) or getattr(error and error.__cause__, "sqlstate", None) in REFUSED_FOR_NOW


def sentence(variable: str, error: BaseException, schema_cure: str = "check that {variable} names the right database") -> str:
    """One sentence naming `variable`, what the server answered and the cure; secrets in the driver's text are blanked."""
    text = clean(str(error))
    cause = error.__cause__ or error
    if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn | psycopg.errors.InvalidSchemaName):
        return f"{variable}: {text}: {schema_cure.format(variable=variable)}."
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return f"{variable}: {text}: grant the role what docs/operations.md lists."
    low = text.lower()
    for needles, what, cure in CURES:
        if ((len(needles) == 2 and needles[0] == "role") or needles[0] == "database") and not all(n in low for n in needles):
            continue
        if any(needle in low for needle in needles):
            return f"{variable}: {what} ({text}): {cure.format(variable=variable)}."
    return f"{variable}: {text}."


def clean(text: str) -> str:
    """The driver's text as one line, with any password in a URL or a conninfo blanked."""
    line = " ".join(text.split())
    line = re.sub(r"(?i)(password\s*=\s*)('[^']*'|\S+)", r"\1***", line)
    line = re.sub(r"(://[^:/@\s]*:)[^@\s]+@", r"\1***@", line)
    line = re.sub(r" Is the server running on that host and accepting TCP/IP connections\?", "", line)
    return line.rstrip(". ")[:300]
