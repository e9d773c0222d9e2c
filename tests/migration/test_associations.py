"""Names of deals and companies as of an audit: whole contexts, what is ambiguous, and what turning enrichment on changes."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from migration import decisions, ledger, revisions
from migration.mapping import Role
from migration.models import NameCollision
from migration.pipeline.associations import Names
from migration.pipeline.records import Naming
from migration.states import RunMode, RunState
from tests.conftest import Systems, rows
from tests.migration.conftest import mapping_document, now, run_account
from tests.migration.hard_rows import AS_JSON, FIRST, activity, insert

DEAL, COMPANY = 9000, 9100
JOIN = {"auditable_type": "Crm::DealPerson", "auditable_id": 9001, "associated_type": "Crm::Deal", "associated_id": DEAL, "version": 1}
COMPANY_JOIN = JOIN | {"auditable_type": "Crm::DealCompany"}
LINKED = f'{{"crm_deal_id": {DEAL}, "crm_person_id": 1}}'
COMPANY_LINKED = f'{{"crm_deal_id": {DEAL}, "crm_company_id": {COMPANY}}}'


@pytest.fixture
def with_f(settings):
    settings.GATE_POLICY = "tests.migration.policies.with_f"


def deal(action: str, name: Any, version: int, record: int = DEAL, **more: Any) -> dict[str, Any]:
    """An audit of a deal that tells its name: a value, or for an update the pair."""
    audit = {"auditable_type": "Crm::Deal", "auditable_id": record, "action": action, "version": version}
    return audit | {"audited_changes": json.dumps({"name": name}, ensure_ascii=False)} | more


def link(action: str = "create", record: int = DEAL, row: int = 9001, **more: Any) -> dict[str, Any]:
    changes = json.dumps({"crm_deal_id": record, "crm_person_id": 1})
    return JOIN | {"action": action, "auditable_id": row, "associated_id": record, "audited_changes": changes} | more


def produced(systems: Systems) -> list[tuple]:
    """Account 1 moved; the rows of inserted audits, without their run."""
    run = run_account(1)
    assert run.state in (RunState.SUCCEEDED, RunState.PARTIAL), run.reason
    assert ledger.of(run).balances and run.verification["agrees"]
    return [row[:-1] for row in systems.activities(f"source_audit_id >= {FIRST}")]


def contexts(found: list[tuple]) -> dict[int, dict[str, Any]]:
    """Audit id, counted from the first inserted one -> what the enricher put into the context."""
    own = {"action", "auditable_type", "auditable_id", "user_type", "user_id", "comment", "mapping_revision", "fallthrough"}
    plain = {row[11] - FIRST: json.loads(row[9]) for row in found}
    return {audit: {key: value for key, value in each.items() if key not in own} for audit, each in plain.items()}


# --- names as of an audit, whole rows -------------------------------------------------------------------------------


def test_whole_rows_with_the_names_of_their_moment(console, with_f):
    """Renamed between, linked to a company, moved away, destroyed before its links."""
    audits = insert(
        console,
        [
            deal("create", "Alpha", 1),
            {"auditable_type": "Crm::Company", "auditable_id": COMPANY, "action": "create", "version": 1} | {"audited_changes": '{"name": "Firm"}'},
            link(),
            deal("update", ["Alpha", "Beta"], 2),
            JOIN | {"version": 2, "audited_changes": '{"role": [null, "buyer"]}'},
            COMPANY_JOIN | {"action": "create", "audited_changes": COMPANY_LINKED},
            {"auditable_type": "Crm::Deal", "auditable_id": DEAL, "version": 3, "audited_changes": '{"amount": ["1.0", "2.0"]}'},
            deal("create", "Gamma", 1, record=DEAL + 1),
            JOIN | {"version": 3, "associated_id": DEAL + 1, "audited_changes": f'{{"crm_deal_id": [{DEAL}, {DEAL + 1}]}}'},
            deal("destroy", "Gamma \u202e\"quoted\"\t", 2, record=DEAL + 1),
            link("destroy", DEAL + 1, version=4),
        ],
    )  # fmt: skip
    alpha, beta = {"deal_id": DEAL, "deal_name": "Alpha"}, {"deal_id": DEAL, "deal_name": "Beta"}
    gamma, last = {"deal_id": DEAL + 1, "deal_name": "Gamma"}, {"deal_id": DEAL + 1, "deal_name": 'Gamma \u202e"quoted"\t'}
    wanted = {
        2: ("deal/contact_linked", alpha),
        3: ("deal/update", beta),
        4: ("deal/update", beta),
        5: ("deal/company_linked", beta | {"company_id": COMPANY, "company_name": "Firm"}),
        6: ("deal/update", beta),
        8: ("deal/contact_moved", gamma),
        9: ("deal/delete", last),
        10: ("deal/contact_unlinked", last),
    }
    assert produced(console) == [activity(audits[at], category, context=names) for at, (category, names) in wanted.items()]


def test_a_name_told_only_later_counts_within_the_same_request_alone(console, with_f):
    """Each deal's link comes before its first naming audit: in the same request, in another, in none; and there may be no name at all."""
    insert(
        console,
        [
            link(record=9000, row=9001, request_uuid="mobile-ios-17@4.2"),
            link(record=9001, row=9002, request_uuid="a"),
            link(record=9002, row=9003, request_uuid=None),
            link(record=9003, row=9004, request_uuid="a"),
            link(record=9004, row=9005, request_uuid="b"),
            deal("create", "Other", 1, record=9000, request_uuid="other"),
            deal("update", ["Other", "Same"], 2, record=9000, request_uuid="mobile-ios-17@4.2"),
            deal("update", ["Same", "Later"], 3, record=9000, request_uuid="mobile-ios-17@4.2"),
            deal("create", "Elsewhere", 1, record=9001, request_uuid="b"),
            deal("create", "Nowhere", 1, record=9002, request_uuid=None),
            deal("create", None, 1, record=9004, request_uuid="b"),
        ],
    )
    found = contexts(produced(console))
    assert {audit: found[audit] for audit in range(5)} == {
        0: {"deal_id": 9000, "deal_name": "Same"},
        1: {"deal_id": 9001},
        2: {"deal_id": 9002},
        3: {"deal_id": 9003},
        4: {"deal_id": 9004},
    }


def test_a_merged_contact_s_two_activities_name_the_deal_that_each_was_in(console, with_f):
    """Contact and deal change in one update: unlinked from the old deal, linked to the new one."""
    insert(
        console,
        [
            deal("create", "Old", 1, record=9000),
            deal("create", "New", 1, record=9001),
            link(record=9000),
            JOIN | {"version": 2, "associated_id": 9001, "audited_changes": '{"crm_deal_id": [9000, 9001], "crm_person_id": [1, 14]}'},
        ],
    )
    found = [(row[3], json.loads(row[9])["deal_name"]) for row in produced(console) if row[11] == FIRST + 3]
    assert sorted(found) == [("deal/contact_linked", "New"), ("deal/contact_unlinked", "Old")]


def test_classes_of_one_role_share_the_match_key_and_their_versions_do_not_collide(console, with_f):
    document = mapping_document()
    document["class_roles"]["deal"].append("OldDeal")
    revisions.publish(document, by="tester", note="", now=now())
    insert(
        console,
        [
            deal("create", "Before", 1) | {"auditable_type": "OldDeal"},
            link(),
            deal("update", ["Before", "After"], 1),
            JOIN | {"version": 2, "audited_changes": '{"role": [null, "x"]}'},
        ],
    )
    found = contexts(produced(console))
    assert [found[at]["deal_name"] for at in (1, 2, 3)] == ["Before", "After", "After"]
    assert not NameCollision.objects.exists()


def test_a_name_beside_what_jsonb_refuses_is_the_name_all_the_same(console, with_f):
    console.change_crm("ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::text::json")
    refused = deal("update", ["Old", "New"], 2) | {"audited_changes": '{"name": ["Old", "New"], "notes": [null, "\\u0000"]}'}
    insert(console, [deal("create", "Old", 1), link(), refused, JOIN | {"version": 2, "audited_changes": '{"role": [null, "x"]}'}])
    found = contexts(produced(console))
    assert (found[1]["deal_name"], found[3]["deal_name"]) == ("Old", "New")


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
@pytest.mark.parametrize("text", ['"name"', '["name"]', '["name", {"name": "Other"}]'])
def test_changes_that_are_no_object_tell_no_name(console, with_f, change, text):
    """Nor that there is none: they are quarantined, and the name that was told before holds on."""
    console.change_crm(change)
    insert(console, [deal("create", "Alpha", 1), link(), deal("update", [], 2) | {"audited_changes": text}, JOIN | {"version": 2}])
    assert contexts(produced(console)) == {audit: {"deal_id": DEAL, "deal_name": "Alpha"} for audit in (1, 3)}


# --- two writers ----------------------------------------------------------------------------------------------------


def two_writers(systems: Systems) -> None:
    """Of deal 9000 nobody knows the name of version 2; of deal 9001 both say the same; deal 9002's company is disputed."""
    insert(
        systems,
        [
            deal("create", "First", 1),
            link(),
            deal("update", ["First", "Ours"], 2),
            deal("update", ["First", "Theirs"], 2),
            JOIN | {"version": 2, "audited_changes": '{"role": [null, "x"]}'},
            deal("update", ["Theirs", "Last"], 3),
            deal("create", "Twice", 1, record=9001),
            deal("update", ["Twice", "Done"], 2, record=9001),
            deal("update", ["Twice", "Done"], 2, record=9001),
            link(record=9001, row=9002),
            deal("create", "Sure", 1, record=9002),
            {
                "auditable_type": "Crm::Company",
                "auditable_id": COMPANY,
                "action": "create",
                "version": 1,
                "audited_changes": '{"name": "A"}',
            },
            {
                "auditable_type": "Crm::Company",
                "auditable_id": COMPANY,
                "action": "create",
                "version": 1,
                "audited_changes": '{"name": null}',
            },
            link(record=9002, row=9003),
            COMPANY_JOIN | {"action": "create", "associated_id": 9002} | {"audited_changes": COMPANY_LINKED.replace("9000", "9002")},
        ],
    )


UNDECIDED = {
    1: {"deal_id": 9000, "deal_name": "First"},
    2: {"deal_id": 9000, "association": "ambiguous"},
    3: {"deal_id": 9000, "association": "ambiguous"},
    4: {"deal_id": 9000, "association": "ambiguous"},
    5: {"deal_id": 9000, "deal_name": "Last"},
    9: {"deal_id": 9001, "deal_name": "Done"},
    13: {"deal_id": 9002, "deal_name": "Sure"},
    14: {"deal_id": 9002, "deal_name": "Sure", "company_id": COMPANY, "association": "ambiguous"},
}


def test_two_names_of_one_version_are_ambiguous_until_staff_decide(console, with_f):
    two_writers(console)
    assert contexts(produced(console)) == UNDECIDED
    found = NameCollision.objects.order_by("role").values_list("role", "record_id", "class_name", "version", "candidates", "decided_name")
    assert list(found) == [
        ("company", COMPANY, "Crm::Company", 1, [[FIRST + 11, "A"], [FIRST + 12, None]], None),
        ("deal", 9000, "Crm::Deal", 2, [[FIRST + 2, "Ours"], [FIRST + 3, "Theirs"]], None),
    ]

    before = console.activities()
    decide(FIRST + 2)
    again = run_account(1)
    after = console.activities()
    assert ledger.of(again).corrected == 3
    assert {row[11] - FIRST for row in set(after) - set(before)} == {2, 3, 4}
    decided = {at: {"deal_id": 9000, "deal_name": "Ours"} for at in (2, 3, 4)}
    assert contexts([row[:-1] for row in after if (row[11] or 0) >= FIRST]) == UNDECIDED | decided
    assert NameCollision.objects.count() == 2

    third = run_account(1)
    assert (ledger.of(third).corrected, console.activities()) == (0, after)


def decide(audit: int) -> None:
    collision = NameCollision.objects.get(role="deal" if audit < FIRST + 9 else "company")
    decisions.decide_name(collision, audit, by="ana", note="asked sales", now=now())


def test_staff_may_decide_that_a_record_had_no_name_then(console, with_f):
    two_writers(console)
    run_account(1)
    decide(FIRST + 12)
    found = contexts(produced(console))
    assert found == UNDECIDED | {14: {"deal_id": 9002, "deal_name": "Sure", "company_id": COMPANY}}


def test_a_dry_run_shows_collisions_too(console, with_f):
    two_writers(console)
    run = run_account(1, RunMode.DRY_RUN)
    assert ledger.of(run).balances
    assert NameCollision.objects.count() == 2


# --- on and off -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["SELECT 1", "ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::text::json"])
def test_turning_it_on_corrects_exactly_the_activities_of_deals_and_links(console, settings, change):
    console.change_crm(change)
    off = run_account(1)
    before = {row[0]: row for row in console.activities("origin = 'crm_migration'")}
    assert not any({"deal_id", "company_id", "association"} & json.loads(row[9]).keys() for row in before.values())

    settings.GATE_POLICY = "tests.migration.policies.with_f"
    on = run_account(1)
    after = {row[0]: row for row in console.activities("origin = 'crm_migration'")}
    named = names_by_brute_force(console)
    wanted = {}
    for key, row in before.items():
        added = named(row) if row[3].startswith("deal/") else {}
        wanted[key] = (*row[:9], json.loads(row[9]) | added, *row[10:12], str((on if added else off).uuid))
    assert {key: (*row[:9], json.loads(row[9]), *row[10:]) for key, row in after.items()} == wanted
    changed = sum(row[3].startswith("deal/") for row in before.values())
    counts = ledger.of(on)
    assert (counts.written, counts.corrected, counts.unchanged) == (0, changed, len(before) - changed)
    assert changed > 150
    assert all(old == new for old, new in (each.split(" -> ") for each in counts.recategorised))


def names_by_brute_force(systems: Systems) -> Any:
    """A function from a row of ours to what its context must gain: every audit is looked through for every question."""
    audits = rows(
        systems.crm,
        """SELECT id, auditable_type, auditable_id, action, version, request_uuid, audited_changes::text, associated_id
           FROM audits ORDER BY id""",
    )
    told = {audit[0]: (*audit[:6], json.loads(audit[6]), audit[7]) for audit in audits}

    def of(row: tuple) -> dict[str, object]:
        audit = told[row[11]]
        if audit[1] == "Crm::Deal":
            return name_of("deal", "Crm::Deal", audit[2], audit)
        joined = next(a for a in told.values() if (a[1], a[2], a[3]) == (audit[1], audit[2], "create"))[6]
        ends = joined | {
            key: value[-1]
            for a in told.values()
            if a[1:3] == audit[1:3] and a[0] <= audit[0] and a[3] == "update"
            for key, value in a[6].items()
        }
        gained = name_of("deal", "Crm::Deal", ends["crm_deal_id"], audit)
        if audit[1] == "Crm::DealCompany":
            gained |= name_of("company", "Crm::Company", ends["crm_company_id"], audit)
        return gained

    def name_of(label: str, class_name: str, record: int, audit: tuple) -> dict[str, object]:
        naming = [a for a in told.values() if a[1:3] == (class_name, record) and "name" in a[6]]
        upto = [a for a in naming if a[0] <= audit[0]]
        later = [a for a in naming if a[0] > audit[0] and a[5] == audit[5]]
        chosen = upto[-1] if upto else later[0] if later else None
        if chosen is None:
            return {f"{label}_id": record}
        names = {name_in(a) for a in naming if a[4] == chosen[4]}
        return (
            {f"{label}_id": record, f"{label}_name": name_in(chosen)}
            if len(names) == 1
            else {f"{label}_id": record, "association": "ambiguous"}
        )

    return of


def name_in(audit: tuple) -> Any:
    name = audit[6]["name"]
    return name[1] if audit[3] == "update" and isinstance(name, list) else name


# --- the rule itself ------------------------------------------------------------------------------------------------

namings = st.builds(
    Naming,
    audit_id=st.integers(1, 12),
    class_name=st.sampled_from(["Crm::Deal", "OldDeal"]),
    version=st.sampled_from([None, 1, 2, 3]),
    request=st.sampled_from([None, "a", "b"]),
    name=st.sampled_from([None, "x", "y"]),
)


@examples(max_examples=400)
@given(st.lists(namings, max_size=6, unique_by=lambda each: each.audit_id), st.integers(0, 13), st.sampled_from([None, "a"]), st.booleans())
def test_a_name_is_the_last_told_or_the_next_of_the_request_and_never_a_guess(
    found: list[Naming], audit: int, request: str | None, decide: bool
):
    key = (Role.DEAL, 9)
    decided = {(*key, each.class_name, each.version): "decided" for each in found} if decide else {}
    name, collision = Names({key: sorted(found)}, decided).as_of(key, audit, request)

    chosen = max((each for each in found if each.audit_id <= audit), default=None, key=lambda each: each.audit_id)
    if chosen is None and request:
        same = [each for each in found if each.request == request]
        chosen = min(same, default=None, key=lambda each: each.audit_id)
    rivals = rivals_of(chosen, found) if chosen else []
    if len({each.name for each in rivals}) < 2:
        assert (name, collision) == (chosen.name if chosen else None, None)
    elif decide:
        assert (name, collision) == ("decided", None)
    else:
        assert name is None and collision is not None and chosen is not None
        assert collision[:4] == (*key, chosen.class_name, chosen.version)
        assert collision.candidates == sorted((each.audit_id, each.name) for each in rivals)


class Watched(list):
    """Counts how many namings were gone through."""

    seen = 0

    def __iter__(self):
        for naming in super().__iter__():
            self.seen += 1
            yield naming

    def __reversed__(self):
        for naming in super().__reversed__():
            self.seen += 1
            yield naming


def test_a_record_renamed_thousands_of_times_is_gone_through_once_and_not_for_each_of_its_activities():
    key = (Role.DEAL, 9)
    told = Watched(Naming(2 * number, "Crm::Deal", number, None, f"name {number}") for number in range(1, 5001))
    names = Names({key: told})
    assert [names.as_of(key, audit, None)[0] for audit in range(1, 10_001)] == [None, *(f"name {audit // 2}" for audit in range(2, 10_001))]
    assert told.seen == 5000


def rivals_of(chosen: Naming, found: Iterable[Naming]) -> list[Naming]:
    return [each for each in found if chosen.version is not None and (each.class_name, each.version) == (chosen.class_name, chosen.version)]
