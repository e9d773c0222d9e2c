"""When the badge asks, and what becomes of it where the answer is late, an error, or none: real requests, the page's clock in the test's hand."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import chromium
from tests.status_api import badge_pages
from tests.status_api.badge_pages import (
    INVISIBLE,
    POLICY,
    TAG,
    Answer,
    Opener,
    Site,
    answered,
    badge,
    pass_time,
    seen,
    settled,
    status,
    until,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def site() -> Iterator[Site]:
    with badge_pages.serve() as site:
        yield site


@pytest.fixture
def opened(browser: Browser, site: Site) -> Iterator[Opener]:
    opener = Opener(browser, site)
    yield opener
    opener.close()


def percent(page: Page, wanted: int) -> None:
    expect(page.locator("[part=percent]")).to_have_text(f"{wanted}%")


def about(seconds: float) -> object:
    """So many seconds after an answer, which itself took a moment."""
    return pytest.approx(seconds + 0.5, abs=0.6)


def quiet(page: Page, seconds: int) -> None:
    """No request comes within so many seconds of the page's clock."""
    before = page.evaluate("asked.length")
    page.clock.run_for(1000 * seconds)
    assert page.evaluate("asked.length") == before


def show_tab(page: Page, hidden: bool) -> None:
    """What a browser does when the tab goes to the back or comes to the front; a headless one never does it by itself."""
    page.evaluate(
        """(hidden) => { Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
            document.dispatchEvent(new Event("visibilitychange")); }""",
        hidden,
    )


# --- how often ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("poll_after", "seconds"), [(15, 15), (0, 5), (-3, 5)])
def test_it_asks_again_as_told_within_sane_bounds(opened, site, poll_after, seconds):
    site.say(status(poll_after=poll_after, percent=1), status(percent=2))
    page = opened(badge(), clock=True)
    percent(page, 1)
    assert pass_time(page) == about(seconds)
    percent(page, 2)


def test_no_answer_keeps_it_silent_for_more_than_an_hour(opened, site):
    site.say(status(poll_after=10**9, percent=1), status(percent=2))
    page = opened(badge(), clock=True)
    percent(page, 1)
    quiet(page, 3590)
    assert pass_time(page) == about(3600)


def test_when_completed_it_stops(opened, site):
    site.say(status("completed", percent=100))
    page = opened(badge(), clock=True)
    until(page, "completed")
    quiet(page, 8000)
    show_tab(page, hidden=True)
    show_tab(page, hidden=False)
    quiet(page, 1)


@pytest.mark.parametrize("answer", [Answer(INVISIBLE), Answer("", 401)], ids=["invisible", "401"])
def test_hidden_it_looks_now_and_then(opened, site, answer):
    site.say(answer, status(percent=1))
    page = opened(badge(), clock=True)
    until(page, "hidden")
    quiet(page, 295)
    assert pass_time(page) == about(300)
    percent(page, 1)


def test_a_session_that_ends_takes_what_was_shown_away(opened, site):
    site.say(status(), Answer("", 401))
    page = opened(badge(), clock=True)
    percent(page, 42)
    pass_time(page)
    until(page, "hidden")
    assert seen(page) == [{}]


# --- what it sends --------------------------------------------------------------------------------------------------


def test_etag_goes_back_and_304_keeps_what_is_shown(opened, site):
    site.say(
        Answer(status(percent=1), headers={"ETag": 'W/"one"'}),
        Answer(status=304),
        Answer(status(percent=2), headers={"ETag": '"two"'}),
        Answer(status(percent=3)),
        status(percent=4),
    )
    page = opened(badge(), clock=True)
    for wanted in (1, 1, 2, 3, 4):
        percent(page, wanted)
        if wanted < 4:
            assert pass_time(page) == about(15)
    assert [headers.get("if-none-match") for _, headers in site.asked] == [None, 'W/"one"', 'W/"one"', '"two"', None]
    assert "hint" not in seen(page)[0]


def test_another_origin_gets_the_cookie_and_the_etag(opened, site):
    """A badge on a page of another origin, as docs/badge.md says: CORS with credentials, the header allowed, ETag exposed."""
    with badge_pages.serve() as api:
        cors = {
            "Access-Control-Allow-Origin": site.url,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "ETag, Retry-After",
        }
        api.say(Answer(status(percent=1), headers=cors | {"ETag": '"x"'}), Answer(status(percent=2), headers=cors))
        site.policy = f"{POLICY}; connect-src {api.url}"
        page = opened("", clock=True)
        page.context.add_cookies([{"name": "iag_session", "value": "abc", "url": api.url}])
        page.evaluate(
            "(html) => { document.querySelector('main').append(Object.assign(document.createElement(html[0]), {id: 'it'})) }", [TAG]
        )
        page.locator("#it").evaluate("(it, src) => it.setAttribute('src', src)", f"{api.url}/status")
        percent(page, 1)
        pass_time(page)
        percent(page, 2)
        assert [(headers["cookie"], headers.get("if-none-match")) for _, headers in api.asked] == [
            ("iag_session=abc", None),
            ("iag_session=abc", '"x"'),
        ]


# --- errors ---------------------------------------------------------------------------------------------------------


def test_errors_back_off_with_jitter_and_the_last_state_stays_with_a_quiet_hint(opened, site):
    site.say(status(), *[Answer("", 500)] * 7, status(percent=50))
    page = opened(badge(mode="full"), clock=True)
    percent(page, 42)
    assert pass_time(page) == about(15)
    expect(page.locator("[part=hint]")).to_have_text("May be out of date.")
    waits = [pass_time(page) for _ in range(7)]
    for wait, most in zip(waits, (5, 10, 20, 40, 80, 160, 300), strict=True):
        assert most / 2 <= wait <= most + 1
    percent(page, 50)
    expect(page.locator("[part=hint]")).to_have_text("")
    assert page.evaluate("told") == ["loading", "in_progress"]


def test_badges_that_failed_together_do_not_come_back_together(opened, site):
    site.say(Answer("", 500))
    page = opened("".join(badge(f"/status/{one}") for one in range(12)), clock=True)
    settled(page, 12, "error")
    page.clock.run_for(5_500)
    first, again = page.evaluate("[asked.slice(0, 12), asked.slice(12, 24)]")
    assert len(again) == 12
    assert min(again) - max(first) >= 2500
    assert max(again) - min(again) > 500, "chance of a failure here: below one in a million"


def later(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("code", "after", "least", "most"),
    [(429, "120", 122, 126), (503, "date", 90, 96), (503, "-5", 2, 6), (429, "soon", 2, 6), (503, "1e999", 3602, 3606)],
)
def test_retry_after_is_honoured(opened, site, code, after, least, most):
    site.say(Answer("", code, {"Retry-After": later(90) if after == "date" else after}), status(percent=1))
    page = opened(badge(), clock=True)
    until(page, "error")
    if least > 10:
        quiet(page, least - 5)
        show_tab(page, hidden=True)
        show_tab(page, hidden=False)  # coming to the front is no reason to ask before the server wants it
        quiet(page, 0)
    assert least <= pass_time(page) <= most
    percent(page, 1)


def test_network_loss_keeps_the_last_known_state(opened, site):
    site.say(status(percent=1))
    page = opened(badge(mode="full"), clock=True)
    percent(page, 1)
    site.at["/status"] = Answer(dropped=True)
    for _ in range(2):
        pass_time(page)
        expect(page.locator("[part=hint]")).to_have_text("May be out of date.")
        percent(page, 1)
    site.at["/status"] = Answer(status(percent=2))
    pass_time(page)
    percent(page, 2)
    expect(page.locator("[part=hint]")).to_have_text("")


def test_a_request_that_takes_too_long_is_given_up(opened, site):
    held = threading.Event()
    site.say(status(percent=1), Answer(status(percent=2), held=held), status(percent=3))
    page = opened(badge(mode="full"), clock=True)
    percent(page, 1)
    page.clock.run_for(15_000)
    site.wait_asked(2)
    expect(page.locator("[part=hint]")).to_have_text("")
    page.clock.run_for(10_000)
    expect(page.locator("[part=hint]")).to_have_text("May be out of date.")
    held.set()
    pass_time(page)
    percent(page, 3)


# --- tabs, coming and going -----------------------------------------------------------------------------------------


def test_a_hidden_tab_does_not_ask_and_asks_at_once_when_seen_again(opened, site):
    site.say(status(percent=1), status(percent=2), status(percent=3))
    page = opened(badge(), clock=True)
    percent(page, 1)
    show_tab(page, hidden=True)
    quiet(page, 3600)
    show_tab(page, hidden=False)
    percent(page, 2)
    assert pass_time(page) == about(15)


def test_one_request_at_a_time(opened, site):
    held = threading.Event()
    site.say(Answer(status(percent=1), held=held), status(percent=2))
    page = opened(badge(), clock=True)
    site.wait_asked(1)
    for _ in range(5):
        show_tab(page, hidden=True)
        show_tab(page, hidden=False)
    quiet(page, 1)
    held.set()
    percent(page, 1)
    assert site.most_under_way == 1


def test_out_of_the_page_it_stops_and_back_in_it_goes_on(opened, site):
    site.say(status(percent=1), status(percent=2))
    page = opened(badge(), clock=True)
    percent(page, 1)
    page.evaluate("(tag) => { window.kept = document.querySelector(tag); kept.remove(); }", TAG)
    quiet(page, 3600)
    show_tab(page, hidden=False)
    quiet(page, 1)
    page.evaluate("document.querySelector('main').append(kept)")
    percent(page, 2)
    assert pass_time(page) == about(15)


def test_an_answer_that_comes_after_it_left_changes_nothing(opened, site):
    held = threading.Event()
    site.say(Answer(status(percent=1), held=held), status(percent=2))
    page = opened(badge(), clock=True)
    site.wait_asked(1)
    page.evaluate("(tag) => { window.kept = document.querySelector(tag); kept.remove(); }", TAG)
    held.set()
    answered(page)
    quiet(page, 3600)
    assert page.evaluate("kept.dataset.state") == "loading"


def test_another_source_begins_anew(opened, site):
    held = threading.Event()
    site.at = {
        "/status/a": Answer(status(percent=1), headers={"ETag": '"a"'}),
        "/status/b": Answer(status(percent=2), held=held),
        "/status/c": Answer(status("paused", percent=3)),
    }
    page = opened(badge("/status/a"), clock=True)
    percent(page, 1)
    element = page.locator(TAG)
    element.evaluate("(badge) => badge.setAttribute('src', '/status/b')")
    until(page, "loading")
    site.wait_asked(2)
    element.evaluate("(badge) => badge.setAttribute('src', '/status/c')")
    until(page, "paused")
    held.set()
    answered(page)
    percent(page, 3)
    assert [(path, headers.get("if-none-match")) for path, headers in site.asked] == [
        ("/status/a", None),
        ("/status/b", None),
        ("/status/c", None),
    ]
    element.evaluate("(badge) => badge.removeAttribute('src')")
    until(page, "loading")
    quiet(page, 3600)


def test_made_by_script_it_asks_once(opened, site):
    site.say(status())
    page = opened("")
    page.evaluate(
        """([tag]) => { const made = document.createElement(tag);
            made.setAttribute("src", "/status"); made.setAttribute("mode", "full"); document.querySelector("main").append(made); }""",
        [TAG],
    )
    until(page, "in_progress")
    site.wait_asked(1)
