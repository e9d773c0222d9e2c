"""Stand-ins for USMAN and IAG, over real HTTP on 127.0.0.1, answering from a file that may change while they run.

`python -m calm_console.demo.stand_ins usman --port 8081 [--users FILE]`
`python -m calm_console.demo.stand_ins iag --port 8082 [--sessions FILE]`
"""

import argparse
import json
import socketserver
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
USERS_BY_EMAILS = "/usman.v1.UserService/GetUsersByEmails"
MOST_EMAILS = 100
MOST_BYTES = 1_000_000

Answer = tuple[int, dict[str, Any]]  # HTTP status, JSON body


def main() -> None:
    """Serve one of the two until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m calm_console.demo.stand_ins", description="A stand-in for USMAN or IAG.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, option, file in (("usman", "--users", "sample_usman_users.json"), ("iag", "--sessions", "sample_iag_sessions.json")):
        one = kinds.add_parser(kind)
        one.add_argument("--port", type=int, required=True)
        one.add_argument(option, dest="file", type=Path, default=DATA / file)
    options = parser.parse_args()
    server(options.kind, options.port, options.file).serve_forever()


def server(kind: str, port: int, file: Path) -> ThreadingHTTPServer:
    """The HTTP server of stand-in `kind` ("usman" or "iag"), listening; port 0 takes any free one."""
    return Loopback(("127.0.0.1", port), partial(Handler, {"usman": usman, "iag": iag}[kind], Watched(file)))


class Watched:
    """A JSON file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._content: dict[str, Any] = {}

    def content(self) -> dict[str, Any]:
        found = self.path.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            self._content, self._stamp = json.loads(self.path.read_text()), stamp
        return self._content


def usman(request: "Handler", users: Watched) -> Answer:
    """GetUsersByEmails: the users with one of the e-mails, compared without case; unknown e-mails are absent."""
    if request.path != USERS_BY_EMAILS:
        return error(404, "not_found", f"no such path: {request.path}")
    if request.command != "POST":
        return error(405, "unimplemented", "GetUsersByEmails is asked with POST")
    try:
        emails = json.loads(request.body())["emails"]
    except (ValueError, KeyError, TypeError):
        emails = None
    if not isinstance(emails, list) or len(emails) > MOST_EMAILS or not all(isinstance(email, str) for email in emails):
        return error(400, "invalid_argument", f'the body must be {{"emails": [...]}} with at most {MOST_EMAILS} texts')
    wanted = {email.lower() for email in emails}
    return 200, {"users": [user for user in users.content()["users"] if user["email"].lower() in wanted]}


def iag(request: "Handler", sessions: Watched) -> Answer:
    """The session of the iag_session cookie; an unknown or inactive one is just not active."""
    if request.path != "/v1/session":
        return error(404, "not_found", f"no such path: {request.path}")
    if request.command != "GET":
        return error(405, "unimplemented", "a session is asked for with GET")
    cookies = dict(part.strip().partition("=")[::2] for part in request.headers.get("Cookie", "").split(";"))
    for session in sessions.content()["sessions"]:
        if session["session"] == cookies.get("iag_session") and session["active"]:
            return 200, {key: session[key] for key in ("active", "user_id", "account_id")}
    return 200, {"active": False}


def error(status: int, code: str, message: str) -> Answer:
    """An error as Connect servers write it."""
    return status, {"code": code, "message": message}


class Loopback(ThreadingHTTPServer):
    """An HTTP server that does not look its own name up, which can take seconds where DNS is away."""

    request_queue_size = 128

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    """One connection: `answer` makes the answers, from the file."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a kept connection may be idle
    wbufsize = -1  # header and body leave in one packet; apart, each answer would wait 40 ms for an acknowledgement

    def __init__(self, answer: Callable[["Handler", Watched], Answer], file: Watched, *connection: Any) -> None:
        self.answer, self.file = answer, file
        super().__init__(*connection)

    def do_GET(self) -> None:
        self.reply()

    def do_POST(self) -> None:
        self.reply()

    def reply(self) -> None:
        if self.path == "/healthz":
            status, body = 200, {"status": "ok"}
        else:
            try:
                status, body = self.answer(self, self.file)
            except (OSError, ValueError, KeyError) as fault:  # the file is being written, or is no such file
                status, body = error(503, "unavailable", f"{self.file.path.name} cannot be read ({type(fault).__name__})")
        content = json.dumps(body).encode()
        self.close_connection = self.close_connection or status != 200  # a refused request's body may be unread
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        """The request's body; ValueError where it has none that this server takes."""
        length = int(self.headers.get("Content-Length", ""))
        if not 0 <= length <= MOST_BYTES:
            raise ValueError(f"a body of {length} bytes")
        return self.rfile.read(length)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the badge polls, and the log would only grow."""


if __name__ == "__main__":
    main()
