"""The identity gateway over real HTTP: what it may answer, and what becomes of a gateway that does not."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from status_api.iag import Gateway, Identity, Unavailable, session_of
from tests.status_api.conftest import answering, serve_raw

ACCOUNT = UUID("d5a2acda-ee2b-54c7-ad70-d244c2c23aa2")
GOOD = {"active": True, "user_id": "usr_1", "account_id": str(ACCOUNT)}


# --- the cookie -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "session"),
    [
        ("iag_session=abc", "abc"),
        ("a=b; iag_session=abc;c=d", "abc"),
        ("  iag_session=a=b== ", "a=b=="),
        ("", None),
        ("iag_session", None),
        ("iag_session=", None),
        ("iag_session=abc; iag_session=abd", None),
        ("iag_session=abc; iag_session=abc", None),
        ("iag_session=abc; iag_session", None),
        ("Iag_Session=abc", None),
        ("IAG_SESSION=abc", None),
        ("iag-session=abc", None),
        ("xiag_session=abc", None),
        ("iag_session =abc", None),
        ("iag_session= abc", None),
        ('iag_session="abc"', None),
        ("iag_session=a,iag_session=b", None),
        ("iag_session=a b", None),
        ("iag_session=a\r\nX-Account-Id: 1", None),
        ("iag_session=a\\b", None),
        ("iag_session=é", None),
        (f"iag_session={'a' * 4096}", "a" * 4096),
        (f"iag_session={'a' * 4097}", None),
    ],
)
def test_the_session_of_a_cookie_header(header, session):
    assert session_of(header) == session


# --- answers --------------------------------------------------------------------------------------------------------


def ask(behave, session: str = "abc") -> Identity | None:
    with serve_raw(behave) as url:
        return Gateway(url).identity(session)


def test_an_active_session_is_somebody():
    assert ask(answering(json.dumps(GOOD).encode())) == Identity("usr_1", ACCOUNT)


def test_nothing_but_the_cookie_goes_to_the_gateway():
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(Gateway(f"http://127.0.0.1:{listening.getsockname()[1]}/base/").identity, "abc")
        connection, _ = listening.accept()
        with connection:
            seen.append(connection.recv(65_536))
            answering(b'{"active": false}')(connection)
        assert asked.result(5) is None
    head = seen[0].decode().split("\r\n")
    assert head[0] == "GET /base/v1/session HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in head[1:] if line} == {"host", "cookie", "accept", "user-agent"}
    assert "Cookie: iag_session=abc" in head


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", {"active": False}),
        ("200 OK", GOOD | {"active": False}),
        ("200 OK", GOOD | {"account_id": "7"}),
        ("200 OK", GOOD | {"account_id": ""}),
        ("200 OK", GOOD | {"account_id": f"{{{ACCOUNT}}}"}),
        ("200 OK", GOOD | {"account_id": ACCOUNT.hex}),
        ("200 OK", GOOD | {"account_id": f"{ACCOUNT}\n"}),
        ("401 Unauthorized", {}),
    ],
)
def test_no_session(status, body):
    assert ask(answering(json.dumps(body).encode(), status)) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b""),
        ("200 OK", b"<html>sign in</html>"),
        ("200 OK", b"[]"),
        ("200 OK", b"null"),
        ("200 OK", b"{}"),
        ("200 OK", b'{"active": 1, "user_id": "usr_1", "account_id": "%s"}' % str(ACCOUNT).encode()),
        ("200 OK", b'{"active": "true", "user_id": "usr_1", "account_id": "%s"}' % str(ACCOUNT).encode()),
        ("200 OK", b'{"active": true, "user_id": 1, "account_id": "%s"}' % str(ACCOUNT).encode()),
        ("200 OK", b'{"active": true, "user_id": "", "account_id": "%s"}' % str(ACCOUNT).encode()),
        ("200 OK", b'{"active": true, "user_id": "usr_1"}'),
        ("200 OK", b'{"active": true, "user_id": "usr_1", "account_id": 7}'),
        ("200 OK", b'{"active": true, "user_id": "usr_1", "account_id": ["%s"]}' % str(ACCOUNT).encode()),
        ("200 OK", b'{"active": false, "active": true, "user_id": "usr_1", "account_id": "%s"}' % str(ACCOUNT).encode()),
        ("200 OK", json.dumps(GOOD).encode()[:-1]),
        ("200 OK", json.dumps(GOOD).encode() + b"\xff"),
        ("200 OK", b"[" * 60_000),
        ("200 OK", b" " * 70_000 + json.dumps(GOOD).encode()),
        ("302 Found", json.dumps(GOOD).encode()),
        ("403 Forbidden", b"{}"),
        ("404 Not Found", b"{}"),
        ("429 Too Many Requests", b"{}"),
        ("500 Internal Server Error", json.dumps(GOOD).encode()),
    ],
)
def test_what_the_contract_does_not_have_is_nobody_and_no_guess(status, body):
    with pytest.raises(Unavailable):
        ask(answering(body, status, "Location: http://127.0.0.1:1/\r\n"))


@pytest.mark.parametrize("url", ["", "unset://for-tests", "127.0.0.1:1", "http://127.0.0.1:1"])
def test_an_address_that_nobody_answers(url):
    with pytest.raises(Unavailable):
        Gateway(url).identity("abc")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", b"SSH-2.0-x\r\n"])
def test_an_answer_that_breaks_off(answer):
    with pytest.raises(Unavailable):
        ask(lambda connection: connection.sendall(answer))


def silence(connection: socket.socket) -> None:
    time.sleep(4)


def dribble(connection: socket.socket) -> None:
    """A byte of the head, and then another, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(40):
        time.sleep(0.1)
        connection.sendall(b"X")


def dribble_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(40):
        time.sleep(0.1)
        connection.sendall(b" ")


def test_two_seconds_are_all_that_a_gateway_gets():
    """Silent, or with a byte now and then: side by side, since each takes its two seconds."""

    def seconds(behave) -> float:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            ask(behave)
        return time.monotonic() - started

    with ThreadPoolExecutor(3) as threads:
        took = list(threads.map(seconds, [silence, dribble, dribble_body]))
    assert all(1.9 < each < 3 for each in took), took


# --- what is kept, and what is left alone ---------------------------------------------------------------------------


def test_positive_answers_are_kept_for_half_a_minute_and_negative_ones_not(sessions):
    gateway = Gateway(sessions.url)
    clock = [0.0]
    gateway.kept.clock = lambda: clock[0]
    assert [gateway.identity("abc"), gateway.identity("abc"), sessions.asked] == [None, None, 2]
    sessions.add("abc", ACCOUNT)
    assert [gateway.identity("abc"), gateway.identity("abc"), sessions.asked] == [Identity("usr_1", ACCOUNT)] * 2 + [3]
    sessions.add("abc", ACCOUNT, active=False)
    clock[0] = 29.9
    assert [gateway.identity("abc"), sessions.asked] == [Identity("usr_1", ACCOUNT), 3]
    clock[0] = 30.0
    assert [gateway.identity("abc"), sessions.asked] == [None, 4]


def test_the_cookie_itself_is_not_kept(sessions):
    gateway = Gateway(sessions.url)
    sessions.add("secret-cookie", ACCOUNT)
    gateway.identity("secret-cookie")
    assert len(gateway.kept) == 1
    assert "secret-cookie" not in repr(gateway.kept._kept)


def test_each_session_has_its_own_account(sessions):
    gateway, accounts = Gateway(sessions.url), [uuid4() for _ in range(20)]
    for number, account in enumerate(accounts):
        sessions.add(f"s{number}", account)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            found = threads.map(gateway.identity, [f"s{number}" for number in range(20)])
            assert [each.account for each in found if each] == accounts


def test_many_with_one_session_ask_once():
    asked = []

    def slowly(connection: socket.socket) -> None:
        asked.append(1)
        time.sleep(0.3)
        answering(json.dumps(GOOD).encode())(connection)

    with serve_raw(slowly) as url, ThreadPoolExecutor(30) as threads:
        gateway = Gateway(url)
        assert set(threads.map(gateway.identity, ["abc"] * 30)) == {Identity("usr_1", ACCOUNT)}
    assert len(asked) == 1


def test_a_dead_gateway_is_left_alone_and_found_again():
    clock, behave = [0.0], [answering(b"", "500 Internal Server Error")]
    asked = []

    def changing(connection: socket.socket) -> None:
        asked.append(1)
        behave[0](connection)

    def attempt() -> Identity | int | None:
        try:
            return gateway.identity("abc")
        except Unavailable as error:
            return error.retry_after

    with serve_raw(changing) as url:
        gateway = Gateway(url)
        gateway.breaker.clock = lambda: clock[0]
        assert [attempt() for _ in range(7)] == [5, 5, 5, 5, 5, 10, 10]
        assert len(asked) == 5
        clock[0] = 10.0
        assert [attempt(), attempt()] == [5, 10]  # one tries, in vain
        assert len(asked) == 6
        clock[0], behave[0] = 20.0, answering(json.dumps(GOOD).encode())
        assert attempt() == Identity("usr_1", ACCOUNT)
        assert gateway.breaker.wait() == 0


def test_a_slow_gateway_does_not_hold_every_thread():
    """Twenty different sessions against a silent gateway: once it is known to be silent, nobody waits for it any more."""
    with serve_raw(silence) as url, ThreadPoolExecutor(20) as threads:
        gateway = Gateway(url)
        started = time.monotonic()
        refused = [each.exception() for each in [threads.submit(gateway.identity, f"s{number}") for number in range(20)]]
        assert all(isinstance(error, Unavailable) for error in refused)
        assert time.monotonic() - started < 4
        started = time.monotonic()
        with pytest.raises(Unavailable):
            gateway.identity("another")
        assert time.monotonic() - started < 0.5
