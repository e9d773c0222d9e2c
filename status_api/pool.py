"""An HTTP connection pool for the calls of calm_console/deadlines.py."""

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from calm_console.deadlines import Hurried, left


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


class Backend(httpcore.NetworkBackend):
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
        return Hurried(self.plain.connect_tcp(host, port, seconds, local_address, socket_options))
