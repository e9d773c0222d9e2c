"""Gate F's probe on real audits and links: names counted by the enricher's own word, collisions listed, and guesses that it must fail."""

import json
from typing import Any

import pytest
from django.db.models import Q

from gates.probes import Finding, Measurement, match_keys
from migration import accounts, decisions, revisions
from migration.mapping import Role
from migration.models import Account, LinkIndex, NameCollision
from migration.pipeline.associations import Names
from tests.conftest import Systems, rows
from tests.migration.conftest import mapping_document, now
from tests.migration.hard_rows import AS_JSON, FIRST, insert
from tests.migration.test_associations import COMPANY, COMPANY_JOIN, COMPANY_LINKED, DEAL, deal, link

ALL = {"accounts": 3, "contacts": 321, "of_accounts": 3, "of_contacts": 321}
LOOKED = Finding(None, "Looked at every activity about a deal or a company of 321 of 321 CRM contacts (3 of 3 accounts whole).")
SURE = "no match key was resolved although two candidates differ."
TWINS = [link(), deal("create", "First", 1), deal("update", ["First", "Second"], 2), deal("update", ["First", "Third"], 2)]
KEY = {"account": 1, "role": "deal", "record_id": DEAL, "class": "Crm::Deal", "version": 2, "candidates": ["Second", "Third"]}


@pytest.fixture
def console(systems):
    """The sample systems with accounts synced and the demo's mapping published."""
    accounts.sync(now=now())
    published()
    return systems


def published(**changes: Any) -> None:
    revisions.publish(mapping_document() | changes, by="tester", note="", now=now())


def counts(certain: int = 0, absent: int = 0, ambiguous: int = 0, decided: int = 0) -> dict[str, int]:
    return {"certain": certain, "absent": absent, "ambiguous": ambiguous, "decided": decided}


def of_test_deals(systems: Systems, audits: list[dict[str, Any]]) -> Measurement:
    """What is measured of these audits alone."""
    systems.change_crm("DELETE FROM audits WHERE auditable_type IN ('Crm::Deal', 'Crm::DealPerson', 'Crm::DealCompany')")
    insert(systems, audits)
    return match_keys.measure(None)


def decide(name: str | None, account: int = 1) -> None:
    """Staff's decision on the deal's collision, as a run would have found it."""
    candidates = [[FIRST + 2, name], [FIRST + 3, "Third"]]
    found = NameCollision.objects.create(
        account=Account.objects.get(crm_organization_id=account), role=Role.DEAL, record_id=DEAL, class_name="Crm::Deal", version=2,
        candidates=candidates, first_seen_at=now(),
    )  # fmt: skip
    decisions.decide_name(found, FIRST + 2, by="ana", note="asked the customer", now=now())


# --- the sample -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("systems", "names"), [("crm_sample", 897), ("crm_sample_yaml", 206)], indirect=["systems"])
def test_the_sample_passes(console, names):
    assert match_keys.measure(None) == Measurement(
        [LOOKED, Finding(True, f"Of {names} names looked up, {names} certain, 0 without a name, 0 ambiguous and left open, 0 decided by staff; {SURE}")],
        {"counts": counts(certain=names), "keys": [], "keys_total": 0, "covered": ALL},
    )  # fmt: skip


# --- two candidates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", ["jsonb", "json"])
def test_what_the_enricher_leaves_open_is_listed_for_the_signers(console, changes):
    if changes == "json":
        console.change_crm(AS_JSON)
    found = of_test_deals(console, TWINS)
    assert found.passes
    assert found == Measurement(
        [
            LOOKED,
            Finding(True, f"Of 4 names looked up, 1 certain, 1 without a name, 2 ambiguous and left open, 0 decided by staff; {SURE}"),
            Finding(
                None,
                f"Match keys with more than one name, which staff may decide under Name collisions after a run: deal {DEAL}, version 2.",
            ),
        ],
        {"counts": counts(certain=1, absent=1, ambiguous=2), "keys": [KEY | {"verdict": "ambiguous"}], "keys_total": 1, "covered": ALL},
    )


@pytest.mark.parametrize("name", ["Second", None])
def test_what_staff_decided_is_no_guess(console, name):
    decide(name)
    found = of_test_deals(console, TWINS)
    assert found.passes
    assert found.facts["counts"] == counts(certain=1, absent=1, decided=2)
    assert found.facts["keys"] == [KEY | {"verdict": "decided"}]
    assert found.findings[1:] == [
        Finding(True, f"Of 4 names looked up, 1 certain, 1 without a name, 0 ambiguous and left open, 2 decided by staff; {SURE}")
    ]


def test_a_decision_counts_for_its_own_account_alone(console):
    decide("Second", account=2)
    assert of_test_deals(console, TWINS).facts["counts"] == counts(certain=1, absent=1, ambiguous=2)


def guessing(self: Names, key, audit_id, request):
    """An enricher that takes the last name up to the audit, however many there are."""
    names = [each.name for each in self.namings.get(key, []) if each.audit_id <= audit_id]
    return (names[-1] if names else None), None


def leaving_out(self: Names, key, audit_id, request):
    return None, None


@pytest.mark.parametrize(("enricher", "told"), [(guessing, counts(certain=1)), (leaving_out, counts(absent=1))])
def test_a_key_that_was_resolved_although_two_candidates_differ_fails(console, monkeypatch, enricher, told):
    monkeypatch.setattr(Names, "as_of", enricher)
    found = of_test_deals(console, [*TWINS[1:], TWINS[0]])
    assert not found.passes
    assert found.findings[1] == Finding(
        False, f"Match keys that were resolved although their audits give two names, undecided: deal {DEAL} (Crm::Deal, version 2)."
    )
    assert found.facts["keys"] == [KEY | {"verdict": "resolved"}]
    assert found.facts["counts"] == told


def test_a_name_that_no_audit_gives_fails(console, monkeypatch):
    monkeypatch.setattr(Names, "as_of", lambda self, key, audit_id, request: ("Elsewhere", None))
    found = of_test_deals(console, [link(), deal("create", "First", 1)])
    assert not found.passes
    assert found.findings[2] == Finding(
        False,
        f"The enricher gives names that the records' audits do not: deal {DEAL} at audit {FIRST}; deal {DEAL} at audit {FIRST + 1}.",
    )


def test_a_collision_that_no_activity_asks_for_is_counted(console):
    joined = [COMPANY_JOIN | {"auditable_id": 9002, "associated_id": DEAL, "action": "create", "audited_changes": COMPANY_LINKED}]
    company = {"auditable_type": "Crm::Company", "auditable_id": COMPANY, "action": "update"}
    later = [company | {"version": 5, "audited_changes": json.dumps({"name": ["Acme", name]})} for name in ("Acme 2", "Acme 3")]
    first = company | {"version": 4, "action": "create", "audited_changes": '{"name": "Acme"}'}
    found = of_test_deals(console, [link(), deal("create", "First", 1), first, *joined, *later])
    assert found.passes
    # The link's deal is named by nothing up to it; the deal's create; the company link's deal and company.
    assert found.facts["counts"] == counts(certain=3, absent=1)
    assert found.facts["keys"] == [
        {
            "account": 1, "role": "company", "record_id": COMPANY, "class": "Crm::Company", "version": 5,
            "candidates": ["Acme 2", "Acme 3"], "verdict": "not used",
        }
    ]  # fmt: skip
    assert found.findings[-1] == Finding(None, "Match keys with more than one name that no activity asks for: 1.")


def test_names_that_are_no_candidates(console):
    """The same name twice, another class with the same version, audits without a version, and a name later in the same request."""
    same = [deal("create", "Same", 1), deal("update", ["x", "Same"], 1), deal("update", ["x", "Other"], 1, auditable_type="Old::Deal")]
    unversioned = [deal("update", ["Same", name], 1) | {"version": None} for name in ("One", "Two")]
    published(class_roles=mapping_document()["class_roles"] | {"deal": ["Crm::Deal", "Old::Deal"]})
    audits = [link(request_uuid="r"), *[each | {"request_uuid": "r"} for each in same], *unversioned]
    found = of_test_deals(console, audits)
    assert found.passes
    assert found.facts["counts"] == counts(certain=6)
    assert found.facts["keys"] == []


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_the_largest_accounts_first_as_far_as_the_bound_goes(console, monkeypatch):
    largest = max(contacts_of(console))
    monkeypatch.setattr(match_keys, "MOST_CONTACTS", largest + 7)
    monkeypatch.setattr(match_keys, "PERSONS_AT_ONCE", 5)
    found = match_keys.measure(None)
    assert found.facts["covered"] == {"accounts": 1, "contacts": largest + 7, "of_accounts": 3, "of_contacts": 321}
    assert found.findings[0].sentence == (
        f"Looked at every activity about a deal or a company of {largest + 7} of 321 CRM contacts (1 of 3 accounts whole)."
    )
    assert 0 < sum(found.facts["counts"].values()) < 897


def contacts_of(systems: Systems) -> list[int]:
    query = """SELECT count(c.id) FILTER (WHERE source = 'crm' AND source_id >= 0) FROM accounts a JOIN contacts c ON c.account_id = a.id
               GROUP BY crm_organization_id ORDER BY crm_organization_id"""
    return [size for (size,) in rows(systems.cdp, query)]


def test_batches_change_nothing(console, monkeypatch):
    monkeypatch.setattr(match_keys, "PERSONS_AT_ONCE", 17)
    assert match_keys.measure(None).facts["counts"] == counts(certain=897)


def test_at_most_200_keys_are_listed(console, monkeypatch):
    monkeypatch.setattr(match_keys, "MOST_KEYS", 2)
    monkeypatch.setattr(match_keys, "MOST_TOLD", 2)
    audits = [
        each
        for n in range(4)
        for each in (link(record=DEAL + n, row=9001 + n), *[deal("update", ["", name], 2, DEAL + n) for name in "ab"])
    ]
    found = of_test_deals(console, audits)
    assert (len(found.facts["keys"]), found.facts["keys_total"]) == (2, 4)
    assert found.findings[2].sentence.endswith(f"deal {DEAL}, version 2; deal {DEAL + 1}, version 2 and 2 more.")


def test_a_link_index_that_takes_too_long_goes_on_the_next_time(console, monkeypatch):
    monkeypatch.setattr(match_keys, "SECONDS", -1)
    assert match_keys.measure(None) == Measurement(
        [Finding(False, "The link index is still being built: measure again, and it goes on from where it is.")]
    )
    assert not LinkIndex.objects.get().built
    monkeypatch.setattr(match_keys, "SECONDS", 45)
    assert match_keys.measure(None).passes
    assert LinkIndex.objects.get().built


# --- nothing to measure ---------------------------------------------------------------------------------------------


def test_no_mapping_is_published(systems):
    assert match_keys.measure(None).findings == [
        Finding(False, "No mapping is published, so no activity can be enriched: run `manage.py publish_mapping --file mapping.json`.")
    ]
    assert match_keys.configuration(None)["the mapping's class roles and name attributes"] == "none"


@pytest.mark.parametrize("known", [False, True])
def test_accounts_that_are_not_known_or_gone(systems, known):
    if known:
        accounts.sync(now=now())
        Account.objects.filter(~Q(crm_organization_id=0)).update(gone=True)
    published()
    found = match_keys.measure(None)
    assert found.findings == [
        Finding(
            False,
            "Nothing could be measured: no activity about a deal or a company was found of 0 of 0 CRM contacts (0 of 0 accounts whole).",
        )
    ]
    assert found.facts["counts"] == counts()


def test_a_mapping_without_deals_measures_nothing(console):
    roles = mapping_document()["class_roles"] | {"deal": [], "deal_contact_join": [], "deal_company_join": []}
    published(class_roles=roles)
    assert not match_keys.measure(None).passes


# --- what the sign-off depends on -----------------------------------------------------------------------------------


def test_the_configuration_is_the_crm_and_what_names_rest_on(console, settings):
    first = match_keys.configuration(None)
    host = settings.CRM_DATABASE_URL.rpartition("@")[2]
    assert first["CRM_DATABASE_URL"] == f"{host} as calm_test_reader"
    assert set(first) == {"CRM_DATABASE_URL", "the mapping's class roles and name attributes"}
    assert len(first["the mapping's class roles and name attributes"]) == 12
    published(id_sets={"won": [4]}, secrets=["other"])
    assert match_keys.configuration(None) == first
    published(name_attributes={"deal": "title", "company": "name"})
    other = match_keys.configuration(None)
    published(class_roles=mapping_document()["class_roles"] | {"company": ["Company"]})
    assert len({str(each) for each in (first, other, match_keys.configuration(None))}) == 3
