"""HTTP calls that end by a deadline, however the other side behaves: USMAN's, IAG's and the webhook's.

The timeouts of HTTP libraries hold for each read; a server that sends a byte now and then passes them for ever. Here the deadline of the
calling thread bounds every connect, read and write of a stream. Looking up a host's name is the system's, and not bounded.
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
    """Let this thread's calls through a `Hurried` stream end after `seconds` with one of httpcore's timeouts."""
    _call.ends = monotonic() + seconds
    try:
        yield
    finally:
        del _call.ends


def left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
    """Seconds until the deadline, or `timeout` if that is less."""
    seconds = _call.ends - monotonic()
    if seconds <= 0:
        raise error("the deadline has passed")
    return seconds if timeout is None else min(timeout, seconds)


class Hurried(httpcore.NetworkStream):
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
        return Hurried(self.stream.start_tls(ssl_context, server_hostname, left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


class Backend(httpcore.NetworkBackend):
    """Connects by TCP; who must not connect to every address overrides `reached`."""

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
        return Hurried(self.reached(host, port, timeout))

    def reached(self, host: str, port: int, timeout: float | None) -> httpcore.NetworkStream:
        """A connection to the host."""
        return self.plain.connect_tcp(host, port, left(timeout, httpcore.ConnectTimeout))
