"""Addresses that nobody's click makes: a sentence, an empty list, or the list without its filter, but never an error of the server."""

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from migration.admin.records import RecordAdmin, whole
from migration.models import ReadBudget
from tests import factories

pytestmark = pytest.mark.django_db

LISTS = [each for _, each in admin.site._registry.items() if isinstance(each, RecordAdmin)]
LONG = "9" * 4400  # more digits than Python reads as a number
ODD = ["\0", "x\0", LONG, "9" * 19, "²", "'"]


@pytest.fixture
def staff(client) -> Client:
    client.force_login(factories.superuser())
    factories.event(factories.chunk(factories.run()).run)
    return client


def names(each: RecordAdmin) -> list[str]:
    """What the address of a list may hold: its filters' names, and what is searched for."""
    filters = [part[0] if isinstance(part, tuple) else part for part in each.list_filter]
    return ["q", "p", *(part if isinstance(part, str) else part.parameter_name for part in filters)]


@pytest.mark.parametrize("each", LISTS, ids=lambda each: each.opts.label_lower)
def test_no_list_breaks_at_what_is_asked_for(staff, each):
    listing = reverse(f"admin:{each.opts.app_label}_{each.opts.model_name}_changelist")
    answers = {(name, odd[:3]): staff.get(listing, {name: odd}).status_code for name in names(each) for odd in ODD}
    assert {key: status for key, status in answers.items() if status not in (200, 302)} == {}


def test_nor_the_accounts_of_a_gate(staff):
    address = reverse("admin:gates_gate_change", args=["C"])
    assert [staff.get(address, {"q": odd}).status_code for odd in ODD] == [200] * len(ODD)


def test_how_many_may_read_is_no_number_of_thousands_of_digits(staff):
    address = reverse("admin:migration_readbudget_set")
    shown = staff.post(address, {"note": "x", "what": "allow", "most": LONG}).content.decode()
    assert "must be a whole number from 1 to 1000" in shown and not ReadBudget.objects.filter(most_readers__isnull=False).exists()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        (LONG, None),
        ("", None),
        ("-1", None),
        ("1.0", None),
        ("²", None),
    ],
)
def test_whole_numbers_as_far_as_a_column_holds_them(text, number):
    assert whole(text) == number
