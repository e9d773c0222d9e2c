"""Withdrawing, removing stale rows and publishing ask for the password again, whatever the session is allowed."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from migration.models import LoginAttempt, MappingRevision, Run
from migration.states import RunState
from tests import factories
from tests.migration.conftest import mapping_document

PASSWORD = "of-the-test"
HERE = "/admin/password-again/"

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture
def root(db) -> User:
    user = factories.superuser()
    user.set_password(PASSWORD)
    user.save()
    return user


@pytest.fixture
def staff(client, root) -> Client:
    client.force_login(root)
    return client


def addresses() -> list[str]:
    from migration import drafts

    run = factories.run(RunState.SUCCEEDED, stale=1)
    draft = drafts.start("a draft", by="root", now=timezone.now())
    return [
        reverse("admin:migration_run_withdraw", args=[run.pk]),
        reverse("admin:migration_run_stale", args=[run.pk]),
        reverse("admin:migration_mappingdraft_publish", args=[draft.pk]),
    ]


@pytest.fixture
def asked_for(db) -> list[str]:
    factories.mapping(document=mapping_document())
    return addresses()


def test_each_asks_first_and_does_nothing(staff, asked_for):
    before = list(Run.objects.values()), MappingRevision.objects.count()
    for address in asked_for:
        wanted = f"{HERE}?next={address.replace('/', '%2F')}"
        assert staff.get(address).url == wanted
        assert staff.post(address, {"note": "x"}).url == wanted
        assert "Nothing was done yet: your password is asked first." in staff.get(wanted).content.decode()
    assert (list(Run.objects.values()), MappingRevision.objects.count()) == before


def test_the_right_password_opens_them_for_ten_minutes(staff, asked_for):
    shown = staff.get(HERE, {"next": asked_for[2]}).content.decode()
    assert f'name="next" value="{asked_for[2]}"' in shown
    assert staff.post(HERE, {"next": asked_for[2], "password": PASSWORD}).url == asked_for[2]
    assert staff.get(asked_for[2]).status_code == 200
    session = staff.session
    session["password_typed_at"] -= timedelta(minutes=10).total_seconds()
    session.save()
    assert staff.get(asked_for[2]).url.startswith(HERE)


def test_a_wrong_one_does_not_and_counts_as_a_failed_login(staff, asked_for, caplog):
    for _ in range(5):
        assert "That is not your password." in staff.post(HERE, {"next": asked_for[0], "password": "hunter2"}).content.decode()
    assert LoginAttempt.objects.count() == 5
    assert "Too many wrong passwords" in staff.post(HERE, {"next": asked_for[0], "password": PASSWORD}).content.decode()
    assert staff.get(asked_for[0]).url.startswith(HERE)
    assert "hunter2" not in caplog.text


def test_another_login_in_the_same_browser_does_not_inherit_it(staff, asked_for):
    factories.password_typed(staff)
    staff.logout()
    staff.force_login(factories.superuser("other"))
    assert staff.get(asked_for[0]).url.startswith(HERE)


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "\\\\evil.example", ""])
def test_it_goes_on_to_pages_of_ours_only(staff, next):
    assert staff.post(HERE, {"next": next, "password": PASSWORD}).url == "/admin/"


def test_who_has_no_password_here_reads_what_to_do(client, asked_for):
    client.force_login(User.objects.create_superuser("sso"))
    assert client.get(asked_for[0]).url.startswith(HERE)
    shown = client.post(HERE, {"next": asked_for[0], "password": ""}).content.decode()
    assert "Your login has no password here, as you log in elsewhere (single sign-on)" in shown
    assert 'type="password"' not in shown
    assert client.get(asked_for[0]).url.startswith(HERE)


def test_whoever_may_not_is_refused_before_and_a_stranger_logs_in(client, asked_for):
    assert client.get(HERE).url.startswith("/admin/login/")
    client.force_login(factories.viewer())
    assert [client.get(address).status_code for address in asked_for] == [403, 403, 403]
