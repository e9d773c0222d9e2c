"""Django's own pages under the strict policy, in a real browser: it refuses nothing, so everything works. test_hostile.py walks all pages."""

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import expect

from tests import factories
from tests.browsing import browser, context, opened_for, seen, site  # noqa: F401 - fixtures

pytestmark = pytest.mark.django_db(transaction=True)
PASSWORD = "of-the-test"


def test_people_log_in_change_their_password_and_the_colours(context, seen):  # noqa: F811 - fixtures
    user = factories.superuser()
    user.set_password(PASSWORD)
    user.save()
    page = context.new_page()
    seen.watch(page)
    page.goto("/admin/")
    page.get_by_role("button", name="Toggle theme").click()
    page.get_by_label("Username").fill(user.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    before = page.locator("html").get_attribute("data-theme")
    page.get_by_role("button", name="Toggle theme").first.click()
    assert page.locator("html").get_attribute("data-theme") != before
    page.goto("/admin/password_change/")
    page.get_by_label("Old password").fill(PASSWORD)
    for label in ("New password:", "New password confirmation:"):
        page.get_by_label(label).fill("of-another-test")
    page.get_by_role("button", name="Change my password").click()
    expect(page.locator("body")).to_contain_text("Your password was changed.")
    seen.look(page)
    assert seen.faults == []


def test_permissions_are_moved_with_a_filter_and_saved(context, seen):  # noqa: F811 - fixtures
    user = factories.superuser()
    Group.objects.create(name="new ones")
    page = opened_for(user, context, seen)
    page.goto(f"/admin/auth/user/{user.pk}/change/")
    page.locator("#id_groups_input").fill("new ones")
    page.locator("#id_groups_from option", has_text="new ones").dblclick()
    expect(page.locator("#id_groups_to option")).to_have_count(1)
    seen.look(page)
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.locator(".messagelist")).to_contain_text("was changed successfully")
    assert [group.name for group in User.objects.get(pk=user.pk).groups.all()] == ["new ones"]
    group = Group.objects.get(name="viewer")
    page.goto(f"/admin/auth/group/{group.pk}/change/")
    page.locator("#id_permissions_input").fill("view | permission")
    seen.look(page)
    assert seen.faults == []
