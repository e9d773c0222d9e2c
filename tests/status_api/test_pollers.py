"""Many badges at once, against the web server as it runs in production: gunicorn, two processes with threads, real connections."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from django.db import connection

from migration import summaries
from migration.states import RunState
from status_api import iag
from tests import factories

ROOT = Path(__file__).parents[2]
PATH = "/api/v1/migration-status"
POLLERS, ROUNDS = 50, 4


def environment(iag_url: str) -> dict[str, str]:
    login = connection.settings_dict
    password = f":{quote(login['PASSWORD'], safe='')}" if login["PASSWORD"] else ""
    console = f"postgresql://{quote(login['USER'])}{password}@{quote(login['HOST'], safe='')}:{login['PORT']}/{login['NAME']}"
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.status_api.open_gate",
        "DATABASE_URL": console,
        "REDIS_URL": "redis://127.0.0.1:1/0",  # nobody: the endpoint needs no Redis
        "IAG_URL": iag_url,
        "STATUS_REQUESTS_PER_MINUTE": "10000",
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextmanager
def gunicorn(iag_url: str) -> Iterator[str]:
    """The URL of a web server of two processes with eight threads each."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "calm_console.wsgi",
        "--bind",
        url.removeprefix("http://"),
        "--workers",
        "2",
        "--threads",
        "8",
    ]
    server = subprocess.Popen(command, cwd=ROOT, env=environment(iag_url), stderr=subprocess.PIPE)
    try:
        wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.communicate(timeout=20)


def wait_for(url: str, server: subprocess.Popen) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"{url}{PATH}", timeout=5).status_code == 401:
                return
        except httpx.TransportError:
            time.sleep(0.1)
        if server.poll() is not None:
            pytest.fail(server.communicate()[1].decode())
    pytest.fail("the web server did not come up")


def poll(url: str, session: str) -> list[tuple[int, object]]:
    """One badge: asks a few times, with the ETag it got, as a browser would over one connection."""
    found, tag = [], ""
    with httpx.Client(timeout=20) as client:
        for _ in range(ROUNDS):
            response = client.get(f"{url}{PATH}", headers={"Cookie": f"iag_session={session}"} | ({"If-None-Match": tag} if tag else {}))
            tag = response.headers.get("ETag", "")
            found.append((response.status_code, response.json()["activities_done"] if response.status_code == 200 else None))
    return found


def test_fifty_pollers_at_once(transactional_db, sessions):
    """Of two tenants: everybody has an answer, everybody their own, and IAG is asked once by each process for each session."""
    for number, name in ((4, "one"), (7, "other")):
        account = factories.account()
        factories.chunk(factories.run(RunState.RUNNING, account=account), result=factories.receipt(written=number))
        summaries.refresh(account, now=factories.NOON)
        sessions.add(name, account.cdp_id)
    with gunicorn(sessions.url) as url, ThreadPoolExecutor(POLLERS) as threads:
        names = ["one", "other"] * (POLLERS // 2)
        began = time.monotonic()
        answers = list(threads.map(lambda name: poll(url, name), names))
        kept = 1 + (time.monotonic() - began) // iag.KEPT_SECONDS  # on a busy machine an answer may grow too old meanwhile
        for name, answer in zip(names, answers, strict=True):
            assert answer == [(200, {"one": 4, "other": 7}[name]), *[(304, None)] * (ROUNDS - 1)]
        assert 2 <= sessions.asked <= 4 * kept
        check_head(url)


def check_head(url: str) -> None:
    """HEAD over the wire has no body: the next answer on the same connection is whole."""
    cookie = "Cookie: iag_session=one\r\nHost: localhost\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as connected:
        connected.sendall(f"HEAD {PATH} HTTP/1.1\r\n{cookie}Connection: close\r\n\r\n".encode())
        whole = b"".join(iter(lambda: connected.recv(65_536), b""))
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert (body, b"etag:" in head.lower()) == (b"", True)
