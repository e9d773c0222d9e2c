"""Gate C's probe on a real CDP: whole findings and facts of the sample's accounts, and of accounts that it must fail."""

from uuid import UUID, uuid4

import pytest

from gates.probes import Finding, Measurement, coverage
from migration.models import Account
from tests.conftest import PASSWORD, Systems, at, rows
from tests.factories import NOON

NOTHING_ELSE = "since nothing else says which CRM person is meant."


def of_sample(systems: Systems, organisation: int) -> Account:
    found = rows(systems.cdp, "SELECT id FROM accounts WHERE crm_organization_id = %s", (organisation,))
    return Account(cdp_id=found[0][0], crm_organization_id=organisation, name=f"Account {organisation}", synced_at=NOON)


def made(systems: Systems, carrying: int, without: int = 0, negative: int = 0, other: str = "") -> Account:
    """An account with so many contacts, numbered by their ids; `other` gives it three more of another source."""
    account = Account(cdp_id=uuid4(), crm_organization_id=900, name="Made", synced_at=NOON)
    number = f"('00000000-0000-0000-0000-' || lpad((%s + g)::text, 12, '0'))::uuid, '{account.cdp_id}'"
    insert = f"INSERT INTO contacts (id, account_id, source, source_id, created_at) SELECT {number}, %s, %s, '2026-01-02' FROM generate_series(1, %s) g"
    systems.change_cdp(
        f"INSERT INTO accounts VALUES ('{account.cdp_id}', 900, 'Made')",
        insert % (0, "'crm'", "g - 1", carrying),
        insert % (100_000, "'crm'", "NULL", without),
        insert % (200_000, "'crm'", "-g", negative),
        insert % (300_000, f"'{other}'" if other else "NULL", "g", 3 if other else 0),
    )
    return account


def verdict(found: Measurement) -> list[tuple[bool | None, str]]:
    return [(each.ok, each.sentence) for each in found.findings]


# --- the sample -----------------------------------------------------------------------------------------------------


def test_account_3_of_the_sample_falls_short(systems):
    account = of_sample(systems, 3)
    found = coverage.measure(account)
    contacts = "FROM contacts WHERE account_id = %s AND source = 'crm'"
    lacking = rows(systems.cdp, f"SELECT id::text, created_at {contacts} AND source_id IS NULL ORDER BY id", (account.cdp_id,))
    others = rows(systems.cdp, "SELECT source, count(*) FROM contacts WHERE account_id = %s GROUP BY 1 ORDER BY 2 DESC", (account.cdp_id,))
    assert not found.passes
    assert found == Measurement(
        [
            Finding(
                False,
                "95 of the account's 98 CDP contacts with source 'crm' carry a source_id: 96.94 %, less than the 99 % that are needed: "
                "have the CDP record the CRM person id of 3 more (contacts.source_id).",
            ),
            Finding(None, f"3 contacts carry none: their history stays in the CRM, {NOTHING_ELSE}"),
        ],
        {
            "numerator": 95,
            "denominator": 98,
            "percent": "96.94",
            "threshold": "99",
            "missing": [{"contact": contact, "source_id": None, "created_at": at.isoformat()} for contact, at in lacking],
            "missing_total": 3,
            "sources": [{"source": source, "contacts": number} for source, number in others],
        },
    )
    assert len(found.facts["missing"]) == 3


@pytest.mark.parametrize("organisation", [1, 2])
def test_the_other_accounts_pass(systems, organisation):
    found = coverage.measure(of_sample(systems, organisation))
    assert found.passes
    assert found.facts["numerator"] == found.facts["denominator"] > 0
    assert (found.facts["percent"], found.facts["missing"], found.facts["missing_total"]) == ("100.00", [], 0)
    assert len(found.findings) == 1


# --- the bound ------------------------------------------------------------------------------------------------------


def test_just_99_percent_pass_and_what_is_missing_is_told(systems):
    found = coverage.measure(made(systems, 99, without=1))
    assert found.passes
    assert verdict(found) == [
        (True, "99 of the account's 100 CDP contacts with source 'crm' carry a source_id: 99.00 %, and 99 % are needed."),
        (None, f"1 contact carries none: its history stays in the CRM, {NOTHING_ELSE}"),
    ]
    contact = "00000000-0000-0000-0000-000000100001"
    assert found.facts["missing"] == [{"contact": contact, "source_id": None, "created_at": "2026-01-02T00:00:00+00:00"}]


def test_a_hair_below_99_percent_fails_and_is_not_shown_as_99(systems):
    found = coverage.measure(made(systems, 98_999, without=1_001))
    assert not found.passes
    assert verdict(found) == [
        (
            False,
            "98,999 of the account's 100,000 CDP contacts with source 'crm' carry a source_id: 98.99 %, less than the 99 % that are needed: "
            "have the CDP record the CRM person id of 1 more (contacts.source_id).",
        ),
        (None, f"1,001 contacts carry none: their history stays in the CRM, {NOTHING_ELSE}"),
    ]
    assert found.facts["percent"] == "98.99"
    assert (len(found.facts["missing"]), found.facts["missing_total"]) == (200, 1001)


def test_a_negative_number_is_no_source_id_and_zero_is_one(systems):
    found = coverage.measure(made(systems, 50, negative=2))  # the first of the 50 carries 0
    assert not found.passes
    assert (found.facts["numerator"], found.facts["denominator"], found.facts["percent"]) == (50, 52, "96.15")
    assert [(each["contact"][-6:], each["source_id"]) for each in found.facts["missing"]] == [("200001", -1), ("200002", -2)]


@pytest.mark.parametrize(
    ("numerator", "denominator", "shown", "more"),
    [
        (0, 3, "0.00", 3),
        (2, 3, "66.67", 1),
        (95, 98, "96.94", 3),
        (98_994, 100_000, "98.99", 6),
        (98_999, 100_000, "98.99", 1),
        (99_000, 100_000, "99.00", 0),
        (98_999_999, 100_000_000, "98.99", 1),
        (999_999, 1_000_000, "99.99", -9_999),
        (10**9, 10**9, "100.00", -(10**7)),
    ],
)
def test_rounding_never_reaches_a_bound_that_the_count_does_not(numerator, denominator, shown, more):
    assert coverage.percent(numerator, denominator) == shown
    assert coverage.enough(numerator, denominator) == more


# --- nothing to measure ---------------------------------------------------------------------------------------------


def test_an_account_without_any_contact_fails(systems):
    found = coverage.measure(made(systems, 0))
    assert verdict(found) == [
        (
            False,
            "The CDP holds no contact with source 'crm' for the account (it has no contacts at all), so nothing could be measured: "
            "have its contacts synced from the CRM, or leave the account out.",
        )
    ]
    assert found.facts == {
        "numerator": 0, "denominator": 0, "percent": None, "threshold": "99", "missing": [], "missing_total": 0, "sources": [],
    }  # fmt: skip


def test_contacts_of_other_sources_alone_fail_and_are_named(systems):
    account = made(systems, 0, other="CRM")
    systems.change_cdp(f"INSERT INTO contacts (id, account_id) VALUES (gen_random_uuid(), '{account.cdp_id}')")
    found = coverage.measure(account)
    assert not found.passes
    assert "(its contacts' sources are 'CRM' (3), none (1))" in found.findings[0].sentence
    assert found.facts["sources"] == [{"source": "CRM", "contacts": 3}, {"source": None, "contacts": 1}]


def test_a_cdp_that_does_not_tell_when_a_contact_was_made(systems):
    account = made(systems, 1, without=1)
    systems.change_cdp("ALTER TABLE contacts DROP COLUMN created_at")
    assert coverage.measure(account).facts["missing"] == [
        {"contact": "00000000-0000-0000-0000-000000100001", "source_id": None, "created_at": None}
    ]


# --- what the sign-off depends on -----------------------------------------------------------------------------------


def test_the_configuration_names_no_password_and_opens_nothing(settings):
    account = Account(cdp_id=UUID(int=7), crm_organization_id=7, name="Seven", synced_at=NOON)
    settings.CDP_DATABASE_URL = at("postgresql://nowhere.example:5433/x", "cdp", "calm_loader", PASSWORD)
    assert coverage.configuration(account) == {
        "CDP_DATABASE_URL": "nowhere.example:5433/cdp as calm_loader",
        "the account's CDP id": "00000000-0000-0000-0000-000000000007",
        "the threshold": "99 %",
    }


def test_gate_c_is_never_measured_without_an_account():
    for ask in (coverage.measure, coverage.configuration):
        with pytest.raises(ValueError, match="an account must be named"):
            ask(None)
