"""USMAN's door where the other side keeps the line open and says next to nothing."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from migration.doors import Outage
from migration.usman import Usman

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"


@contextmanager
def dripping(at_once: bytes, then: bytes) -> Iterator[tuple[str, list[float]]]:
    """The URL of a server that sends one part whole and the other by the byte, four a second; when it was asked."""
    asked: list[float] = []

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            asked.append(time.monotonic())
            client.sendall(at_once)
            for byte in then:
                client.sendall(bytes([byte]))
                time.sleep(0.25)

    def serve() -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(("at_once", "then"), [(HEADERS, b'{"users": []}'), (b"", HEADERS + b'{"users": []}')], ids=["body", "all"])
def test_an_answer_that_drips_is_left_when_the_time_for_an_attempt_is_over(settings, at_once, then):
    """As README has it of USMAN_TIMEOUT_SECONDS; each read by itself is in time."""
    settings.USMAN_TIMEOUT_SECONDS = 1
    began = time.monotonic()
    with dripping(at_once, then) as (url, asked), closing(Usman(url)) as usman:
        with pytest.raises(Outage, match=r"USMAN did not answer 3 attempts \(ReadTimeout\)"):
            usman.users_by_email(["a@example.com"])
    assert len(asked) == 3
    assert time.monotonic() - began < 8


def test_an_answer_that_comes_in_pieces_but_in_time_is_taken(settings):
    settings.USMAN_TIMEOUT_SECONDS = 10
    with dripping(HEADERS, b'{"users": []}') as (url, asked), closing(Usman(url)) as usman:
        assert usman.users_by_email(["a@example.com"]) == {"a@example.com": None}
    assert len(asked) == 1


def test_an_answer_without_end_is_left_before_it_fills_the_memory(settings):
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 5_000_000, b"{}" * 100) as (url, asked), closing(Usman(url)) as usman:
        with pytest.raises(Outage, match="USMAN's answer has no end"):
            usman.users_by_email(["a@example.com"])
    assert len(asked) == 1
