"""Defects that are reported and not mended yet. A test that passes here belongs beside the others of its kind."""

import pytest

from tests.migration.hard_rows import AS_JSON, activity, insert, moved
from tests.migration.test_hard_links import DEAL, JOIN


@pytest.mark.parametrize("column", ["auditable_id", "associated_id"])
def test_the_two_ids_of_an_audit_may_be_of_different_kinds(console, column):
    """The planning's count and verification unite both: a text and an integer cannot be matched there, and the run fails."""
    console.change_crm(f"ALTER TABLE audits ALTER {column} TYPE varchar")
    as_text = {"auditable_id": str} if column == "auditable_id" else {}
    moved(console, shown=lambda context: context | {name: kind(context[name]) for name, kind in as_text.items()})


def test_a_link_whose_changes_jsonb_refuses_links_all_the_same(console):
    """Its JSON names the contact: a candidate that is unstorable, and a deal whose audits are the contact's. Here both are missing."""
    console.change_crm(AS_JSON)
    text = '{"role": "a\\u0000b", "crm_deal_id": 9001, "crm_person_id": 1}'
    audits = insert(console, [JOIN | {"auditable_id": 8001, "audited_changes": text}, DEAL])
    found = moved(console)
    assert found.quarantined == {audits[0]["id"]: "changes_unstorable"}
    assert found.rows == [activity(audits[1], "deal/update")]
