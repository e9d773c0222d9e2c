"""The board, signatures and refusals in a real browser under a strict Content-Security-Policy: what a person clicks and reads."""

import re
from collections.abc import Iterator
from datetime import time

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from gates.models import SignOff
from migration import batch_plans
from migration.batch_plans import Plan
from migration.models import Account
from migration.states import RunState
from migration.windows import Window
from tests import factories
from tests.chromium import chromium
from tests.gates.conftest import member
from tests.migration.conftest import (
    console,  # noqa: F401 - a fixture
    now,
)

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "of-the-test"
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
WATCH = """window.refused = JSON.parse(sessionStorage.refused || "[]");
document.addEventListener("securitypolicyviolation", (event) => {
    refused.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
    sessionStorage.refused = JSON.stringify(refused);
});"""


def strict(get_response):
    """Middleware that sends the policy with every page."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return answer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Playwright's loop lives in this thread, where Django would refuse its own database without the variable."""
    with pytest.MonkeyPatch.context() as patch, chromium() as browser:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield browser


@pytest.fixture
def site(settings, quick_passwords) -> Iterator[str]:
    """The console over HTTP: a server of this test's own, as one loads its middleware when it starts."""
    settings.MIDDLEWARE = ["tests.gates.test_browser.strict", *settings.MIDDLEWARE]
    server = LiveServer("127.0.0.1")
    yield server.url
    server.stop()


@pytest.fixture
def visit(site, browser):
    """Opens the console for a person who logs in with a password; at the end nothing was refused by the policy and nothing went wrong."""
    opened: list[tuple[BrowserContext, Page, bool, list[str]]] = []

    def log_in(user: User, scripts: bool = True, **how) -> Page:
        user.set_password(PASSWORD)
        user.save()
        context = browser.new_context(base_url=site, java_script_enabled=scripts, **how)
        context.set_default_timeout(20_000)
        context.add_init_script(WATCH)
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        opened.append((context, page, scripts, errors))
        answer = page.goto("/admin/")
        assert answer.headers["content-security-policy"] == POLICY
        page.get_by_label("Username").fill(user.username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        return page

    yield log_in
    refused = [page.evaluate("window.refused") for _, page, scripts, _ in opened if scripts]
    errors = [each for *_, each in opened]
    for context, *_ in opened:
        context.close()
    assert not any(refused), refused
    assert not any(errors), errors


def decide(page: Page, verb: str, note: str) -> None:
    page.get_by_label(re.compile("^Note")).fill(note)
    page.get_by_role("button", name=verb, exact=True).click()


def card(page: Page, title: str):
    return page.get_by_role("region", name=title)


def test_a_person_measures_and_signs_gate_c_for_an_account(visit, console):  # noqa: F811 - the fixture
    page = visit(member("CDP", name="ceda"))
    expect(card(page, "Gates")).to_contain_text("0 of 3 accounts open")
    card(page, "Next for you").get_by_role("link", name="Andalas Motor (organisation 1)").click()
    expect(page.get_by_role("button", name="Sign", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Measure now").click()
    expect(page.locator(".messagelist")).to_contain_text("is stored, and it passes")
    expect(card(page, "Newest evidence")).to_contain_text("contacts with source 'crm' carry a CRM person id")
    decide(page, "Sign", "all of them carry it")
    expect(page.locator(".messagelist")).to_contain_text("Ceda signed Gate C for CDP. It is recorded for good.")
    expect(page.locator(".head")).to_contain_text("Every owner group's sign-off stands.")
    page.goto("/admin/")
    expect(card(page, "Gates")).to_contain_text("1 of 3 accounts open")
    signed = SignOff.objects.get()
    assert (signed.gate_id, signed.account.crm_organization_id, signed.decided_by, signed.note) == ("C", 1, "ceda", "all of them carry it")


def test_the_second_group_opens_gate_a(visit, console):  # noqa: F811 - the fixture
    first = visit(member("CRM Squad", name="carl"))
    first.goto("/admin/gates/gate/A/change/")
    first.get_by_role("button", name="Measure now").click()
    expect(card(first, "Newest evidence")).to_contain_text("What the role may do")
    decide(first, "Sign", "SELECT on two tables, nothing else")
    expect(first.locator(".head")).to_contain_text("Until it is open: no run.")
    second = visit(member("Platform", name="pia"))
    card(second, "Next for you").get_by_role("link", name="The CRM is read only").click()
    decide(second, "Sign", "our replica")
    expect(second.locator(".head")).to_contain_text("Every owner group's sign-off stands.")
    assert [each.group for each in SignOff.objects.order_by("id")] == ["CRM Squad", "Platform"]


def test_a_refusal_is_read_and_the_note_is_kept(visit, console):  # noqa: F811 - the fixture
    """Somebody measures while the form is open; the page shows what is new, and the same note signs it."""
    person = member("CDP", name="ceda")
    page = visit(person)
    second = Account.objects.get(crm_organization_id=2)
    page.goto(f"/admin/gates/gate/C/change/?account={second.pk}")
    page.get_by_role("button", name="Measure now").click()
    other = page.context.new_page()
    other.goto(f"/admin/gates/gate/C/change/?account={second.pk}")
    other.get_by_role("button", name="Measure again").click()
    expect(other.locator(".messagelist")).to_contain_text("is stored")
    decide(page, "Sign", "looked at the first")
    expect(page.get_by_role("alert")).to_contain_text("was measured again")
    expect(page.get_by_label(re.compile("^Note"))).to_have_value("looked at the first")
    assert not SignOff.objects.exists()
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("Ceda signed Gate C for CDP.")


def test_an_account_that_falls_short_cannot_be_signed(visit, console):  # noqa: F811 - the fixture
    page = visit(member("CDP", name="ceda"))
    card(page, "Next for you").get_by_role("link", name="Celebes Properti (organisation 3)").click()
    page.get_by_role("button", name="Measure now").click()
    expect(card(page, "Your decision")).to_contain_text("fails, so it cannot be signed: 95 of the account's 98 CDP contacts")
    expect(page.get_by_role("button", name="Sign", exact=True)).to_have_count(0)
    expect(card(page, "Newest evidence").locator("table").first.locator("tbody tr")).to_have_count(3)


def test_signing_works_without_scripts(visit):
    page = visit(member("Design", name="dewi"), scripts=False)
    card(page, "Next for you").get_by_role("link", name="Badge and indicator are designed").click()
    decide(page, "Sign", "the frames of today")
    expect(page.locator(".messagelist")).to_contain_text("Dewi signed Gate G for Design.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(visit, console, scheme):  # noqa: F811 - the fixture
    user = member("CDP", "operator", name="ceda")
    page = visit(user, viewport={"width": 400, "height": 800}, color_scheme=scheme)
    account = Account.objects.get(crm_organization_id=3)
    Account.objects.filter(pk=account.pk).update(name="Celebesproperti" * 10)
    run = factories.run(RunState.RUNNING, account=account)
    factories.event(run, by="Celebesproperti" * 10)
    gates = [f"/admin/gates/gate/{letter}/change/" for letter in "ABDEFG"]
    addresses = [
        "/admin/",
        "/admin/gates/gate/",
        *gates,
        f"/admin/gates/gate/C/change/?account={account.pk}",
        "/admin/gates/gate/C/change/",
    ]
    for address in [
        *addresses,
        f"/admin/gates/pack/{account.pk}/",
        f"/admin/gates/plan/{account.pk}/",
        f"/admin/migration/run/{run.pk}/change/",
        "/admin/gates/signoff/",
        "/admin/gates/evidence/",
    ]:
        page.goto(address)
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert (address, too_wide) == (address, 0)


def test_a_long_name_leaves_room_for_what_is_said_of_its_account(visit, console):  # noqa: F811 - the fixture
    page = visit(member("CDP", "operator", name="ceda"), viewport={"width": 1280, "height": 800})
    Account.objects.update(name="Celebesproperti" * 10)
    batch = batch_plans.plan(
        Plan("first", list(Account.objects.all()), Window(frozenset({0}), time(0), time(6), "UTC")), by="ana", now=now()
    )
    for address in (f"/admin/migration/batch/{batch.pk}/change/", "/admin/gates/gate/C/change/"):
        page.goto(address)
        shown = page.locator("tbody th").filter(has_text="Celebesproperti").first.bounding_box()
        assert shown and shown["width"] < 700, address


def test_an_organisation_stands_behind_a_name_that_is_written_from_right_to_left(visit, console):  # noqa: F811 - the fixture
    """Its number stood at the wrong end, its brackets open, beside whatever number the name holds."""
    page = visit(member("CDP", "operator", name="ceda"), viewport={"width": 1280, "height": 800})
    Account.objects.filter(crm_organization_id=3).update(name="شركة 2")
    factories.run(account=Account.objects.get(crm_organization_id=3))
    page.goto("/admin/migration/run/")
    link = page.get_by_role("link", name="(organisation 3)")
    left = [
        link.evaluate(
            """(link, what) => {
                const text = document.createTreeWalker(link, NodeFilter.SHOW_TEXT).nextNode();
                const range = document.createRange();
                range.setStart(text, text.data.indexOf(what));
                range.setEnd(text, text.data.indexOf(what) + what.length);
                return range.getBoundingClientRect().left;
            }""",
            what,
        )
        for what in ("(", "organisation")
    ]
    assert left == sorted(left)
