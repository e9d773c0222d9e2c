"""Wrong passwords: how many, from where, for how long; at once and one after another."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from migration import logins
from migration.models import LoginAttempt
from tests import factories

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PASSWORD = "of-the-test"
HERE, THERE = "192.0.2.1", "198.51.100.7"

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture
def ana(db) -> User:
    user = factories.superuser("ana")
    user.set_password(PASSWORD)
    user.save()
    return user


def tries(name: str, address: str, number: int, *, now: datetime = NOON) -> None:
    for _ in range(number):
        logins.begin(name, address, now=now)


def log_in(password: str, name: str = "ana", address: str = HERE, **headers):
    return Client().post("/admin/login/?next=/admin/", {"username": name, "password": password}, REMOTE_ADDR=address, **headers)


def test_a_name_has_five_tries_from_one_address_in_a_quarter_of_an_hour(db):
    tries("ana", HERE, 4)
    tries("ANA", HERE, 1, now=NOON + timedelta(minutes=3))
    with pytest.raises(logins.TooMany) as refused:
        logins.begin("ana", HERE, now=NOON + timedelta(minutes=5))
    wanted = "Too many wrong passwords from this address: try again after 12:15:00 UTC, in 10 minutes."
    assert str(refused.value) == wanted
    logins.begin("ana", THERE, now=NOON)
    logins.begin("ben", HERE, now=NOON)
    tries("ana", HERE, 4, now=NOON + timedelta(minutes=15))
    with pytest.raises(logins.TooMany, match=r"after 12:18:00 UTC, in 3 minutes\."):
        logins.begin("ana", HERE, now=NOON + timedelta(minutes=15))


def test_an_address_has_fifty_whatever_the_names_and_others_none_the_less(db):
    for number in range(50):
        logins.begin(f"guess {number}", HERE, now=NOON)
    with pytest.raises(logins.TooMany):
        logins.begin("ana", HERE, now=NOON)
    logins.begin("ana", THERE, now=NOON)


def test_a_right_password_forgets_the_wrong_ones_of_that_name_alone(db):
    tries("ben", HERE, 5)
    tries("ana", HERE, 4)
    logins.succeeded(logins.begin("ana", HERE, now=NOON))
    assert LoginAttempt.objects.count() == 5
    tries("ana", HERE, 5)
    with pytest.raises(logins.TooMany):
        logins.begin("ben", HERE, now=NOON)


@pytest.mark.django_db(transaction=True)
def test_many_at_once_get_no_more_tries(ana):
    """Twenty requests that begin together: five are looked at."""
    together, results = threading.Barrier(20), []

    def one() -> None:
        together.wait()
        try:
            logins.begin("ana", HERE, now=NOON)
            results.append("tried")
        except logins.TooMany:
            results.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (results.count("tried"), results.count("refused"), LoginAttempt.objects.count()) == (5, 15, 5)


def test_the_page_says_so_even_to_the_right_password_and_the_log_knows_no_password(ana, caplog):
    for _ in range(5):
        assert "correct username and password" in log_in("hunter2-wrong").content.decode()
    answer = log_in(PASSWORD)
    assert "Too many wrong passwords from this address: try again after" in answer.content.decode()
    assert "_auth_user_id" not in answer.wsgi_request.session
    assert log_in(PASSWORD, address=THERE).url == "/admin/"
    said = [record.getMessage() for record in caplog.records if record.name == "migration.logins"]
    assert said == ["login of ana from 192.0.2.1 failed"] * 5 + ["login of ana from 192.0.2.1 refused: too many wrong passwords"]
    assert "hunter2" not in caplog.text
    assert PASSWORD not in caplog.text


def test_what_is_typed_as_a_name_is_kept_nowhere(ana, caplog):
    log_in("x", name="my-real-password")
    kept = [*LoginAttempt.objects.values_list("address", "pair").get()]
    assert "my-real-password" not in caplog.text + str(kept)
    assert HERE not in kept
    assert "login of an unknown name from 192.0.2.1 failed" in caplog.text


def test_a_login_leaves_nothing_behind(ana):
    log_in("wrong")
    assert log_in(PASSWORD).url == "/admin/"
    assert not LoginAttempt.objects.exists()


def test_old_tries_are_removed(db):
    tries("ana", HERE, 3)
    logins.begin("ben", THERE, now=NOON + timedelta(minutes=15))
    assert LoginAttempt.objects.count() == 1


@pytest.mark.parametrize(
    ("meta", "proxies", "address"),
    [
        ({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "198.51.100.7"}, 0, "192.0.2.1"),
        ({"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "6.6.6.6, 198.51.100.7"}, 1, "198.51.100.7"),
        ({"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "6.6.6.6, 198.51.100.7, 10.0.0.2"}, 2, "198.51.100.7"),
        ({"REMOTE_ADDR": "10.0.0.1"}, 1, "10.0.0.1"),
        ({"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "<script>"}, 1, "unknown"),
        ({"REMOTE_ADDR": ""}, 0, "unknown"),
        ({"REMOTE_ADDR": "2001:db8:1:2:3:4:5:6"}, 0, "2001:db8:1:2::/64"),
        ({"REMOTE_ADDR": "::ffff:192.0.2.1"}, 0, "192.0.2.1"),
    ],
)
def test_the_address_is_the_one_that_our_own_proxy_saw(meta, proxies, address):
    assert logins.address_of(meta, proxies) == address
