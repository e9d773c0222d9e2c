"""Pages for the badge's tests: a real HTTP server on 127.0.0.1 under a strict Content-Security-Policy, whose answers the test chooses."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).parents[2]
BADGE = ROOT / "status_api" / "static" / "status_api" / "calm-migration-status.js"
SCREENSHOTS = ROOT / ".calm" / "screenshots" / "badge"
TAG = "calm-migration-status"
POLICY = "default-src 'self'; base-uri 'none'; require-trusted-types-for 'script'"
PAGE = """<!doctype html><html lang="{lang}" dir="{dir}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A page of the customer's</title><script type="module" src="/badge.js"></script><link rel="stylesheet" href="/page.css">
<body><main><h1>Contacts</h1>{body}<p id="below">Below.</p></main></body></html>"""
CSS = "body { margin: 1rem; color-scheme: light dark }"
# What the page itself notices: whatever its policy refused, every layout shift, every change of state, and when the badge asked.
WATCH = """
window.asked = []; window.pending = 0;
const real = window.fetch;
window.fetch = async (...given) => { asked.push(performance.now()); pending++; try { return await real(...given); } finally { pending--; } };
window.refused = []; window.shifts = []; window.told = [];
document.addEventListener("securitypolicyviolation", (event) => refused.push(event.violatedDirective + " " + event.blockedURI));
document.addEventListener("calm-state", (event) => told.push(event.target.dataset.state), true);
new PerformanceObserver((list) => shifts.push(...list.getEntries().map((each) => each.value))).observe({type: "layout-shift", buffered: true});
"""


def status(state: str = "in_progress", **changed: Any) -> dict[str, Any]:
    """A body as SPEC section 7 has it; `hours` = (earliest, latest) from now sets the ETA."""
    now = datetime.now(UTC)
    hours = changed.pop("hours", None)
    eta = hours and {key: (now + timedelta(hours=each)).isoformat() for key, each in zip(("earliest", "latest"), hours, strict=True)}
    return {
        "visible": True,
        "state": state,
        "percent": 42,
        "activities_done": 12345,
        "activities_total": 29391,
        "history_from": "2019-03-02T00:00:00Z",
        "started_at": "2026-11-01T08:00:00Z",
        "finished_at": None,
        "eta": eta,
        "message": f"A sentence about {state}.",
        "updated_at": now.isoformat(),
        "poll_after": 15,
    } | changed


def badge(src: str = "/status", mode: str = "", lang: str = "") -> str:
    """The element's markup."""
    given = {"src": src, "mode": mode, "lang": lang}
    return f"<{TAG} {' '.join(f'{key}={value}' for key, value in given.items() if value)}></{TAG}>"


INVISIBLE = dict.fromkeys(status()) | {"visible": False}


@dataclass
class Answer:
    """One answer: `body` is sent as it is where it is text, as JSON otherwise; `held` keeps it back until the test sets that event."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    held: threading.Event | None = None
    dropped: bool = False

    def content(self) -> bytes:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return b"" if self.status == 304 else text.encode()


@dataclass
class Site:
    """The server: a path's own answer is in `at`; all others get `answers` in order, the last one again and again. `asked` holds what came in."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    at: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    policy: str = POLICY
    css: str = ""
    without_script: bool = False
    under_way: int = 0
    most_under_way: int = 0

    def say(self, *answers: Answer | dict[str, Any]) -> None:
        self.answers[:] = [each if isinstance(each, Answer) else Answer(each) for each in answers]

    def next(self, path: str) -> Answer:
        return self.at.get(path) or (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    def wait_asked(self, times: int) -> None:
        """Wait, for five seconds at most, until so many requests have come in."""
        until = time.monotonic() + 5
        while len(self.asked) < times and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.asked) == times, [path for path, _ in self.asked]


@contextmanager
def serve() -> Iterator[Site]:
    site = Site()

    class Handler(Handling):
        the = site

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handling(BaseHTTPRequestHandler):
    the: Site
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/badge.js" and not self.the.without_script:
            self.send(200, BADGE.read_bytes(), {"Content-Type": "text/javascript"})
        elif path == "/page.css":
            self.send(200, (CSS + self.the.css).encode(), {"Content-Type": "text/css"})
        elif path in self.the.pages:
            self.send(200, self.the.pages[path].encode(), {"Content-Type": "text/html"})
        elif path.startswith("/status"):
            self.answer()
        else:
            self.send(404, b"", {})

    def do_OPTIONS(self) -> None:
        allowed = {"Access-Control-Allow-Headers": "if-none-match", "Access-Control-Max-Age": "600"}
        self.send(204, b"", self.the.answers[0].headers | allowed)

    def answer(self) -> None:
        answer = self.the.next(self.path)
        self.the.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        self.the.under_way += 1
        self.the.most_under_way = max(self.the.most_under_way, self.the.under_way)
        try:
            if answer.held:
                answer.held.wait(10)
            if answer.dropped:
                self.close_connection = True
                return
            self.send(
                answer.status, answer.content(), {"Content-Type": "application/json", "Cache-Control": "private, no-store"} | answer.headers
            )
        finally:
            self.the.under_way -= 1

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Security-Policy": self.the.policy, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet: what was asked is in `asked`."""


# What each part of a badge shows, but for those not seen; the bar is [role, name, value].
SEEN = """(badges) => badges.map((badge) => Object.fromEntries(["name", "icon", "label", "percent", "bar", "toggle", "message", "eta", "hint"].map((part) => {
    const found = badge.shadowRoot.querySelector(`[part=${part}]`);
    return [part, part === "bar" ? [found.role, found.ariaLabel, found.ariaValueNow] : found?.textContent, found?.checkVisibility({visibilityProperty: true})];
}).filter(([part, text, seen]) => text && seen).map(([part, text]) => [part, text])))"""


def seen(page: Page) -> list[dict[str, Any]]:
    """What each badge of the page shows, in order."""
    return page.eval_on_selector_all(TAG, SEEN)


def until(page: Page, state: str, which: str = TAG) -> None:
    page.wait_for_selector(f"{which}[data-state={state}]", state="attached")


def settled(page: Page, total: int, state: str = "") -> None:
    """Wait until so many badges have an answer (or are in `state`)."""
    expect(page.locator(f"{TAG}[data-state={state}]" if state else f"{TAG}[data-state]:not([data-state=loading])")).to_have_count(total)


class Opener:
    """Opens pages of a site; `close` fails where a policy refused something or a page threw."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser, self.site = browser, site
        self.pages: list[Page] = []
        self.errors: list[str] = []

    def __call__(self, body: str, lang: str = "en", dir: str = "ltr", clock: bool = False) -> Page:
        page = self.browser.new_page(viewport={"width": 600, "height": 500})
        self.pages.append(page)
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.add_init_script(WATCH)
        if clock:
            page.clock.install()
        self.site.pages["/"] = PAGE.format(lang=lang, dir=dir, body=body)
        page.goto(self.site.url)
        return page

    def close(self) -> None:
        refused = [each for page in self.pages for each in page.evaluate("refused")]
        for page in self.pages:
            page.close()
        assert (self.errors, refused) == ([], [])


def pass_time(page: Page, most: int = 400) -> float:
    """Let the page's clock run, a second at a time, until the badge has asked again and has its answer; gives the seconds between both requests.

    In small steps, since a request takes real time, in which the page's own limit for it must not run out.
    """
    before = page.evaluate("asked.length")
    for _ in range(most):
        page.clock.run_for(1000)
        if page.evaluate("asked.length") > before:
            answered(page)
            return page.evaluate("(asked.at(-1) - asked.at(-2)) / 1000")
    raise AssertionError(f"no request within {most} seconds")


def answered(page: Page) -> None:
    """Wait, for five seconds at most, until the page waits for no answer."""
    until = time.monotonic() + 5
    while page.evaluate("pending"):
        assert time.monotonic() < until
        time.sleep(0.01)
