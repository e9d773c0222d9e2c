"""A TCP proxy before a PostgreSQL server that cuts a connection off at its COMMIT: before the server has it, or after, its answer lost."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

RECEIPT = b"UPDATE calm.receipts SET receipt"  # the last statement of a chunk's transaction
COMMIT = b"COMMIT\0"


class Proxy:
    """`cuts` says at which of the chunks' commits, counted from 1, and `answered` whether the server still gets and does them."""

    def __init__(self, url: str, cuts: set[int], *, answered: bool) -> None:
        self.parts, self.cuts, self.answered = urlsplit(url), cuts, answered
        self.commits, self.made = 0, 0  # chunks' commits seen; cuts made
        self.lock = threading.Lock()
        self.listening = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        """The way to the server through here."""
        login = self.parts.netloc.rpartition("@")[0]
        return urlunsplit(self.parts._replace(netloc=f"{login}@127.0.0.1:{self.listening.getsockname()[1]}"))

    def serve(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self.listening.accept()
                server = socket.create_connection((self.parts.hostname, self.parts.port))
                threading.Thread(target=self.up, args=(client, server), daemon=True).start()
                threading.Thread(target=pump, args=(server, client), daemon=True).start()

    def up(self, client: socket.socket, server: socket.socket) -> None:
        """From the client to the server, up to the commit that is to be cut off."""
        loading = False
        with suppress(OSError):
            while data := client.recv(65536):
                loading = loading or RECEIPT in data
                if loading and COMMIT in data and self.is_cut():
                    self.cut(client, server, data)
                    return
                loading = loading and COMMIT not in data
                server.sendall(data)
        end(server)

    def is_cut(self) -> bool:
        with self.lock:
            self.commits += 1
            return self.commits in self.cuts

    def cut(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Nothing goes back any more: the client's socket is gone before the server is told."""
        end(client)
        if self.answered:
            server.sendall(data)
            time.sleep(0.5)  # the server does it, and answers to nobody
        end(server)
        self.made += 1


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    end(sink)


def end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxied(url: str, cuts: set[int], *, answered: bool) -> Iterator[Proxy]:
    proxy = Proxy(url, cuts, answered=answered)
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        end(proxy.listening)
