"""The badge in a real browser: what it shows in each state, in both modes and languages, under a strict Content-Security-Policy."""

import re
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import chromium
from tests.status_api import badge_pages
from tests.status_api.badge_pages import BADGE, INVISIBLE, TAG, Answer, Opener, Site, badge, pass_time, seen, settled, status, until

STATES = {
    "not_started": ("Not started", "Belum dimulai"),
    "scheduled": ("Scheduled", "Dijadwalkan"),
    "in_progress": ("In progress", "Berjalan"),
    "paused": ("Paused", "Dijeda"),
    "partial": ("Partly done", "Sebagian"),
    "completed": ("Completed", "Selesai"),
    "delayed": ("Delayed", "Tertunda"),
}


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
    """Opens the site's page with some markup; at the end: nothing refused by the policy, no exception anywhere."""
    opener = Opener(browser, site)
    yield opener
    opener.close()


def texts(page: Page) -> list[dict[str, str]]:
    """What the badges show, less their icons and bars."""
    return [{part: text for part, text in each.items() if part not in ("icon", "bar")} for each in seen(page)]


def test_the_file_is_small_plain_and_alone():
    source = BADGE.read_text()
    assert len(source.encode()) < 8_000
    assert max(map(len, source.splitlines())) < 180, "written to be read"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\bimport\b|https?:", source)


# --- every state ----------------------------------------------------------------------------------------------------


def test_compact_badge_in_every_state_and_language(opened, site):
    site.at = {f"/status/{state}": Answer(status(state)) for state in STATES}
    page = opened("".join(badge(path, lang=lang) for lang in ("en", "id") for path in site.at))
    settled(page, 14)
    for one, found in enumerate(seen(page)):
        state, which = [*STATES][one % 7], one // 7
        assert found.pop("icon")
        assert found == {
            "label": STATES[state][which],
            "percent": "42%",
            "bar": ["progressbar", ["CRM history", "Riwayat CRM"][which], "42"],
            "toggle": "▾",
        }


def test_full_indicator_in_every_state(opened, site):
    site.at = {f"/status/{state}": Answer(status(state, hours=(2.01, 3.01))) for state in STATES}
    page = opened("".join(badge(path, mode="full") for path in site.at))
    settled(page, 7)
    for state, found in zip(STATES, seen(page), strict=True):
        assert found.pop("icon")
        assert found == {
            "name": "CRM history",
            "label": STATES[state][0],
            "percent": "42%",
            "bar": ["progressbar", "CRM history", "42"],
            "message": f"A sentence about {state}.",
            "eta": "Expected in 2–3 hours",
        }
    boxes = [page.locator(TAG).nth(one).bounding_box() for one in range(7)]
    assert {(box["x"], box["width"], box["height"]) for box in boxes} == {(16, 568, boxes[0]["height"])}


ETAS = [
    ("en", (0.51, 1.01), "Expected in 31–61 minutes"),
    ("en", (1.99, 2.01), "Expected in 2 hours"),
    ("en", (-1, 0.02), "Expected in 1 minute"),
    ("en", (30, 70), "Expected in 1–3 days"),
    ("en", (-2, -1), None),
    ("en", None, None),
    ("id", (2.01, 3.01), "Diperkirakan dalam 2–3 jam"),
    ("id", (48.01, 72.01), "Diperkirakan dalam 2–3 hari"),
    ("id-ID", (0.06, 0.06), "Diperkirakan dalam 4 menit"),
]


def test_eta_in_words(opened, site):
    site.at = {f"/status/{one}": Answer(status(hours=hours)) for one, (_, hours, _) in enumerate(ETAS)}
    page = opened("".join(badge(path, "full", lang) for path, (lang, _, _) in zip(site.at, ETAS, strict=True)))
    settled(page, len(ETAS))
    assert [found.get("eta") for found in seen(page)] == [words for _, _, words in ETAS]


def test_language_is_that_of_the_nearest_ancestor_and_the_message_is_asked_in_it(opened, site):
    site.say(status())
    page = opened(f'<div lang="id">{badge()}</div>', lang="en")
    settled(page, 1)
    assert texts(page)[0]["label"] == "Berjalan"
    assert site.asked[0][1]["accept-language"] == "id"


HIDDEN = [
    Answer(INVISIBLE),
    Answer({"visible": False, "state": 3, "poll_after": "x"}),
    Answer("", 401),
    Answer("", 403),
    Answer("<h1>No</h1>", 404),
]


def test_hidden_is_quiet_and_takes_no_space(opened, site):
    site.at = {f"/status/{one}": answer for one, answer in enumerate(HIDDEN)}
    page = opened("<div id=frame>" + "".join(badge(path, mode) for path in site.at for mode in ("", "full")) + "</div>")
    settled(page, 10, "hidden")
    assert seen(page) == [{}] * 10
    assert page.locator("#frame").bounding_box()["height"] == 0
    assert page.locator("main").aria_snapshot().splitlines() == ["- main:", '  - heading "Contacts" [level=1]', "  - paragraph: Below."]


def test_the_hidden_attribute_hides(opened, site):
    site.say(status())
    page = opened(badge().replace("src", "hidden src"))
    until(page, "in_progress")
    assert seen(page) == [{}]


def test_loading(opened, site):
    site.say(Answer(status(), held=threading.Event()))
    page = opened(badge())
    assert seen(page) == [{"icon": "…", "label": "Loading…", "bar": ["progressbar", "CRM history", None]}]
    assert page.locator("[part=fill]").bounding_box()["width"] == 0
    site.answers[0].held.set()
    until(page, "in_progress")


def test_without_a_source_it_waits_for_one(opened, site):
    site.say(status())
    page = opened(badge(src=""))
    until(page, "loading")
    site.wait_asked(0)
    page.eval_on_selector(TAG, "(badge) => badge.setAttribute('src', '/status')")
    until(page, "in_progress")


MALFORMED = {
    "html": "<!doctype html><title>Login</title><img src=x onerror=alert(1)>",
    "empty": "",
    "null": "null",
    "list": "[]",
    "number": "3",
    "cut": '{"visible": true, "sta',
    "no-keys": {},
    "visible-text": status(visible="true"),
    "state-number": status(state=7),
    "state-null": status(state=None),
    "percent-text": status(percent="42"),
    "percent-list": status(percent=[42]),
    "percent-high": status(percent=101),
    "percent-low": status(percent=-1),
    "message-null": status(message=None),
    "message-object": status(message={"html": "<b>"}),
    "eta-text": status(eta="soon"),
    "eta-dates": status(eta={"earliest": "soon", "latest": "later"}),
    "eta-backwards": status(hours=(3, 2)),
    "poll-text": status(poll_after="15"),
    "poll-null": status(poll_after=None),
    "huge": status(message="x" * 100_000),
    "deep": "[" * 8_000,
}


def test_malformed_answers_are_an_error_and_nothing_else(opened, site):
    site.at = {f"/status/{name}": Answer(body) for name, body in MALFORMED.items()}
    page = opened("".join(badge(path) for path in site.at))
    settled(page, len(MALFORMED))
    found = dict(zip(MALFORMED, seen(page), strict=True))
    assert found == {name: {"icon": "…", "label": "Unavailable"} for name in MALFORMED}
    assert page.locator(f"{TAG}[data-state=error]").count() == len(MALFORMED)


def test_unknown_states_show_the_message_only(opened, site):
    names = ("baking", "hidden", "error", "loading", "name", "constructor", "__proto__", "", "<b>x</b>")
    site.at = {f"/status/{one}": Answer(status(name, message="<i>Wait</i> & see.", hours=(1, 2))) for one, name in enumerate(names)}
    page = opened("".join(badge(path) for path in site.at) + badge("/status/0", "full"))
    settled(page, 10, "unknown")
    assert seen(page) == [{"label": "<i>Wait</i> & see."}] * 9 + [{"name": "CRM history", "label": "<i>Wait</i> & see."}]


def test_texts_of_the_server_stay_text(opened, site):
    hostile = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    site.say(status(message=hostile))
    page = opened(badge(mode="full"))
    settled(page, 1)
    assert texts(page)[0]["message"] == hostile
    assert page.locator(TAG).locator("img, script").count() == 0


def test_percent(opened, site):
    given = (None, 0, 7, 100)
    site.at = {f"/status/{one}": Answer(status(percent=percent)) for one, percent in enumerate(given)}
    page = opened("".join(badge(path) for path in site.at))
    settled(page, 4)
    bars = [["progressbar", "CRM history", f"{percent}"] for percent in given[1:]]
    assert [(found.get("percent"), found.get("bar")) for found in seen(page)] == [
        (None, None),
        *zip(("0%", "7%", "100%"), bars, strict=True),
    ]


def test_stale_figures_have_a_quiet_hint(opened, site):
    site.say(status(stale=True))
    page = opened(badge(mode="full"))
    settled(page, 1)
    assert texts(page)[0]["hint"] == "May be out of date."


# --- details, keyboard, screen readers ------------------------------------------------------------------------------


def test_details_open_by_keyboard_and_stay_open_over_a_refresh(opened, site):
    site.say(status(hours=(2.01, 3.01)), status(percent=43, message="Going on."))
    page = opened(badge(), clock=True)
    settled(page, 1)
    assert "message" not in texts(page)[0]
    page.keyboard.press("Tab")
    focused = page.locator("[part=toggle]:focus-visible")
    expect(focused).to_have_role("button")
    expect(focused).to_have_accessible_name("Details")
    assert focused.evaluate("(button) => getComputedStyle(button).outlineStyle") != "none"
    page.keyboard.press("Enter")
    assert texts(page)[0] == {
        "label": "In progress",
        "percent": "42%",
        "toggle": "▾",
        "message": "A sentence about in_progress.",
        "eta": "Expected in 2–3 hours",
    }
    pass_time(page)
    page.get_by_text("Going on.").wait_for()
    expect(focused).to_be_focused()
    page.keyboard.press("Escape")
    assert "message" not in texts(page)[0]
    box = focused.bounding_box()
    assert min(box["width"], box["height"]) >= 24


@pytest.mark.parametrize("dir", ["ltr", "rtl"])
def test_details_lie_under_the_badge(opened, site, dir):
    site.say(status())
    page = opened(badge(), dir=dir)
    settled(page, 1)
    page.get_by_role("button").click()
    box, details = page.locator(TAG).bounding_box(), page.locator("[part=details]").bounding_box()
    assert 0 < details["y"] - box["y"] - box["height"] < 8
    assert (details["x"], details["width"]) == pytest.approx((box["x"], box["width"]), abs=1)


def test_only_changes_of_the_state_are_announced(opened, site):
    site.say(status(percent=1), status(percent=2), Answer("", 500), status(percent=3), status("completed", percent=100))
    page = opened(badge(), clock=True)
    live = page.locator("[part=live]")
    heard = []
    for percent in ("1%", "2%", "2%", "3%", "100%"):
        expect(page.locator("[part=percent]")).to_have_text(percent)
        heard.append(live.text_content())
        if percent != "100%":
            pass_time(page)
    assert heard == ["", "", "", "", "CRM history: Completed"]
    expect(live).to_have_role("status")
    assert page.evaluate("told") == ["loading", "in_progress", "completed"]


def test_what_a_screen_reader_is_given(opened, site):
    site.say(status(hours=(2.01, 3.01)))
    page = opened(badge(mode="full"))
    settled(page, 1)
    assert page.locator("main").aria_snapshot().splitlines() == [
        "- main:",
        '  - heading "Contacts" [level=1]',
        '  - group "CRM history":',
        "    - text: CRM history In progress",
        '    - progressbar "CRM history"',
        "    - text: A sentence about in_progress. Expected in 2–3 hours",
        "    - status",
        "  - paragraph: Below.",
    ]


# --- looks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "width"), [("", 600), ("", 320), ("full", 600), ("full", 320)])
def test_nothing_moves_between_loading_and_the_first_state(opened, site, mode, width):
    message = "Your CRM history is here, but for a few entries that we are still looking at. Nothing for you to do."
    site.say(Answer(status("partial", message=message, hours=(2, 3)), held=threading.Event()))
    page = opened(f"<div>Before {badge(mode=mode)} after.</div>")
    page.set_viewport_size({"width": width, "height": 500})
    frames(page)
    before = page.locator(TAG).bounding_box()
    page.evaluate("shifts.length = 0")
    site.answers[0].held.set()
    until(page, "partial")
    frames(page)
    assert page.locator(TAG).bounding_box() == before
    assert page.evaluate("shifts") == []


def frames(page: Page) -> None:
    """Wait until the page has been painted anew."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")


def test_place_can_be_kept_before_the_script_has_come(opened, site):
    """The rule of docs/badge.md gives an element that is not defined yet the size that it will have."""
    rule = re.search(
        r"calm-migration-status \{ vertical.*?:not\(:defined\) \{.*?\}\n.*?\}",
        (badge_pages.ROOT / "docs" / "badge.md").read_text(),
        re.DOTALL,
    )[0]
    site.say(status())
    page = opened(badge() + badge(mode="full"))
    settled(page, 2)
    there = [page.locator(TAG).nth(one).bounding_box() for one in range(2)]
    site.css = rule
    site.without_script = True
    page.reload()
    assert [page.locator(TAG).nth(one).bounding_box() for one in range(2)] == there


@pytest.mark.parametrize("dir", ["ltr", "rtl"])
def test_narrow_places_wrap_and_nothing_sticks_out(opened, site, dir):
    site.say(status("partial", hours=(2, 3), message="x" * 300))
    page = opened(f'<div id="narrow">{badge()}{badge(mode="full")}</div>', dir=dir, lang="id")
    settled(page, 2)
    page.locator("#narrow").evaluate("(place) => place.style.width = '120px'")
    out = page.eval_on_selector_all(
        TAG,
        """(badges) => badges.flatMap((badge) => [...badge.shadowRoot.querySelectorAll("*")].filter((each) => each.checkVisibility()).filter((each) => {
            const edge = badge.getBoundingClientRect(), box = each.getBoundingClientRect();
            return box.left < edge.left - .5 || box.right > edge.right + .5;
        }).map((each) => each.part.value))""",
    )
    assert out == []
    assert [page.locator(TAG).nth(one).bounding_box()["width"] for one in range(2)] == [120, 120]


def test_right_to_left_begins_at_the_right(opened, site):
    site.say(status())
    page = opened(badge(), dir="rtl")
    settled(page, 1)
    bar, fill, label, toggle = (page.locator(f"[part={part}]").bounding_box() for part in ("bar", "fill", "label", "toggle"))
    assert fill["width"] == pytest.approx(0.42 * bar["width"], abs=1)
    assert fill["x"] + fill["width"] == pytest.approx(bar["x"] + bar["width"], abs=0.5)
    assert label["x"] > toggle["x"]


def style(page: Page, part: str, name: str) -> str:
    return page.locator(f"[part={part}]").evaluate("(element, name) => getComputedStyle(element)[name]", name)


def test_light_dark_and_what_the_page_decides(opened, site):
    site.say(status())
    page = opened(badge())
    settled(page, 1)
    backs = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        backs.append(style(page, "box", "backgroundColor"))
    page.locator(TAG).evaluate("(badge) => badge.style.colorScheme = 'light'")
    backs.append(style(page, "box", "backgroundColor"))
    assert backs == ["rgb(255, 255, 255)", "rgb(17, 34, 34)", "rgb(255, 255, 255)"]


def test_forced_colours_still_show_how_far_it_is(opened, site):
    site.say(status())
    page = opened(badge())
    page.emulate_media(forced_colors="active")
    settled(page, 1)
    assert style(page, "fill", "borderTopColor") != style(page, "bar", "backgroundColor")
    assert style(page, "fill", "borderTopWidth") == "6px"


def test_nothing_is_animated(opened, site):
    """More than reduced motion asks for: no transition and no animation for anybody."""
    site.say(status())
    page = opened(badge())
    settled(page, 1)
    assert {style(page, part, "transitionDuration") for part in ("box", "icon", "bar", "fill", "details")} == {"0s"}
    assert {style(page, part, "animationName") for part in ("box", "icon", "bar", "fill", "details")} == {"none"}


THEME = """
calm-migration-status { --calm-tone: rgb(1, 2, 3); --calm-back: rgb(4, 5, 6); --calm-line: rgb(7, 8, 9) }
calm-migration-status { color: rgb(10, 11, 12); width: 300px; font: 20px serif }
calm-migration-status::part(label) { text-transform: uppercase }
calm-migration-status[data-state=in_progress]::part(box) { border-radius: 3px }
"""


def test_it_takes_the_page_s_properties_and_parts(opened, site):
    site.css = THEME
    site.say(status())
    page = opened(badge())
    settled(page, 1)
    assert style(page, "fill", "borderTopColor") == "rgb(1, 2, 3)"
    assert style(page, "icon", "backgroundColor") == "rgb(1, 2, 3)"
    assert style(page, "box", "backgroundColor") == "rgb(4, 5, 6)"
    assert style(page, "bar", "backgroundColor") == "rgb(7, 8, 9)"
    assert style(page, "label", "color") == "rgb(10, 11, 12)"
    assert style(page, "label", "fontSize") == "20px"
    assert style(page, "label", "textTransform") == "uppercase"
    assert style(page, "box", "borderRadius") == "3px"
    assert page.locator(TAG).bounding_box()["width"] == 300


def test_mode_can_change_while_it_is_shown(opened, site):
    site.say(status())
    page = opened(badge())
    settled(page, 1)
    page.eval_on_selector(TAG, "(badge) => badge.setAttribute('mode', 'full')")
    assert texts(page)[0]["message"] == "A sentence about in_progress."
    assert "toggle" not in texts(page)[0]
    page.eval_on_selector(TAG, "(badge) => badge.removeAttribute('mode')")
    assert "message" not in texts(page)[0]
    site.wait_asked(1)
