"""The door to USMAN, the user directory: one call, `GetUsersByEmails`, over HTTP with JSON."""

import json
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import httpcore
import httpx
import stamina
from django.conf import settings
from prometheus_client import Counter, Histogram
from stamina.instrumentation import LoggingOnRetryHook, set_on_retry_hooks

from calm_console.deadlines import Backend, deadline
from migration.doors import UNSTORABLE, Misconfigured, Outage

PATH = "/usman.v1.UserService/GetUsersByEmails"
BATCH = 100  # USMAN's own limit
STATUSES = ("ACTIVE", "DEACTIVATED")
ATTEMPTS = 3
MOST_BYTES = 4_000_000  # of an answer: a hundred users take some 20,000
SECONDS = Histogram("calm_usman_attempt_seconds", "How long attempts to ask USMAN took.")
FAILURES = Counter("calm_usman_failures", "Questions that USMAN did not answer after all attempts, or not as its contract has it.")
set_on_retry_hooks([LoggingOnRetryHook])  # the default would print to standard output where structlog is installed


@dataclass(frozen=True)
class UsmanUser:
    id: str
    name: str | None
    status: str  # one of STATUSES


class TryAgain(RuntimeError):
    """An answer that another attempt may better: 5xx, 429, or none."""


@cache
def certificates() -> ssl.SSLContext:
    """Read once for a process: it takes some 17 ms, and each turn at a run opens this door."""
    return httpx.create_ssl_context(trust_env=False)


class Transport(httpx.HTTPTransport):
    """httpx's own over connections that keep to a deadline: its timeouts hold for each read, and a server that drips passes them for hours.

    httpx has no other way to be handed such connections.
    """

    def __init__(self) -> None:
        super().__init__(verify=certificates(), trust_env=False)
        self._pool = httpcore.ConnectionPool(ssl_context=certificates(), keepalive_expiry=5, network_backend=Backend())


class Usman:
    def __init__(self, url: str | None = None) -> None:
        self.url = settings.USMAN_URL if url is None else url
        if not self.url:
            raise Misconfigured("USMAN_URL is not set: set it to the user directory's base URL, for example http://usman.internal:8080.")
        if not self.url.startswith(("http://", "https://")):
            raise Misconfigured("USMAN_URL cannot be read as a URL: write http://host:port or https://host:port.")
        self.client = httpx.Client(
            base_url=self.url.rstrip("/"), timeout=settings.USMAN_TIMEOUT_SECONDS, trust_env=False, transport=Transport()
        )

    def close(self) -> None:
        self.client.close()

    def users_by_email(self, emails: Iterable[str]) -> dict[str, UsmanUser | None]:
        """Each e-mail (in lower case) and whom USMAN knows by it; None where it knows nobody, or two people.

        Raises Outage where USMAN does not answer after three attempts, or answers what its contract does not have: then nobody
        may be taken for unknown.
        """
        wanted = sorted({email.lower() for email in emails})
        found: dict[str, UsmanUser | None] = dict.fromkeys(wanted)
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            with FAILURES.count_exceptions():
                found |= read_answer(self.ask(batch), set(batch))
        return found

    def ask(self, batch: list[str]) -> object:
        """One call with bounded retries; the decoded body."""
        try:
            for attempt in stamina.retry_context(on=(httpx.TransportError, TryAgain), attempts=ATTEMPTS, wait_initial=0.2, wait_max=2.0):
                with attempt, SECONDS.time(), deadline(settings.USMAN_TIMEOUT_SECONDS):
                    with self.client.stream("POST", PATH, json={"emails": batch}) as response:
                        if response.status_code >= 500 or response.status_code == 429:
                            raise TryAgain(f"it answered {response.status_code}")
                        body = b"".join(no_more_than(MOST_BYTES, response.iter_bytes()))
        except (httpx.HTTPError, TryAgain) as error:
            what = str(error) if isinstance(error, TryAgain) else f"{type(error).__name__}"
            raise Outage(f"USMAN_URL: USMAN did not answer {ATTEMPTS} attempts ({what}): wait for it, or correct USMAN_URL.") from error
        except httpx.InvalidURL as error:
            raise Misconfigured("USMAN_URL cannot be read as a URL: write http://host:port or https://host:port.") from error
        if response.status_code != 200:
            raise Outage(f"USMAN_URL: USMAN answered {response.status_code} to GetUsersByEmails: check its URL and its log.")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Outage("USMAN_URL: USMAN's answer is not JSON: check that USMAN_URL names USMAN.") from error


def no_more_than(most: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of an answer; raises Outage where they are more than this process can be asked to hold."""
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            raise Outage("USMAN_URL: USMAN's answer has no end: check that USMAN_URL names USMAN.")
        yield piece


def read_answer(body: object, asked: set[str]) -> dict[str, UsmanUser | None]:
    """The users of one answer by lower-case e-mail; raises Outage for what the contract does not have."""
    # An empty list may be left out, as gRPC-JSON does; other things in its place are an error in the clothes of an answer.
    users = body.get("users", None if body else []) if isinstance(body, dict) else None
    if not isinstance(users, list):
        raise Outage('USMAN_URL: USMAN\'s answer has no list "users": check that USMAN_URL names USMAN.')
    found: dict[str, UsmanUser | None] = {}
    for user in users:
        if not isinstance(user, dict) or not all(isinstance(user.get(key), str) and user[key] for key in ("id", "email")):
            raise Outage("USMAN_URL: USMAN's answer holds a user without id or e-mail; nobody can be told apart by it.")
        if UNSTORABLE.search(user["id"]):
            raise Outage("USMAN_URL: USMAN's answer holds an id that no column can keep; nobody can be told apart by it.")
        if user.get("status") not in STATUSES:
            raise Outage(f"USMAN_URL: USMAN gave a status that its contract does not have ({str(user.get('status'))[:40]!r}).")
        email = user["email"].lower()
        if email in asked:
            # Two people under one e-mail: nobody can say which of them acted.
            found[email] = None if email in found else UsmanUser(user["id"], storable(user.get("name")), user["status"])
    return found


def storable(name: object) -> str | None:
    """A name as PostgreSQL can hold it: what it cannot is shown as what nobody can read."""
    return UNSTORABLE.sub("\ufffd", name) if isinstance(name, str) else None
