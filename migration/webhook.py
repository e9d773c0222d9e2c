"""One signed POST to an address of the world outside, and to no other: the door by which notifications leave.

A name is resolved once, each address it has is looked at, and the connection goes to an address that was looked at; so a name cannot point
elsewhere by the time it is used. The host's name is still what the receiver sees and what its certificate has to show. Signed as
https://www.standardwebhooks.com describes. No redirect is followed, no proxy used.
"""

import base64
import hashlib
import hmac
import ipaddress
import socket
from datetime import datetime
from urllib.parse import urlsplit

import httpcore

from calm_console.deadlines import Backend, deadline

TIMEOUT = 10.0  # seconds for everything after the name is resolved, which is the system's and not bounded
CONNECT_TIMEOUT = 4.0  # of them, for each address
SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret in base64 begins, not one  # nosec B105
# 6to4 and Teredo stand for IPv4 addresses too; ipaddress knows those.
NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Undelivered(RuntimeError):
    """The receiver did not take it; the sentence says why, without the URL, whose path may be a secret."""


def post(url: str, secret: str, message: str, body: bytes, *, now: datetime, allow_private: bool) -> None:
    """Deliver `body`, JSON, as message id `message`; returns once the receiver has answered 2xx, else raises Undelivered."""
    if wrong := problem(url):
        raise Undelivered(f"NOTIFY_WEBHOOK_URL cannot be used: {wrong}.")
    headers = [("Content-Type", "application/json"), ("User-Agent", "calm-console"), *signed(secret, message, body, now=now)]
    backend = Guarded(allow_private=allow_private)
    try:
        with deadline(TIMEOUT), httpcore.HTTPConnection(httpcore.URL(url).origin, network_backend=backend) as connection:
            with connection.stream("POST", url, headers=headers, content=body) as response:
                status = response.status
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
        raise Undelivered(f"NOTIFY_WEBHOOK_URL: the receiver cannot be reached ({type(error).__name__}).") from error
    if not 200 <= status < 300:
        redirect = "; redirects are not followed" if 300 <= status < 400 else ""
        raise Undelivered(f"NOTIFY_WEBHOOK_URL: the receiver answered {status}{redirect}.")


def signed(secret: str, message: str, body: bytes, *, now: datetime) -> list[tuple[str, str]]:
    """The three headers by which a receiver tells that it comes from whoever knows the secret, and when."""
    timestamp = str(int(now.timestamp()))
    mac = hmac.new(key(secret), f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return [("webhook-id", message), ("webhook-timestamp", timestamp), ("webhook-signature", f"v1,{base64.b64encode(mac).decode()}")]


def key(secret: str) -> bytes:
    """The key of a secret: base64 after `whsec_`, else the text itself."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError as error:
        raise Undelivered("NOTIFY_WEBHOOK_SECRET begins with whsec_ but is no base64 after it: correct it.") from error


def problem(url: str) -> str:
    """What is wrong with a webhook's URL as it is written; "" where nothing is."""
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or parts.port > 0
    except ValueError:
        return "it cannot be read as a URL"
    if parts.scheme not in ("https", "http") or not parts.hostname or not port_is_sound:
        return "it must be https://host/path or http://host/path"
    if not url.isascii():
        return "it must be ASCII: write the host's name as xn--..., and other characters as %XX"
    return "it must hold no user or password" if parts.username or parts.password else ""


def addresses(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The addresses of a host, all of them fit to be connected to; raises Undelivered where one is not, or there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Undelivered("NOTIFY_WEBHOOK_URL: the host name is unknown.") from error
    texts = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not allow_private and any(not is_public(ipaddress.ip_address(text)) for text in texts):
        raise Undelivered(
            "NOTIFY_WEBHOOK_URL: the host resolves to an address that is not public. "
            "For a receiver in your own network set NOTIFY_WEBHOOK_ALLOW_PRIVATE."
        )
    return texts


def is_public(address: Address) -> bool:
    """Whether it is an ordinary address of the internet, and so are the IPv4 addresses that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped or address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        tunnelled = [each for each in (address.sixtofour, *(address.teredo or ())) if each]
        if address.is_site_local or any(not is_public(each) for each in tunnelled):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class Guarded(Backend):
    """Connects to addresses that were looked at only, and lets nothing last beyond the deadline, however slowly the other side drips."""

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__()
        self.allow_private = allow_private

    def reached(self, host: str, port: int, timeout: float | None) -> httpcore.NetworkStream:
        """By the first of the host's addresses that answers within CONNECT_TIMEOUT; what the last one says counts."""
        *others, last = addresses(host, port, allow_private=self.allow_private)
        for address in others:
            try:
                return super().reached(address, port, CONNECT_TIMEOUT)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # the next one may answer
        return super().reached(last, port, CONNECT_TIMEOUT)
