"""Gate E's probe on real audits: the sample whole, what it must fail, what the signers must judge, and its bounds on a large table."""

from typing import Any

import pytest

from gates import evidence
from gates.catalogue import BY_LETTER
from gates.probes import Finding, Measurement, by_index, census, classes
from migration import revisions
from tests.conftest import Systems, rows
from tests.migration.conftest import mapping_document, now
from tests.migration.hard_rows import AS_JSON, insert

SAMPLE_ROLES = [
    Finding(True, "Role contact: Contact (no audit), Crm::Person (508 audits)."),
    Finding(True, "Role company: Crm::Company (95 audits)."),
    Finding(True, "Role deal: Crm::Deal (397 audits)."),
    Finding(True, "Role task: Crm::Task (215 audits)."),
    Finding(True, "Role ticket: Crm::Ticket (126 audits)."),
    Finding(True, "Role note: Crm::Note (193 audits)."),
    Finding(True, "Role deal_contact_join: Crm::DealPerson (328 audits)."),
    Finding(True, "Role deal_company_join: Crm::DealCompany (78 audits)."),
    Finding(True, "Role deal_contact_join, the deal's id: crm_deal_id of Crm::DealPerson in 320 audits, of 328 looked at."),
    Finding(True, "Role deal_contact_join, the contact's id: crm_person_id of Crm::DealPerson in 320 audits, of 328 looked at."),
    Finding(True, "Role deal_company_join, the deal's id: crm_deal_id of Crm::DealCompany in 78 audits, of 78 looked at."),
    Finding(True, "Role deal_company_join, the company's id: crm_company_id of Crm::DealCompany in 78 audits, of 78 looked at."),
    Finding(True, "Id-set won: 6 of 6 ids occur in crm_stage_id among 397 audits of role deal looked at."),
    Finding(True, "Id-set done: 2 of 2 ids occur in crm_task_status_id among 215 audits of role task looked at."),
    Finding(True, "Id-set resolved: 3 of 3 ids occur in ticket_status_id among 126 audits of role ticket looked at."),
]
SAMPLE_UNNAMED = [
    Finding(
        None,
        "Statuses in crm_stage_id among 397 audits of role deal looked at that no set won names: 14 (38 audits), 13 (37 audits), "
        "2 (35 audits), 8 (32 audits), 9 (32 audits), 7 (30 audits), 15 (28 audits), 3 (28 audits), 1 (25 audits), 18 (21 audits), "
        "12 (20 audits), 6 (15 audits). Judge whether one of them means won.",
    ),
    Finding(
        None,
        "Statuses in crm_task_status_id among 215 audits of role task looked at that no set done names: 1 (117 audits), 2 (17 audits). "
        "Judge whether one of them means done.",
    ),
    Finding(
        None,
        "Statuses in ticket_status_id among 126 audits of role ticket looked at that no set resolved names: 9 (36 audits), 5 (28 audits), "
        "1 (19 audits), 8 (11 audits), 10 (10 audits), 12 (10 audits), 6 (6 audits), 2 (3 audits), 4 (2 audits). "
        "Judge whether one of them means resolved.",
    ),
]
UNROLED = Finding(None, "Classes in no role, whose audits no run moves: User (62 audits). Judge whether one of them concerns contacts.")
PUBLISH = "in the mapping, and publish it."


def published(**changes: Any) -> None:
    """The demo's mapping with other values under some keys; `class_roles` and `id_sets` are amended."""
    document = mapping_document()
    for key, value in changes.items():
        document[key] = document[key] | value if key in ("class_roles", "id_sets") else value
    revisions.publish(document, by="tester", note="", now=now())


def failing(found: Measurement) -> list[str]:
    return [each.sentence for each in found.findings if each.ok is False]


def to_judge(found: Measurement) -> list[str]:
    return [each.sentence for each in found.findings if each.ok is None]


# --- the sample -----------------------------------------------------------------------------------------------------


def test_the_sample_passes_with_its_users_and_other_statuses_for_judgement(systems):
    published()
    found = classes.measure(None)
    assert found.passes
    assert found.findings == [*SAMPLE_ROLES, *SAMPLE_UNNAMED, UNROLED]
    assert set(found.facts) == {"roles", "attributes", "id_sets", "unnamed_statuses", "unroled_classes", "looked_at"}
    counted = dict(rows(systems.crm, "SELECT auditable_type, count(*) FROM audits GROUP BY 1"))
    assert {each["class"]: each["rows"] for each in found.facts["roles"]} == {
        name: counted.get(name, 0) for name in ("Contact", *counted) if name != "User"
    }
    assert all(each["counted_all"] for each in found.facts["roles"])
    assert found.facts["unroled_classes"] == [{"class": "User", "rows": 62, "counted_all": True}]


def test_figures_of_the_sample_are_those_of_its_audits(systems):
    published()
    facts = classes.measure(None).facts
    for each in facts["attributes"]:
        query = "SELECT count(*) FROM audits WHERE auditable_type = %s AND audited_changes ? %s"
        assert rows(systems.crm, query, (each["class"], each["attribute"])) == [(each["rows"],)]
    sides = """SELECT count(DISTINCT id) FROM audits, LATERAL (VALUES (audited_changes->'crm_stage_id'),
        (audited_changes->'crm_stage_id'->0), (audited_changes->'crm_stage_id'->1)) v(side)
        WHERE auditable_type = 'Crm::Deal' AND side #>> '{}' = %s AND jsonb_typeof(side) = 'number'"""
    told = [(e["id"], e["rows"]) for e in facts["id_sets"] if e["set"] == "won"]
    assert told == [(i, rows(systems.crm, sides, (i,))[0][0]) for i in ("4", "5", "10", "11", "16", "17")]
    assert facts["unnamed_statuses"][0] == {"role": "deal", "value": "14", "rows": rows(systems.crm, sides, ("14",))[0][0]}
    assert facts["looked_at"] == {
        "classes": 9,
        "all_classes": True,
        "audits": [
            {"class": name, "looked_at": number, "all_of_it": True}
            for name, number in [
                ("Crm::Company", 95), ("Crm::Deal", 397), ("Crm::Task", 215), ("Crm::Ticket", 126), ("Crm::DealPerson", 328), ("Crm::DealCompany", 78),
            ]
        ],
    }  # fmt: skip


def test_json_and_text_ids_tell_the_same(systems):
    systems.change_crm(AS_JSON, "ALTER TABLE audits ALTER auditable_id TYPE text, ALTER associated_id TYPE text")
    published()
    assert classes.measure(None).findings == [*SAMPLE_ROLES, *SAMPLE_UNNAMED, UNROLED]


@pytest.mark.parametrize("systems", ["crm_sample_yaml"], indirect=True)
def test_ruby_yaml(systems):
    published()
    found = classes.measure(None)
    assert found.passes
    assert found.findings[12:15] == [
        Finding(True, "Id-set won: 4 of 6 ids occur in crm_stage_id among 118 audits of role deal looked at; 16, 17 do not."),
        Finding(True, "Id-set done: 2 of 2 ids occur in crm_task_status_id among 69 audits of role task looked at."),
        Finding(True, "Id-set resolved: 2 of 3 ids occur in ticket_status_id among 18 audits of role ticket looked at; 11 does not."),
    ]
    assert found.facts["id_sets"][:3] == [
        {"set": "won", "account": None, "id": "16", "rows": 0},
        {"set": "won", "account": None, "id": "17", "rows": 0},
        {"set": "resolved", "account": None, "id": "11", "rows": 0},
    ]


# --- what it must fail ----------------------------------------------------------------------------------------------


def test_no_mapping_is_published(systems):
    assert classes.measure(None) == Measurement(
        [Finding(False, "No mapping is published, so there is nothing to confirm: run `manage.py publish_mapping --file mapping.json`.")]
    )


def test_a_role_none_of_whose_classes_occurs(systems):
    published(class_roles={"ticket": ["Crm::Case", "Crm::OldCase"]})
    found = classes.measure(None)
    assert failing(found) == [
        "Role ticket: no audit is of Crm::Case, Crm::OldCase: correct class_roles.ticket in the mapping, or take out what this CRM does "
        "not have, and publish it.",
        f"Id-set resolved: none of 3, 7, 11 occurs as no audit of role ticket could be looked at: correct the set {PUBLISH}",
    ]
    assert to_judge(found)[-1] == (
        "Classes in no role, whose audits no run moves: Crm::Ticket (126 audits), User (62 audits). "
        "Judge whether one of them concerns contacts."
    )


def test_an_id_set_none_of_whose_ids_occurs(systems):
    published(id_sets={"done": [903, 904, "finished"]})
    assert failing(classes.measure(None)) == [
        "Id-set done: none of 903, 904, finished occurs in crm_task_status_id among 215 audits of role task looked at: "
        f"correct the set {PUBLISH}"
    ]


def test_an_accounts_own_set_counts_by_itself(systems):
    published(account_id_sets={"1": {"won": [4]}, "2": {"won": [904, 905]}, "3": {"won": [5], "done": []}})
    found = classes.measure(None)
    assert failing(found) == [
        f"Id-set won of organisation 2: none of 904, 905 occurs in crm_stage_id among 397 audits of role deal looked at: correct the set {PUBLISH}"
    ]
    assert [each.sentence for each in found.findings if "organisation" in each.sentence and each.ok is not False] == [
        "Id-set won of organisation 1, 3: ids of it occur in crm_stage_id among 397 audits of role deal looked at.",
        "Id-set done of organisation 3 has no ids: no move of a status into it is told.",
    ]
    assert found.facts["id_sets"][:2] == [
        {"set": "won", "account": 2, "id": "904", "rows": 0}, {"set": "won", "account": 2, "id": "905", "rows": 0},
    ]  # fmt: skip


def test_of_many_accounts_sets_the_sentences_stay_few(systems):
    published(account_id_sets={str(account): {"won": [900 + account]} for account in range(1, 31)})
    told = [each for each in failing(classes.measure(None)) if each.startswith("Id-set won")]
    assert len(told) == 21
    assert told[-1] == "Id-set won: the same of 10 more organisations."


def test_ids_without_an_attribute_to_hold_them(systems):
    published(status_attributes={"deal": "crm_stage_id", "ticket": "ticket_status_id"})
    assert failing(classes.measure(None)) == [
        f"Id-set done: none of 3, 4 occurs (the mapping names no status attribute for task): correct the set {PUBLISH}"
    ]


def test_a_join_whose_attribute_no_audit_holds(systems):
    published(class_roles={"deal_contact_join": [{"class": "Crm::DealPerson", "deal": "crm_deal_id", "contact": "person_id"}]})
    found = classes.measure(None)
    assert failing(found) == [
        "Role deal_contact_join, the contact's id: none of 328 audits looked at holds person_id of Crm::DealPerson: no link could be "
        f"found, so correct class_roles.deal_contact_join {PUBLISH}"
    ]
    assert {"class": "Crm::DealPerson", "attribute": "person_id", "rows": 0} in found.facts["attributes"]


@pytest.mark.parametrize("index", ["", "CREATE INDEX oldest ON audits (auditable_id, auditable_type)"])
def test_without_the_gems_index_nothing_is_read(systems, index):
    systems.change_crm("DROP INDEX auditable_index", index)
    published()
    found = classes.measure(None)
    assert len(found.findings) == 1
    assert found.findings[0].sentence.startswith("The CRM has no index that leads from a class to its audits (")
    assert found.findings[0].sentence.endswith("and without one the whole table would be read: see gate B for the index that is missing.")
    assert not found.passes


# --- what the signers judge -----------------------------------------------------------------------------------------


def test_a_crm_that_has_no_tickets_says_so(systems):
    systems.change_crm("DELETE FROM audits WHERE auditable_type = 'Crm::Ticket'")
    published(class_roles={"ticket": []}, id_sets={"resolved": []})
    found = classes.measure(None)
    assert found.passes
    assert [each for each in to_judge(found) if "ticket" in each or "resolved" in each] == [
        "Role ticket has no class in the mapping: no audit counts as one.",
        "Id-set resolved has no ids: no move of a status into it is told.",
    ]


def test_enum_names_numbers_and_what_no_set_could_name(systems):
    changed = [
        ("create", '{"crm_stage_id": "negotiation"}'), ("update", '{"crm_stage_id": ["negotiation", "closed_won"]}'),
        ("update", '{"crm_stage_id": [null, "4"]}'), ("create", '{"crm_stage_id": ["x", "y"]}'), ("update", '{"crm_stage_id": true}'),
        ("update", '[1]'), ("create", '"crm_stage_id"'), ("update", '{"crm_stage_id": null}'),
    ]  # fmt: skip
    systems.change_crm("DELETE FROM audits WHERE auditable_type = 'Crm::Deal'")
    insert(systems, [{"auditable_type": "Crm::Deal", "auditable_id": 9, "action": a, "audited_changes": c} for a, c in changed])
    published(id_sets={"won": ["closed_won", 4]})
    found = classes.measure(None)
    assert found.passes
    assert [each for each in found.facts["unnamed_statuses"] if each["role"] == "deal"] == [
        {"role": "deal", "value": "negotiation", "rows": 2},
        {"role": "deal", "value": "True", "rows": 1},
        {"role": "deal", "value": "['x', 'y']", "rows": 1},
    ]
    assert [(each["id"], each["rows"]) for each in found.facts["id_sets"] if each["set"] == "won"] == [("4", 1), ("closed_won", 1)]
    assert {"class": "Crm::Deal", "attribute": "crm_stage_id", "rows": 6} in found.facts["attributes"]


def test_a_status_that_jsonb_refuses_can_still_be_stored_as_evidence(systems):
    systems.change_crm(AS_JSON)
    bad = [r'{"crm_stage_id": "a\u0000b"}', r'{"crm_stage_id": "\ud800"}', r'{"crm_stage_id": "a\nb"}']
    insert(systems, [{"auditable_type": "Crm::Deal", "auditable_id": 9, "action": "create", "audited_changes": text} for text in bad])
    published()
    stored = evidence.probe(BY_LETTER["E"], None, by="ana", now=now())
    stored.refresh_from_db()
    odd = [each["value"] for each in stored.facts["unnamed_statuses"] if each["role"] == "deal" and not each["value"].isdigit()]
    assert odd == [r"'\ud800'", r"'a\x00b'", "a\nb"]
    assert stored.passes
    assert stored.findings[0] == vars(SAMPLE_ROLES[0])


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_bounds(monkeypatch):
    for name, value in {"NEWEST": 10, "OLDEST": 10, "ENOUGH": (50, 5), "FARTHEST": 100, "AT_ONCE": 7}.items():
        monkeypatch.setattr(census, name, value)


def large(systems: Systems, rare_at: int) -> None:
    """5,000 audits of deals; the one of record `rare_at` alone is won."""
    systems.change_crm(
        "DELETE FROM audits WHERE auditable_type = 'Crm::Deal'",
        f"""INSERT INTO audits (id, auditable_type, auditable_id, action, version, audited_changes)
            SELECT 100000 + g, 'Crm::Deal', g, 'create', 1, jsonb_build_object('name', 'x', 'crm_stage_id', CASE g WHEN {rare_at} THEN 4 ELSE 1 END)
            FROM generate_series(1, 5000) g""",
        "ANALYZE audits",
    )


def of_deals(found: Measurement) -> tuple[list[str], dict[str, Any]]:
    sentences = [each.sentence for each in found.findings if each.sentence.startswith(("Role deal:", "Id-set won"))]
    return sentences, next(each for each in found.facts["looked_at"]["audits"] if each["class"] == "Crm::Deal")


def test_a_rare_id_is_searched_for_beyond_both_ends(systems, small_bounds):
    large(systems, rare_at=60)
    published(id_sets={"won": [4]})
    found = classes.measure(None)
    assert of_deals(found) == (
        [
            "Role deal: Crm::Deal (more than 50 audits).",
            "Id-set won: 1 of 1 ids occur in crm_stage_id among 70 audits of role deal looked at.",
        ],
        {"class": "Crm::Deal", "looked_at": 70, "all_of_it": False},
    )
    assert {"role": "deal", "class": "Crm::Deal", "rows": 50, "counted_all": False} in found.facts["roles"]


@pytest.mark.parametrize(("rare_at", "looked_at"), [(3, 20), (4_995, 20)])
def test_what_both_ends_show_is_not_searched_for(systems, small_bounds, rare_at, looked_at):
    large(systems, rare_at)
    published(id_sets={"won": [4]})
    assert of_deals(classes.measure(None))[1]["looked_at"] == looked_at


def test_the_search_ends_and_says_how_far_it_went(systems, small_bounds):
    large(systems, rare_at=2_500)
    published(id_sets={"won": [4]})
    sentences, looked_at = of_deals(classes.measure(None))
    assert (
        sentences[1] == f"Id-set won: none of 4 occurs in crm_stage_id among 100 audits of role deal looked at: correct the set {PUBLISH}"
    )
    assert looked_at == {"class": "Crm::Deal", "looked_at": 100, "all_of_it": False}


def test_each_class_has_its_share_of_the_time(systems, monkeypatch):
    large(systems, rare_at=2_500)
    monkeypatch.setattr(classes, "LOOK_SECONDS", 0)
    published(id_sets={"won": [4]})
    looked_at = classes.measure(None).facts["looked_at"]["audits"]
    assert {each["looked_at"] for each in looked_at} == {2}  # one from each end


@pytest.mark.parametrize(("at_once", "some"), [(20, True), (500, False)])
def test_a_statement_that_takes_too_long_leaves_what_was_seen(systems, monkeypatch, at_once, some):
    """The rows are counted less far, and the walk ends: neither is an outage."""
    large(systems, rare_at=2_500)
    slow = "CREATE FUNCTION slow(text) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN $1; END $$"
    view = "CREATE VIEW audits AS SELECT * FROM kept WHERE auditable_type <> 'Crm::Deal' OR slow(action) IS NOT NULL"
    systems.change_crm("ALTER TABLE audits RENAME TO kept", slow, view, "GRANT SELECT ON audits TO calm_test_reader")
    for name, value in (("ENOUGH", (100_000, 20)), ("AT_ONCE", at_once)):
        monkeypatch.setattr(census, name, value)
    monkeypatch.setattr(classes, "STATEMENT_SECONDS", 0.4)
    monkeypatch.setattr(classes, "LOOK_SECONDS", 3)
    published()
    found = classes.measure(None)
    assert {"role": "deal", "class": "Crm::Deal", "rows": 20, "counted_all": False} in found.facts["roles"]
    sentences, looked_at = of_deals(found)
    assert sentences[0] == "Role deal: Crm::Deal (more than 20 audits)."
    assert (looked_at["looked_at"] > 0) == some
    if not some:
        assert (
            sentences[1]
            == f"Id-set won: none of 4, 5, 10, 11, 16, 17 occurs as no audit of role deal could be looked at: correct the set {PUBLISH}"
        )


def test_a_partitioned_table_and_an_older_index_serve(systems):
    systems.change_crm(
        "ALTER TABLE audits RENAME TO whole",
        "CREATE TABLE audits (LIKE whole) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF audits FOR VALUES FROM (MINVALUE) TO (1000)",
        "CREATE TABLE high PARTITION OF audits FOR VALUES FROM (1000) TO (MAXVALUE)",
        "CREATE INDEX before_4_8 ON audits (auditable_type, auditable_id)",
        "INSERT INTO audits SELECT * FROM whole",
        "ANALYZE audits",
        "GRANT SELECT ON audits TO calm_test_reader",
    )
    published()
    assert classes.measure(None).findings == [*SAMPLE_ROLES, *SAMPLE_UNNAMED, UNROLED]


def test_more_classes_than_are_listed(systems, monkeypatch):
    monkeypatch.setattr("gates.probes.census.MOST_CLASSES", 3)
    monkeypatch.setattr("gates.probes.class_findings.MOST_CLASSES", 3)
    published(class_roles={"company": ["Company"]})
    found = classes.measure(None)
    assert failing(found)[0].startswith("Role company: no audit is of Company:")
    assert to_judge(found)[-2:] == [
        "Classes in no role, whose audits no run moves: Crm::Company (95 audits). Judge whether one of them concerns contacts.",
        "The audits hold more than 3 classes; only these, the first ones by name, were listed.",
    ]
    assert (found.facts["looked_at"]["classes"], found.facts["looked_at"]["all_classes"]) == (3, False)


def test_no_plan_reads_the_whole_table(systems, monkeypatch):
    """Every statement that the probe asks was looked at beforehand, and none was refused on a large table."""
    asked: list[str] = []
    plain = by_index.check

    def kept(crm, query):
        asked.append(query.as_string())
        plain(crm, query)

    monkeypatch.setattr(by_index, "check", kept)
    monkeypatch.setattr(census, "check", kept)
    large(systems, rare_at=2_500)
    published()
    assert classes.measure(None).findings
    assert len(asked) == 1 + 10 + 2 * 6  # classes; a count each, User's too; both ends of those that have attributes


# --- what the sign-off depends on -----------------------------------------------------------------------------------


def test_the_configuration_names_the_mapping_whole_and_no_password(systems, settings):
    host = settings.CRM_DATABASE_URL.rpartition("@")[2]
    where = {"CRM_DATABASE_URL": f"{host} as calm_test_reader"}
    assert classes.configuration(None) == where | {"mapping revision": "none"}
    published()
    first = classes.configuration(None)
    assert first == where | {"mapping revision": revisions.current().digest[:12]}
    published(secrets=["other"])
    assert classes.configuration(None) == where | {"mapping revision": revisions.current().digest[:12]} != first
