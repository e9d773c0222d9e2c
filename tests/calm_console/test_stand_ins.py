"""The USMAN and IAG stand-ins, asked over real HTTP."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from calm_console.demo import stand_ins

METHOD = "/usman.v1.UserService/GetUsersByEmails"
ACTIVE = "2a3571cfad766765964dadd0dbc6841762de0b1a"
INACTIVE = "fa64ea1e82e1206f828ab2a02917c7e92accb98e"


@contextmanager
def served(kind: str, file: Path) -> Iterator[httpx.Client]:
    server = stand_ins.server(kind, 0, file)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
            yield client
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def usman() -> Iterator[httpx.Client]:
    with served("usman", stand_ins.DATA / "sample_usman_users.json") as client:
        yield client


@pytest.fixture
def iag() -> Iterator[httpx.Client]:
    with served("iag", stand_ins.DATA / "sample_iag_sessions.json") as client:
        yield client


def test_users_are_found_by_email_without_case_and_unknown_ones_are_absent(usman: httpx.Client) -> None:
    asked = ["SUPPORT@Vendor.sample.example", "support@vendor.sample.example", "nobody@sample.example", "nur_aini.putri813@sample.example"]
    answer = usman.post(METHOD, json={"emails": asked})
    assert answer.status_code == 200
    assert answer.json() == {
        "users": [
            {"id": "usm_2f13632fcd04", "email": "support@vendor.sample.example", "name": "Vendor Support", "status": "ACTIVE"},
            {"id": "usm_25fed936c24d", "email": "nur_aini.putri813@sample.example", "name": "Nur Aini Putri", "status": "DEACTIVATED"},
        ]
    }


def test_a_hundred_emails_are_answered_and_none_too(usman: httpx.Client) -> None:
    assert usman.post(METHOD, json={"emails": [f"{n}@x" for n in range(100)]}).json() == {"users": []}
    assert usman.post(METHOD, json={"emails": []}).json() == {"users": []}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"emails": "a@x"}',
        b'{"emails": [1]}',
        b'{"emails": [null]}',
        b"\xff",
        json.dumps({"emails": ["a"] * 101}).encode(),
    ],
)
def test_a_malformed_question_is_an_invalid_argument(usman: httpx.Client, body: bytes) -> None:
    answer = usman.post(METHOD, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert usman.post(METHOD, json={"emails": []}).status_code == 200


def test_other_paths_and_methods(usman: httpx.Client, iag: httpx.Client) -> None:
    for client in (usman, iag):
        assert client.get("/healthz").status_code == 200
        assert (client.get("/other").status_code, client.post("/other", content=b"x").status_code) == (404, 404)
    assert usman.get(METHOD).status_code == 405
    assert iag.post("/v1/session").status_code == 405


def test_a_session_is_the_cookies(iag: httpx.Client) -> None:
    answer = iag.get("/v1/session", headers={"Cookie": f"csrftoken=a=b; iag_session={ACTIVE}; other"})
    assert answer.json() == {"active": True, "user_id": "usr_1", "account_id": "d5a2acda-ee2b-54c7-ad70-d244c2c23aa2"}


@pytest.mark.parametrize(
    "cookie", ["", f"iag_session={INACTIVE}", "iag_session=unknown", "iag_session=", f"other={ACTIVE}", f"iag_session={ACTIVE}x"]
)
def test_any_other_session_is_not_active(iag: httpx.Client, cookie: str) -> None:
    assert iag.get("/v1/session", headers={"Cookie": cookie}).json() == {"active": False}
    assert iag.get("/v1/session").json() == {"active": False}


def test_a_changed_file_is_read_again_and_a_broken_one_is_an_outage(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    user = {"id": "u1", "email": "A@x", "name": "A", "status": "ACTIVE"}
    file.write_text(json.dumps({"users": []}))
    with served("usman", file) as usman:
        assert usman.post(METHOD, json={"emails": ["a@X"]}).json() == {"users": []}
        file.write_text(json.dumps({"users": [user]}))
        assert usman.post(METHOD, json={"emails": ["a@X"]}).json() == {"users": [user]}
        file.write_text("{")
        answer = usman.post(METHOD, json={"emails": ["a@X"]})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        file.unlink()
        assert usman.post(METHOD, json={"emails": ["a@X"]}).status_code == 503
        file.write_text(json.dumps({"users": [user]}))
        os.utime(file, ns=(1, 1))
        assert usman.post(METHOD, json={"emails": ["a@X"]}).json() == {"users": [user]}


def test_one_connection_serves_many_questions(usman: httpx.Client) -> None:
    begun = time.monotonic()
    for _ in range(50):
        usman.post(METHOD, json={"emails": ["a@x"]}).raise_for_status()
    assert time.monotonic() - begun < 1.5  # header and body sent apart would wait 40 ms for each acknowledgement: 2 s


def test_the_command_serves_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "sessions.json"
    file.write_text(json.dumps({"sessions": [{"session": "s", "active": True, "user_id": "u", "account_id": "a"}]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "calm_console.demo.stand_ins", "iag", "--port", str(port), "--sessions", str(file)]
    with subprocess.Popen(line) as process, httpx.Client(transport=httpx.HTTPTransport(retries=8), cookies={"iag_session": "s"}) as client:
        try:
            assert client.get(f"http://127.0.0.1:{port}/v1/session").json() == {"active": True, "user_id": "u", "account_id": "a"}
        finally:
            process.terminate()
