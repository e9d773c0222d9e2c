"""An IAG of one's own, over real HTTP: the stand-in over a file of sessions, or a server that misbehaves as told."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from django.core.cache import cache

from calm_console.demo import stand_ins
from status_api import iag, knowledge
from tests.status_api import policies


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch) -> Iterator[None]:
    """What a process keeps in memory is each test's own, and so are its connections to IAG."""
    made: list[iag.Gateway] = []
    make = iag.Gateway.__init__

    def remembered(gateway: iag.Gateway, url: str) -> None:
        make(gateway, url)
        made.append(gateway)

    monkeypatch.setattr(iag.Gateway, "__init__", remembered)
    iag.gateway_at.cache_clear()
    knowledge.last_known.clear()
    knowledge.gate.clear()
    knowledge.database.reset()
    cache.clear()
    policies.asked.clear()
    yield
    iag.gateway_at.cache_clear()
    for gateway in made:
        gateway.close()


@pytest.fixture(autouse=True)
def opened(settings) -> None:
    """Gate G is open."""
    settings.STATUS_VISIBLE_POLICY = "tests.status_api.policies.opened"


class Sessions:
    """The stand-in's sessions, and how often it was asked."""

    def __init__(self, file: Path) -> None:
        self.file, self.url, self.asked = file, "", 0
        self.known: list[dict] = []
        self.write()

    def add(self, session: str, account: UUID | str, *, active: bool = True, user: str = "usr_1") -> str:
        """The Cookie header of a new session."""
        self.known = [each for each in self.known if each["session"] != session]
        self.known.append({"session": session, "active": active, "user_id": user, "account_id": str(account)})
        self.write()
        return f"iag_session={session}"

    def write(self) -> None:
        whole = self.file.with_suffix(".new")
        whole.write_text(json.dumps({"sessions": self.known}))
        whole.rename(self.file)


@contextmanager
def serve_sessions(file: Path) -> Iterator[Sessions]:
    sessions = Sessions(file)
    server = stand_ins.server("iag", 0, file)
    answer = server.RequestHandlerClass.args[0]

    def counted(*arguments: object) -> stand_ins.Answer:
        sessions.asked += 1
        return answer(*arguments)

    server.RequestHandlerClass = stand_ins.partial(stand_ins.Handler, counted, stand_ins.Watched(file))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    sessions.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield sessions
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def sessions(tmp_path, settings) -> Iterator[Sessions]:
    """IAG_URL names a stand-in without any session yet."""
    with serve_sessions(tmp_path / "sessions.json") as sessions:
        settings.IAG_URL = sessions.url
        yield sessions


@contextmanager
def serve_raw(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that reads a request and then does what `behave` does with the connection."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.settimeout(0.05)
    stop = threading.Event()

    def handle(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                connection.recv(65_536)
                behave(connection)
            except OSError:
                pass  # the client gave up, as it should

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    stop.set()
    thread.join()
    listening.close()


def answering(body: bytes, status: str = "200 OK", headers: str = "") -> Callable[[socket.socket], None]:
    """Behave: one answer, whole."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return lambda connection: connection.sendall(head.encode() + body)
