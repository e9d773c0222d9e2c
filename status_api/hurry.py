"""An HTTP connection pool whose calls end by a deadline, however the other side behaves.

The timeouts of HTTP libraries hold for each read; a server that sends a byte now and then passes them for ever. Here the deadline of the
calling thread bounds every connect, read and write. Looking up a host's name is the system's, and not bounded.
"""

import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import httpcore

_call = threading.local()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let this thread's calls through a `pool` end after `seconds` with one of httpcore's timeouts."""
    _call.ends = monotonic() + seconds
    try:
        yield
    finally:
        del _call.ends


def pool(most: int, *, secure: bool) -> httpcore.ConnectionPool:
    """At most `most` connections, kept for a while when idle; `secure` for https."""
    return httpcore.ConnectionPool(
        ssl_context=trust() if secure else None,
        max_connections=most,
        max_keepalive_connections=most,
        keepalive_expiry=10,
        network_backend=Hurried(),
    )


def trust() -> ssl.SSLContext:
    """Whoever certifi knows, and whoever the system or SSL_CERT_FILE does: a gateway within may have a certificate of the house."""
    context = httpcore.default_ssl_context()
    context.load_default_certs()
    return context


def left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
    """Seconds until the deadline, or `timeout` if that is less."""
    seconds = _call.ends - monotonic()
    if seconds <= 0:
        raise error("the deadline has passed")
    return seconds if timeout is None else min(timeout, seconds)


class Hurried(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self.plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = left(timeout, httpcore.ConnectTimeout)
        return HurriedStream(self.plain.connect_tcp(host, port, seconds, local_address, socket_options))


class HurriedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self.stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return HurriedStream(self.stream.start_tls(ssl_context, server_hostname, left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)
