"""The console in a real browser: a server over HTTP, a person who is logged in, and a walk along the links of its pages."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import Resolver404, resolve
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page
from pytest_django.live_server_helper import LiveServer

from tests.chromium import chromium

# What a page refused, or executed, is kept across its visits; `executed` is what hostile text would call.
WATCH = """
window.refused = [];
window.executed = [];
window.alert = window.confirm = window.prompt = (text) => executed.push(String(text));
document.addEventListener("securitypolicyviolation", (event) => {
    refused.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});"""


@dataclass
class Seen:
    """What a browser met: pages by route, and everything that should not have been."""

    origin: str
    routes: Counter[str] = field(default_factory=Counter)
    pages: dict[str, str] = field(default_factory=dict)  # address -> what is to be read there
    faults: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("console", lambda message: self.note(page, message))
        page.on("request", lambda request: self.note_foreign(request.url))

    def note(self, page: Page, message: ConsoleMessage) -> None:
        is_meant = message.location["url"].endswith("/admin/badge/error")  # the gallery's failing server
        if message.type == "error" and not is_meant:
            self.faults.append(f"{page.url}: {message.text}")

    def note_foreign(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "blob:")):
            self.faults.append(f"asked for {url}")

    def look(self, page: Page) -> None:
        """Note what the page that is open refused or executed."""
        found = page.evaluate("[...refused, ...executed]")
        self.faults += [f"{page.url}: {each}" for each in found]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Playwright's loop lives in this thread, where Django would refuse its own database without the variable."""
    with pytest.MonkeyPatch.context() as patch, chromium() as browser:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield browser


@pytest.fixture
def site(quick_passwords, transactional_db) -> Iterator[str]:
    server = LiveServer("127.0.0.1")
    yield server.url
    server.stop()


@pytest.fixture
def seen(site) -> Seen:
    return Seen(site)


@pytest.fixture
def context(site, browser) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=site)
    context.set_default_timeout(20_000)
    context.add_init_script(WATCH)
    yield context
    context.close()


def opened_for(user: User, context: BrowserContext, seen: Seen) -> Page:
    """A page in whose context this person is logged in."""
    client = Client()
    client.force_login(user)
    name = settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": seen.origin}])
    page = context.new_page()
    seen.watch(page)
    return page


def walk(page: Page, seen: Seen, *starts: str, each: int = 2, most: int = 150) -> None:
    """Open the starts and what they link to, and so on: `each` addresses of a route with and without parameters, `most` in all."""
    waiting = [urljoin(seen.origin, start) for start in starts]
    while waiting and len(seen.pages) < most:
        address = waiting.pop(0)
        kind = kind_of(address)
        if address in seen.pages or not kind or seen.routes[kind] >= each:
            continue
        seen.routes[kind] += 1
        try:
            answer = page.goto(address)
        except Error as error:
            if "Download is starting" not in str(error):
                raise
            seen.pages[address] = ""
            continue
        if answer.status >= 400:
            seen.faults.append(f"{address}: {answer.status}")
        seen.look(page)
        seen.pages[address] = page.locator("body").inner_text()
        found = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href.split('#')[0])")
        waiting += [link for link in found if link.startswith(f"{seen.origin}/")]


def kind_of(address: str) -> str:
    """The route of an address and whether it is asked something, '' for files and what is no page of ours."""
    parts = urlsplit(address)
    try:
        route = resolve(parts.path).route
    except Resolver404:
        return ""
    return "" if "logout" in route else route + "?" * bool(parts.query)
