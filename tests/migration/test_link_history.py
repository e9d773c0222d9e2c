"""Histories of join rows against a plain simulation of their table, and against what SPEC's rules say of each audit."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.link_history import Belonging, Concern, History, JoinAudit, Link, number, replay

PERSON, DEAL, ROLE = "crm_person_id", "crm_deal_id", "role"
OLD_NAME, NEW_NAME = "DealContact", "Crm::DealPerson"
DEALS_OF = {OLD_NAME: DEAL, NEW_NAME: DEAL}
PERSONS_OF = {OLD_NAME: PERSON, NEW_NAME: PERSON}


def history(audits: Iterable[JoinAudit]) -> History:
    return replay(audits, DEALS_OF, PERSONS_OF)


def linked_before(links: Iterable[Link], audit: int) -> set[tuple[int, int]]:
    """Just before the audit that ends it, a link is still there; deals' audits, which rules 4 and 5 ask about, are never that one."""
    return {
        (link.person_id, link.deal_id) for link in links if link.from_audit < audit and (link.to_audit is None or audit <= link.to_audit)
    }


# --- a join table and the gem that audits it ------------------------------------------------------------------------


@dataclass
class Written:
    """An audit as the gem wrote it, the join row it is of, and who was linked to what in the table just before it."""

    row: int
    audit: JoinAudit
    linked: set[tuple[int, int]]


@dataclass
class Table:
    """Join rows with their person and deal. Every method is what an application does to them."""

    rows: dict[int, dict[str, int]] = field(default_factory=dict)
    log: list[Written] = field(default_factory=list)
    class_name: str = OLD_NAME
    next_audit: int = 1

    def write(self, row: int, action: str, values: dict[str, Any], style: "Style") -> None:
        spelt = {key: spell(value, style.as_text) for key, value in values.items() if key not in style.missing or isinstance(value, list)}
        deal = self.rows[row][DEAL]
        after = values[DEAL][1] if action == "update" and DEAL in values else deal
        audit = JoinAudit(self.next_audit, self.class_name, action, spelt, after if style.hint else None)
        self.log.append(Written(row, audit, {(each[PERSON], each[DEAL]) for each in self.rows.values()}))
        self.next_audit += style.gap

    def create(self, row: int, person: int, deal: int, style: "Style", *, audited: bool) -> None:
        if row not in self.rows and all(row != each.row for each in self.log):  # a serial gives no id twice
            linked = {(each[PERSON], each[DEAL]) for each in self.rows.values()}
            self.rows[row] = {PERSON: person, DEAL: deal}
            if audited:
                self.write(row, "create", {ROLE: None, PERSON: person, DEAL: deal}, style)
                self.log[-1].linked = linked

    def update(self, row: int, style: "Style", **new: int) -> None:
        if row in self.rows:
            changed = {key: [self.rows[row][key], value] for key, value in new.items() if self.rows[row][key] != value}
            self.write(row, "update", changed or {ROLE: [None, "buyer"]}, style)
            self.rows[row] |= new

    def destroy(self, row: int, style: "Style") -> None:
        if row in self.rows:
            self.write(row, "destroy", {ROLE: None, **self.rows[row]}, style)
            del self.rows[row]

    def silently(self, row: int, **new: int) -> None:
        """update_column: nothing is written."""
        if row in self.rows:
            self.rows[row] |= new


@dataclass(frozen=True)
class Style:
    """How one audit is written."""

    as_text: bool
    missing: frozenset[str]  # attributes that `only:` or `except:` leaves out of creates and destroys
    hint: bool
    gap: int


def spell(value: Any, as_text: bool) -> Any:
    if isinstance(value, list):
        return [spell(each, as_text) for each in value]
    return str(value) if as_text and isinstance(value, int) else value


def combined(log: list[Written], row: int) -> list[Written]:
    """The log after max_audits merged the row's first audits into its first update: Hash#merge, the others deleted."""
    mine = [each for each in log if each.row == row]
    last = next((each for each in mine[1:] if each.audit.action == "update"), None)
    if last is None or last.audit.class_name != mine[0].audit.class_name:  # versions count by class
        return log
    merged = mine[: mine.index(last) + 1]
    values = {key: value for each in merged for key, value in (each.audit.values or {}).items()}
    audit = JoinAudit(last.audit.audit_id, last.audit.class_name, "update", values, last.audit.deal_hint)
    kept = [each for each in log if each not in merged or each is last]
    return [Written(row, audit, last.linked) if each is last else each for each in kept]


persons, deals, join_rows = st.integers(1, 4), st.integers(11, 13), st.integers(1, 4)
plain_styles = st.builds(Style, as_text=st.booleans(), missing=st.just(frozenset()), hint=st.booleans(), gap=st.integers(1, 3))
poor_styles = st.builds(
    Style, as_text=st.booleans(), missing=st.frozensets(st.sampled_from([PERSON, DEAL])), hint=st.booleans(), gap=st.integers(1, 3)
)  # fmt: skip
COMMON = (
    st.tuples(st.just("create"), join_rows, persons, deals),
    st.tuples(st.just("person"), join_rows, persons),
    st.tuples(st.just("deal"), join_rows, deals),
    st.tuples(st.just("both"), join_rows, persons, deals),
    st.tuples(st.just("role"), join_rows),
    st.tuples(st.just("destroy"), join_rows),
)
RENAME = st.tuples(st.just("rename"))
UNAUDITED_CREATE = st.tuples(st.just("create unaudited"), join_rows, persons, deals)
SILENT = (
    st.tuples(st.just("silent person"), join_rows, persons),
    st.tuples(st.just("silent deal"), join_rows, deals),
)


@st.composite
def logs(draw: st.DrawFn, steps: tuple, styles: st.SearchStrategy[Style]) -> list[Written]:
    table = Table()
    for step, *given_ in draw(st.lists(st.one_of(*steps), max_size=14)):
        style = draw(styles)
        match step, given_:
            case "create" | "create unaudited", [row, person, deal]:
                table.create(row, person, deal, style, audited=step == "create")
            case "person" | "deal", [row, value]:
                table.update(row, style, **{PERSON if step == "person" else DEAL: value})
            case "both", [row, person, deal]:
                table.update(row, style, **{PERSON: person, DEAL: deal})
            case "role", [row]:
                table.update(row, style)
            case "destroy", [row]:
                table.destroy(row, style)
            case "silent person" | "silent deal", [row, value]:
                table.silently(row, **{PERSON if step == "silent person" else DEAL: value})
            case "rename", []:
                table.class_name = NEW_NAME
    return table.log


def by_row(log: list[Written]) -> dict[int, list[JoinAudit]]:
    return {row: [each.audit for each in log if each.row == row] for row in {each.row for each in log}}


# --- what SPEC's rules say, audit by audit --------------------------------------------------------------------------


@dataclass
class Told:
    """What a row's audits so far have told, looked up anew for each question."""

    audits: list[JoinAudit]

    def before(self, audit: JoinAudit) -> "Told":
        earlier = [each for each in self.audits if each.audit_id < audit.audit_id]
        ends = [place for place, each in enumerate(earlier) if each.action == "destroy"]
        return Told(earlier[ends[-1] + 1 :] if ends else earlier)

    def value(self, key: str) -> int | None:
        """The latest statement; for the deal, where nobody states one, the first hint."""
        stated = [found for each in self.audits if (found := after(each, key)) is not None]
        hints = [each.deal_hint for each in self.audits if each.deal_hint is not None]
        return stated[-1] if stated else hints[0] if key == DEAL and hints else None

    def link(self) -> tuple[int, int] | None:
        person, deal = self.value(PERSON), self.value(DEAL)
        return (person, deal) if person is not None and deal is not None else None


def after(audit: JoinAudit, key: str) -> int | None:
    value = (audit.values or {}).get(key)
    return number(value[1] if isinstance(value, list) else value)


def change(audit: JoinAudit, key: str) -> tuple[int | None, int | None] | None:
    value = (audit.values or {}).get(key)
    return (number(value[0]), number(value[1])) if isinstance(value, list) else None


def wanted(audits: list[JoinAudit]) -> History:
    """Concerns, belongings, and what nobody tells; without links, which are asked for by audit."""
    found = History()
    for audit in audits:
        earlier, now = Told(audits).before(audit), Told([*Told(audits).before(audit).audits, audit])
        person, deal = change(audit, PERSON), change(audit, DEAL)
        old_deal = deal[0] if deal else earlier.value(DEAL)
        if person:
            found.concerns.append(Concern(person[0], audit.audit_id, "contact_old", old_deal or now.value(DEAL)))
            found.concerns.append(Concern(person[1], audit.audit_id, "contact_new", now.value(DEAL)))
        elif now.value(PERSON) is not None:
            found.concerns.append(Concern(now.value(PERSON), audit.audit_id, "deal" if deal else "", now.value(DEAL)))
        else:
            found.contactless.append(audit.audit_id)
        if audit.action == "destroy" and earlier.link() is None:
            found.startless.append(audit.audit_id)
        around = {now.value(DEAL), old_deal} if audit.action == "update" else {now.value(DEAL)}
        found.belongings += [Belonging(each, audit.audit_id, now.value(PERSON)) for each in sorted(around - {None})]
    return found


def agrees(log: list[Written]) -> None:
    """Each row's concerns, belongings and oddities; and for every audit id, between and beyond too, who is linked as the audits tell."""
    histories = {row: history(audits) for row, audits in by_row(log).items()}
    for row, audits in by_row(log).items():
        have, want = histories[row], wanted(audits)
        assert have.concerns == want.concerns
        assert by_audit(have.belongings) == by_audit(want.belongings)
        assert (have.contactless, have.startless) == (want.contactless, want.startless)
    for audit_id in range(max((each.audit.audit_id for each in log), default=0) + 2):
        probe = JoinAudit(audit_id, NEW_NAME, "update", {})
        told = {Told(audits).before(probe).link() for audits in by_row(log).values()} - {None}
        assert {pair for found in histories.values() for pair in linked_before(found.links, audit_id)} == told


def by_audit(belongings: list[Belonging]) -> list[Belonging]:
    return sorted(belongings, key=lambda each: (each.audit_id, each.deal_id))


@settings(max_examples=250, deadline=None)
@given(logs((*COMMON, RENAME), plain_styles))
def test_fully_audited_rows_give_the_table_as_it_was(log):
    links = [link for audits in by_row(log).values() for link in history(audits).links]
    for written in log:
        assert linked_before(links, written.audit.audit_id) == written.linked
    assert not any(found.contactless or found.startless for found in map(history, by_row(log).values()))
    agrees(log)


@settings(max_examples=250, deadline=None)
@given(st.one_of(logs((*COMMON, UNAUDITED_CREATE, *SILENT), poor_styles), logs((*COMMON, UNAUDITED_CREATE, RENAME), poor_styles)))
def test_rows_of_which_the_audits_tell_a_part_give_that_part(log):
    agrees(log)


@settings(max_examples=250, deadline=None)
@given(logs((*COMMON, RENAME), plain_styles), st.sets(join_rows))
def test_combined_rows_tell_their_scalars(log, rows):
    for row in rows:
        log = combined(log, row)
    agrees(log)


@settings(max_examples=150, deadline=None)
@given(logs((*COMMON, UNAUDITED_CREATE, *SILENT, RENAME), poor_styles), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(log, shuffler: random.Random):
    for audits in by_row(log).values():
        shuffled = list(audits)
        shuffler.shuffle(shuffled)
        assert history(shuffled) == history(audits)


@settings(max_examples=150, deadline=None)
@given(logs(COMMON, plain_styles), logs(COMMON, plain_styles))
def test_two_join_tables_of_one_role_with_equal_ids_never_mix(one, other):
    """The second table's audits come between the first's: ids odd here, even there."""
    both = [
        JoinAudit(2 * each.audit.audit_id + place, name, each.audit.action, each.audit.values, each.audit.deal_hint)
        for place, (name, log) in enumerate([(OLD_NAME, one), (NEW_NAME, other)])
        for each in log
        if each.row == 1
    ]
    apart = [history(each for each in both if each.class_name == name) for name in (OLD_NAME, NEW_NAME)]
    together = history(both)
    assert sorted(together.links, key=repr) == sorted(apart[0].links + apart[1].links, key=repr)
    assert sorted(together.concerns, key=repr) == sorted(apart[0].concerns + apart[1].concerns, key=repr)


# --- single cases ---------------------------------------------------------------------------------------------------


def create(audit: int, person: Any = 1, deal: Any = 7, name: str = NEW_NAME, hint: int | None = None) -> JoinAudit:
    return JoinAudit(audit, name, "create", {ROLE: None, PERSON: person, DEAL: deal}, hint)


def update(audit: int, name: str = NEW_NAME, hint: int | None = None, **values: Any) -> JoinAudit:
    return JoinAudit(audit, name, "update", values, hint)


def destroy(audit: int, person: Any = 1, deal: Any = 7, name: str = NEW_NAME, hint: int | None = None) -> JoinAudit:
    return JoinAudit(audit, name, "destroy", {ROLE: None, PERSON: person, DEAL: deal}, hint)


def test_merged_people_and_a_moved_link():
    found = history([create(1, 91, 34), update(2, **{PERSON: [91, 90]}), update(3, **{DEAL: [34, 35]}), destroy(4, 90, 35)])
    assert found.links == [Link(91, 34, 1, 2), Link(90, 34, 2, 3), Link(90, 35, 3, 4)]
    assert found.concerns == [
        Concern(91, 1, "", 34),
        Concern(91, 2, "contact_old", 34),
        Concern(90, 2, "contact_new", 34),
        Concern(90, 3, "deal", 35),
        Concern(90, 4, "", 35),
    ]
    assert found.belongings[2:4] == [Belonging(35, 3, 90), Belonging(34, 3, 90)]


def test_both_ends_changed_at_once_is_an_unlink_and_a_link():
    found = history([create(1), update(2, **{PERSON: [1, 2], DEAL: [7, 8]})])
    assert found.links == [Link(1, 7, 1, 2), Link(2, 8, 2, None)]
    assert found.concerns[1:] == [Concern(1, 2, "contact_old", 7), Concern(2, 2, "contact_new", 8)]


@pytest.mark.parametrize("before", [None, 0])
def test_the_old_contact_is_unlinked_from_the_deal_before_whatever_its_id_and_from_none_where_there_was_none(before):
    found = history([create(1, deal=before), update(2, **{PERSON: [1, 2], DEAL: [before, 8]})])
    assert found.concerns[1:] == [Concern(1, 2, "contact_old", before), Concern(2, 2, "contact_new", 8)]


@pytest.mark.parametrize("pair", [[1, 1], ["1", 1], [1, "1"]])
def test_a_pair_that_changes_nothing_moves_nothing(pair):
    found = history([create(1), update(2, **{PERSON: pair})])
    assert found.links == [Link(1, 7, 1, None)]
    assert found.concerns[1:] == [Concern(1, 2, "", 7)]


@pytest.mark.parametrize("stated", [[8, 8], ["8", 8], 8])
def test_a_deal_that_an_update_states_unchanged_is_the_rows_and_not_the_one_that_earlier_audits_told(stated):
    """The row was moved from deal 7 unaudited: the update is none of deal 7's contacts' business."""
    found = history([create(1), update(2, **{DEAL: stated}), update(3, **{DEAL: stated, PERSON: [1, 2]})])
    assert found.links == [Link(1, 7, 1, 2), Link(1, 8, 2, 3), Link(2, 8, 3, None)]
    assert found.concerns[1:] == [Concern(1, 2, "", 8), Concern(1, 3, "contact_old", 8), Concern(2, 3, "contact_new", 8)]
    assert found.belongings == [Belonging(7, 1, 1), Belonging(8, 2, 1), Belonging(8, 3, 2)]


def test_a_contact_set_to_null_and_back():
    found = history([create(1), update(2, **{PERSON: [1, None]}), update(3, **{ROLE: [None, "x"]}), update(4, **{PERSON: [None, 2]})])
    assert found.links == [Link(1, 7, 1, 2), Link(2, 7, 4, None)]
    assert found.concerns[1:] == [Concern(1, 2, "contact_old", 7), Concern(2, 4, "contact_new", 7)]
    assert found.contactless == [3]


def test_a_row_id_given_again_after_an_unaudited_delete_ends_the_link_before():
    found = history([create(1), create(5, 2, 8), destroy(9, 2, 8)])
    assert found.links == [Link(1, 7, 1, 5), Link(2, 8, 5, 9)]


def test_an_update_before_any_create_tells_what_it_says():
    found = history([update(5, **{PERSON: [1, 2]}, hint=7), update(6, **{ROLE: [None, "x"]}), destroy(9, 2)])
    assert found.links == [Link(2, 7, 5, 9)]
    assert found.concerns == [Concern(1, 5, "contact_old", 7), Concern(2, 5, "contact_new", 7), Concern(2, 6, "", 7), Concern(2, 9, "", 7)]
    assert found.startless == []


def test_a_destroy_whose_start_nobody_tells_is_counted_and_still_concerns_its_contact():
    found = history([destroy(9)])
    assert (found.links, found.startless, found.concerns) == ([], [9], [Concern(1, 9, "", 7)])


def test_an_update_of_another_writer_after_the_destroy_concerns_the_contact_that_the_row_had_and_links_nobody():
    found = history([create(1), destroy(2), update(3, hint=7, **{ROLE: [None, "x"]}), destroy(4, None, None)])
    assert found.links == [Link(1, 7, 1, 2)]
    assert found.concerns == [Concern(1, audit, "", 7) for audit in (1, 2, 3, 4)]
    assert (found.contactless, found.startless) == ([], [4])


def test_a_destroyed_row_does_not_go_on_as_another_classs():
    found = history([create(1, name=OLD_NAME), destroy(2, name=OLD_NAME), update(3, hint=7, **{ROLE: [None, "x"]})])
    assert found.links == [Link(1, 7, 1, 2)]
    assert (found.concerns, found.contactless) == ([Concern(1, 1, "", 7), Concern(1, 2, "", 7)], [3])


@pytest.mark.parametrize(
    "values", [None, {}, {PERSON: None}, {PERSON: "x"}, {PERSON: True}, {PERSON: 1.5}, {PERSON: 2**63}, {PERSON: [1, 2]}]
)
def test_a_create_that_names_no_contact_is_counted(values):
    found = history([JoinAudit(3, NEW_NAME, "create", values, 7)])
    assert (found.links, found.concerns, found.contactless) == ([], [], [3])


@pytest.mark.parametrize("value", [[1], [1, 2, 3], [], [[1, 2]]])
def test_a_list_that_is_no_pair_says_nothing(value):
    found = history([create(1), update(2, **{PERSON: value})])
    assert (found.links, found.concerns[1:]) == ([Link(1, 7, 1, None)], [Concern(1, 2, "", 7)])


def test_an_action_the_gem_does_not_write_changes_nothing():
    found = history([create(1), JoinAudit(2, NEW_NAME, "login", {PERSON: 5}, 7), update(3, **{ROLE: [None, "x"]})])
    assert found.links == [Link(1, 7, 1, None)]
    assert found.concerns[2] == Concern(1, 3, "", 7)


def test_an_action_the_gem_does_not_write_belongs_to_the_deal_that_it_is_associated_with_where_no_other_is_known():
    found = history(
        [JoinAudit(2, NEW_NAME, "login", {}, 7), JoinAudit(3, NEW_NAME, "create", {DEAL: 8}), JoinAudit(4, NEW_NAME, "login", {}, 7)]
    )
    assert found.belongings == [Belonging(7, 2), Belonging(8, 3), Belonging(8, 4)]
    assert found.links == []


def test_servers_with_the_old_and_the_new_class_name_side_by_side_write_of_one_row():
    found = history(
        [
            create(1, name=OLD_NAME),
            update(2, name=NEW_NAME, **{ROLE: [None, "x"]}),
            update(3, name=OLD_NAME, **{PERSON: [1, 2]}),
            destroy(4, 2, name=NEW_NAME),
        ]
    )
    assert found.links == [Link(1, 7, 1, 3), Link(2, 7, 3, 4)]
    assert [each.person_id for each in found.concerns] == [1, 1, 1, 2, 2]
    assert not found.startless


@pytest.mark.parametrize(
    "second",
    [
        destroy(2, 5, 9, name=NEW_NAME),
        update(2, name=NEW_NAME, **{PERSON: [5, 6]}),
        update(2, name=NEW_NAME, hint=9, **{ROLE: [None, "x"]}),
        update(2, name=NEW_NAME, hint=9, **{DEAL: [8, 9]}),
    ],
)
def test_another_tables_row_that_contradicts_this_one_is_not_taken_for_it(second):
    """Its create is not audited, so that only what it states (or its associated deal) tells it from a renamed class."""
    found = history([create(1, name=OLD_NAME), second, update(3, name=OLD_NAME, **{ROLE: [None, "y"]})])
    assert Link(1, 7, 1, None) in found.links
    assert Concern(1, 3, "", 7) in found.concerns
    assert all(each.person_id != 1 for each in found.concerns if each.audit_id == 2)


def test_a_renamed_row_that_is_known_in_part_stays_known():
    found = history([JoinAudit(1, OLD_NAME, "create", {PERSON: 1}), update(2, name=NEW_NAME, **{ROLE: [None, "x"]})])
    assert found.concerns == [Concern(1, 1, "", None), Concern(1, 2, "", None)]
    assert found.contactless == []


def test_ids_are_read_from_text_and_never_guessed():
    assert [number(value) for value in (5, "5", "005", -3)] == [5, 5, 5, -3]
    assert [number(value) for value in (None, True, 5.0, "5.0", " 5", "٥", "", "1" * 19, 2**63, -(2**63) - 1, [5], {})] == [None] * 12
