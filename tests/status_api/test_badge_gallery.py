"""The gallery for Design: who may see it, what it feeds the badge with, and all of it in a browser, under the axe, with screenshots kept."""

import re
from importlib.resources import files

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from status_api import gallery
from status_api.status import State
from tests import factories
from tests.chromium import chromium
from tests.status_api import badge_pages
from tests.status_api.badge_pages import SCREENSHOTS, TAG, WATCH, settled

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.status_api.badge_urls")]
NAMES = [*State, *gallery.OTHERS]


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("reviewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


PATHS = ["/admin/badge/", "/admin/badge/paused"]


@pytest.mark.parametrize("path", PATHS)
def test_only_staff_with_the_permission_see_it(client, path):
    assert client.get(path).status_code == 302
    client.force_login(User.objects.create_user("customer"))
    assert client.get(path).status_code == 302
    assert staff("view_account").get(path).status_code == 403


@pytest.mark.parametrize("path", PATHS)
def test_staff_who_may_see_runs_see_it(path):
    assert staff("view_run").get(path).status_code == 200


def test_its_policy_is_strict_and_its_badges_name_every_sample():
    answer = staff("view_run").get(reverse("badge-gallery"))
    markup = answer.content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", markup)
    sources = re.findall(rf'<{TAG}(?: mode="full")?(?: src="([^"]*)")?>', markup)
    assert sources == [reverse("badge-sample", args=[name]) if name != "loading" else "" for name in NAMES for _ in range(4)]


@pytest.mark.parametrize("state", State)
def test_a_sample_is_as_the_endpoint_answers(state):
    answer = staff("view_run").get(reverse("badge-sample", args=[state]), headers={"Accept-Language": "en"})
    body = answer.json()
    assert [*body] == [*badge_pages.status()], "the keys of SPEC section 7"
    assert (body["state"], body["visible"], body["poll_after"]) == (state, True, 3600)
    assert (body["percent"] == 100) == (state == State.COMPLETED)


def test_other_samples():
    client = staff("view_run")
    answers = {name: client.get(reverse("badge-sample", args=[name])) for name in ("hidden", "error", "stale", "unknown", "loading", "x")}
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "hidden": 200,
        "error": 503,
        "stale": 200,
        "unknown": 200,
        "loading": 404,
        "x": 404,
    }
    assert answers["hidden"].json() == badge_pages.INVISIBLE
    assert answers["stale"].json()["stale"] is True
    assert answers["unknown"].json()["state"] not in {*State}


def test_messages_are_in_the_language_asked_for():
    client = staff("view_run")
    told = [client.get(PATHS[1], headers={"Accept-Language": lang}).json()["message"] for lang in ("en", "id")]
    assert told[0].startswith("Bringing over your CRM history is paused")
    assert told[1] != told[0]


@pytest.mark.django_db(transaction=True)
def test_gallery_in_the_browser(live_server):
    """Every badge in both colour schemes: axe finds no violation, the policy refuses nothing, screenshots are kept."""
    client = Client()
    client.force_login(factories.superuser())
    cookie = {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    # The browser is opened here: while it is, this thread may not use the ORM.
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_cookies([cookie])
        errors: list[str] = []
        for lang, dir, width in (("id", "rtl", 1280), ("id", "ltr", 360), ("en", "ltr", 1280)):
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.add_init_script(WATCH)
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"{live_server.url}{PATHS[0]}?lang={lang}&dir={dir}")
            settled(page, 4 * (len(NAMES) - 1))
            states = page.eval_on_selector_all(TAG, "(badges) => badges.map((badge) => badge.dataset.state)")
            assert states == [{"stale": "in_progress"}.get(name, name) for name in NAMES for _ in range(4)]
            page.screenshot(path=SCREENSHOTS / f"gallery-{lang}-{dir}-{width}.png", full_page=True)
            assert page.evaluate("refused") == []
        page.get_by_role("button", name="Details").nth(4).click()
        page.screenshot(path=SCREENSHOTS / "details.png")
        assert violations(page) == []
        assert errors == []


def violations(page) -> list[str]:
    """What axe finds in the badges, which it enters through their open shadow roots."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    found = page.evaluate("(tag) => axe.run({include: [[tag]]}, {resultTypes: ['violations']})", TAG)
    assert found["passes"], "axe has looked at something"
    return [f"{each['id']}: {node['html']} {node['failureSummary']}" for each in found["violations"] for node in each["nodes"]]
