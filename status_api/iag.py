"""IAG, the identity gateway: from the browser's session to a user and an account, or nothing. It fails closed."""

import json
import logging
import math
import re
import ssl
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from threading import Lock
from uuid import UUID

import httpcore
from django.conf import settings
from prometheus_client import Counter, Histogram

from calm_console.deadlines import Backend, deadline
from status_api.breaker import Breaker
from status_api.memory import Memory

log = logging.getLogger(__name__)

COOKIE = "iag_session"
COOKIE_VALUE = re.compile(
    r"[\x21\x23-\x2B\x2D-\x3A\x3C-\x5B\x5D-\x7E]{1,4096}"
)  # RFC 6265's cookie-octets: nothing that could end a header
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
TIMEOUT = 2.0  # seconds in total
CONNECT_TIMEOUT = 1.0  # for each of the gateway's addresses
KEPT_SECONDS, KEPT_SESSIONS = 30, 10_000
MOST_CONNECTIONS = 16
MOST_BYTES = 65_536
RETRY_AFTER = 5
SECONDS = Histogram("calm_iag_call_seconds", "How long questions to IAG took.", buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2))
FAILURES = Counter("calm_iag_failures", "Questions that IAG did not answer, or not as its contract has it.")


@dataclass(frozen=True)
class Identity:
    """Who a session belongs to; `account` is the CDP's account id."""

    user_id: str
    account: UUID


class Unavailable(RuntimeError):
    """The gateway did not say who this is: ask again after `retry_after` seconds."""

    def __init__(self, sentence: str, retry_after: int = RETRY_AFTER) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class Malformed(RuntimeError):
    """An answer that the gateway's contract does not have."""


def session_of(cookies: str) -> str | None:
    """The value of `iag_session` in a Cookie header; None where it is missing, named twice, or no cookie's value."""
    pairs = [part.strip(" \t").partition("=") for part in cookies.split(";")]
    values = [value for name, _, value in pairs if name == COOKIE]
    # Of two nobody knows which one the gateway set: a page of a sister domain can add a second.
    return values[0] if len(values) == 1 and COOKIE_VALUE.fullmatch(values[0]) else None


def pool(most: int, *, secure: bool) -> httpcore.ConnectionPool:
    """At most `most` connections, kept for a while when idle; `secure` for https."""
    return httpcore.ConnectionPool(
        ssl_context=trust() if secure else None,
        max_connections=most,
        max_keepalive_connections=most,
        keepalive_expiry=10,
        network_backend=Backend(),
    )


def trust() -> ssl.SSLContext:
    """Whoever certifi knows, and whoever the system or SSL_CERT_FILE does: a gateway within may have a certificate of the house."""
    context = httpcore.default_ssl_context()
    context.load_default_certs()
    return context


def gateway() -> "Gateway":
    """This process's gateway at IAG_URL."""
    return gateway_at(settings.IAG_URL)


@lru_cache(maxsize=4)
def gateway_at(url: str) -> "Gateway":
    return Gateway(url)


class Gateway:
    """Sessions known to be good are kept for at most 30 seconds, by a hash of the cookie; all others are asked for every time."""

    def __init__(self, url: str) -> None:
        self.url = f"{url.rstrip('/')}/v1/session"
        self.pool = pool(MOST_CONNECTIONS, secure=url.startswith("https:"))
        self.breaker = Breaker(failures=5, seconds=10)
        self.kept: Memory[Identity] = Memory(most=KEPT_SESSIONS, seconds=KEPT_SECONDS)
        self._asking: dict[bytes, Future[Identity | None]] = {}
        self._lock = Lock()

    def close(self) -> None:
        self.pool.close()

    def identity(self, session: str) -> Identity | None:
        """Whose session this is; None where it is not (or no longer) a session. Raises Unavailable."""
        key = sha256(session.encode()).digest()
        with self._lock:
            if kept := self.kept.get(key):
                return kept
            answer, first = self._asking.get(key), key not in self._asking
            if answer is None:
                answer = self._asking[key] = Future()
        return self.ask_for_all(key, session, answer) if first else joined(answer)

    def ask_for_all(self, key: bytes, session: str, answer: "Future[Identity | None]") -> Identity | None:
        """Ask once, for this request and those with the same session that come while it is on its way."""
        try:
            found = self.ask(session)
            answer.set_result(found)
        except BaseException as error:
            answer.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._asking[key]
                if not answer.exception() and (identity := answer.result()):
                    self.kept.put(key, identity)
        return found

    def ask(self, session: str) -> Identity | None:
        if wait := self.breaker.wait():
            raise Unavailable("IAG is left alone for a while, since it did not answer.", math.ceil(wait))
        try:
            with SECONDS.time(), FAILURES.count_exceptions(), deadline(TIMEOUT):
                found = read(*self.fetch(session))
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, Malformed) as error:
            self.breaker.failed()
            log.warning("IAG_URL: IAG did not say whose session it is (%s: %s)", type(error).__name__, error)
            raise Unavailable("IAG did not say whose session this is.") from error
        self.breaker.succeeded()
        return found

    def fetch(self, session: str) -> tuple[int, bytes]:
        """Status and body of one call. The cookie is all of the request that goes on to the gateway."""
        headers = [("Cookie", f"{COOKIE}={session}"), ("Accept", "application/json"), ("User-Agent", "calm-console")]
        timeouts = {"connect": CONNECT_TIMEOUT, "read": TIMEOUT, "write": TIMEOUT, "pool": TIMEOUT / 4}
        with self.pool.stream("GET", self.url, headers=headers, extensions={"timeout": timeouts}) as response:
            body = b""
            for part in response.iter_stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise Malformed(f"more than {MOST_BYTES} bytes")
            return response.status, body


def joined(answer: "Future[Identity | None]") -> Identity | None:
    """What another thread's question comes to."""
    try:
        return answer.result(TIMEOUT + CONNECT_TIMEOUT)
    except FutureTimeout as error:
        raise Unavailable("IAG did not say whose session this is.") from error


def read(status: int, body: bytes) -> Identity | None:
    """The identity of an answer; None for a session that is not active or an account id that cannot be one. Raises Malformed."""
    if status == 401:
        return None
    if status != 200:
        raise Malformed(f"status {status}")
    try:
        answer = json.loads(body, object_pairs_hook=unambiguous)
    except (ValueError, RecursionError) as error:
        raise Malformed("no JSON") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
        raise Malformed("no true or false in `active`")
    if not answer["active"]:
        return None
    user, account = answer.get("user_id"), answer.get("account_id")
    if not (isinstance(user, str) and user and isinstance(account, str)):
        raise Malformed("an active session without user_id or account_id")
    return Identity(user, UUID(account)) if UUID_TEXT.fullmatch(account) else None


def unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError where it names a key twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found
