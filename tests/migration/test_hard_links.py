"""Random histories of deals and their links, which the sample's tidy ones cannot stand for: the rows must be the oracle's."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import rows
from tests.migration.against_oracle import assert_as_expected
from tests.migration.conftest import run_account
from tests.migration.hard_rows import AS_JSON, activity, few_contacts, insert, moved, new_contact, text_of
from tests.migration.oracle import expected
from tests.migration.oracle_sample import Audit, Sample, read_json

OURS, THEIRS, NOBODYS = range(5001, 5009), range(5009, 5013), range(5013, 5015)
PERSONS = [*OURS, *THEIRS, *NOBODYS]
DEALS = range(9001, 9007)
BEGIN = datetime(2023, 5, 1, 12)


class History:
    """Audits as the gem writes them, made up: each record keeps the state that its next audit starts from."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.joins: dict[int, dict[str, Any]] = {}  # live join rows
        self.next_join = 8001
        self.audits: list[dict[str, Any]] = []

    def write(self, audits: int) -> list[dict[str, Any]]:
        acts = [
            self.link,
            self.link,
            self.unlink,
            self.move_contact,
            self.move_deal,
            self.move_both,
            self.change_role,
            self.combine,
            self.appear,
        ]
        while len(self.audits) < audits:
            self.random.choice([*acts, self.deal, self.deal, self.deal, self.company, self.company])()
        return self.audits

    def add(self, kind: str, record: int, action: str, changes: dict[str, Any], deal: int | None = None) -> None:
        """The time may run backwards, stand still, or be missing."""
        at = BEGIN + timedelta(seconds=len(self.audits) + self.random.choice([0, 0, -30, 3600]))
        self.audits.append({
            "auditable_type": kind, "auditable_id": record, "action": action, "audited_changes": text_of(changes),
            "associated_type": deal and "Crm::Deal", "associated_id": deal,
            "created_at": self.random.choice([str(at)] * 30 + [None]),
        })  # fmt: skip

    def new_row(self) -> tuple[int, dict[str, Any]]:
        self.next_join += 1
        person = self.random.choice([*PERSONS, *PERSONS, None])
        self.joins[self.next_join] = {"role": None, "crm_deal_id": self.random.choice(DEALS), "crm_person_id": person}
        return self.next_join, self.joins[self.next_join]

    def link(self) -> None:
        join, row = self.new_row()
        self.add("Crm::DealPerson", join, "create", row, row["crm_deal_id"])

    def appear(self) -> None:
        """A row whose beginning was not audited: what its next audit leaves out, no audit before it tells."""
        self.new_row()

    def unlink(self) -> None:
        if self.joins:
            join = self.random.choice(list(self.joins))
            row = self.joins.pop(join)
            if self.random.random() < 0.8:  # the others vanish unaudited
                self.add("Crm::DealPerson", join, "destroy", row, row["crm_deal_id"])

    def change(self, **new: Any) -> None:
        """An update of some join row, of those attributes that change."""
        if not self.joins:
            return
        join = self.random.choice(list(self.joins))
        row = self.joins[join]
        changes = {name: [row[name], value] for name, value in new.items() if row[name] != value}
        row |= new
        self.add("Crm::DealPerson", join, "update", changes, row["crm_deal_id"])

    def move_contact(self) -> None:
        self.change(crm_person_id=self.random.choice([*PERSONS, None]))

    def move_deal(self) -> None:
        self.change(crm_deal_id=self.random.choice(DEALS))

    def move_both(self) -> None:
        self.change(crm_deal_id=self.random.choice(DEALS), crm_person_id=self.random.choice(PERSONS))

    def change_role(self) -> None:
        self.change(role=self.random.choice(["buyer", "[1, 2]", None]))

    def combine(self) -> None:
        """What `max_audits` leaves: an update that holds a create's values, and one pair among them."""
        join, row = self.new_row()
        self.add("Crm::DealPerson", join, "update", row | {"role": [None, "buyer"]}, row["crm_deal_id"])

    def deal(self) -> None:
        action = self.random.choice(["create", "update", "update", "update", "destroy"])
        old, new = (self.random.choice([1, 2, 4, 5, None]) for _ in range(2))
        stage = [old, new] if action == "update" else new
        self.add("Crm::Deal", self.random.choice(DEALS), action, self.random.choice([{"crm_stage_id": stage}, {}, {"amount": "1.5"}]))

    def company(self) -> None:
        deal = self.random.choice(DEALS)
        action = self.random.choice(["create", "destroy"])
        self.next_join += 1
        self.add("Crm::DealCompany", self.next_join, action, {"crm_deal_id": deal, "crm_company_id": self.random.choice([5001, 7])}, deal)


def as_audit(row: dict[str, Any], changes: str) -> Audit:
    at = row["created_at"] and datetime.fromisoformat(row["created_at"]).replace(tzinfo=UTC)
    return Audit(**{**{k: v for k, v in row.items() if k != "audited_changes"}, "changes": read_json(changes), "created_at": at})


def with_history(console, seed: int) -> Sample:
    """The CRM and the CDP with a made-up history put in; the sample as it is then."""
    known = few_contacts(console)
    contacts: list[dict[str, str | None]] = [
        {
            "id": new_contact(console, person, organisation),
            "account_id": known.accounts[organisation],
            "source": "crm",
            "source_id": str(person),
        }
        for organisation, persons in ((1, OURS), (2, THEIRS))
        for person in persons
    ]
    written = insert(console, History(seed).write(400))
    texts = dict(rows(console.crm, "SELECT id, audited_changes::text FROM audits WHERE id > 900000"))
    audits = [as_audit(row, texts[row["id"]]) for row in written]
    return replace(known, audits=known.audits + audits, contacts=[*known.contacts, *contacts])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_histories_give_the_oracles_rows_whatever_the_chunks(console, seed):
    known = with_history(console, seed)
    for organisation, chunk_size in ((1, None), (2, 25)):
        assert_as_expected(console, run_account(organisation, chunk_size=chunk_size), known)


def test_the_histories_hold_what_they_are_for(console):
    """Of every category some rows, and audits that concern contacts of both accounts at once."""
    known = with_history(console, 1)
    first, second = (expected(known, organisation) for organisation in (1, 2))
    verbs = (
        "contact_linked",
        "contact_unlinked",
        "contact_moved",
        "company_linked",
        "company_unlinked",
        "won",
        "update",
        "create",
        "delete",
    )
    assert {f"deal/{verb}" for verb in verbs} <= first.column("category").keys()
    assert {audit for audit, _ in first.candidates} & {audit for audit, _ in second.candidates}
    assert first.count("skipped") and first.count("quarantined")


# --- ids that are none ----------------------------------------------------------------------------------------------

JOIN = {"auditable_type": "Crm::DealPerson", "action": "create", "associated_type": "Crm::Deal", "associated_id": 9001}
DEAL = {"auditable_type": "Crm::Deal", "auditable_id": 9001, "audited_changes": '{"amount": ["1.0", "2.0"]}'}


def test_ids_in_a_links_changes_may_be_texts(console):
    """As where the CRM's key is a text column; compared as numbers, for the CDP knows the person by number."""
    audits = insert(console, [
        JOIN | {"auditable_id": 8001, "audited_changes": '{"crm_deal_id": "9001", "crm_person_id": "1"}'},
        DEAL,
        JOIN | {"auditable_id": 8001, "action": "update", "audited_changes": '{"crm_person_id": ["1", 1]}'},
        JOIN | {"auditable_id": 8001, "action": "destroy", "audited_changes": '{"crm_deal_id": 9001, "crm_person_id": 1}'},
        DEAL,
    ])  # fmt: skip
    categories = ("deal/contact_linked", "deal/update", "deal/update", "deal/contact_unlinked")
    source = dict(rows(console.crm, "SELECT id, audited_changes::text FROM audits WHERE id > 900000"))
    wanted = [activity(one, category, changes=source[one["id"]]) for one, category in zip(audits[:4], categories, strict=True)]
    assert moved(console).rows == wanted


NO_IDS = ('"abc"', '"1x"', '""', "null", "true", "{}", "[]", "[1, 2, 3]", "1.5", "1e400", "-1", "99999999999999999999", '" 1"')


def test_links_that_name_no_contact_concern_nobody_and_stop_nobody(console):
    changes = [f'{{"crm_deal_id": 9001, "crm_person_id": {text}}}' for text in NO_IDS] + [None, "[]", "null", '"text"', "7"]
    number = iter(range(8001, 9000))
    odd = [JOIN | {"auditable_id": next(number), "audited_changes": text, "action": "create"} for text in changes]
    odd += [one | {"action": "destroy"} for one in odd]
    audits = insert(console, [*odd, DEAL])
    found = moved(console)
    assert (found.rows, found.quarantined) == ([], {})
    assert audits


def test_a_link_whose_changes_jsonb_refuses_links_all_the_same(console):
    """Its JSON names the contact: a candidate that is unstorable, and a deal whose audits are the contact's."""
    console.change_crm(AS_JSON)
    text = '{"role": "a\\u0000b", "crm_deal_id": 9001, "crm_person_id": 1}'
    audits = insert(console, [JOIN | {"auditable_id": 8001, "audited_changes": text}, DEAL])
    found = moved(console)
    assert found.quarantined == {audits[0]["id"]: "changes_unstorable"}
    assert found.rows == [activity(audits[1], "deal/update")]
