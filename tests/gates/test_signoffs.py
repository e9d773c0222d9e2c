"""Who may decide on a gate, on what, and that a decision is never changed afterwards."""

import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import DatabaseError, connection, connections, transaction

from gates import evidence, signoffs, standing
from gates.catalogue import BY_LETTER, GATES
from gates.models import Evidence, Gate, Milestone, SignOff
from gates.policies import CannotDecide, is_open
from gates.probes import Finding, Measurement
from gates.standing import State
from migration.models import Event
from tests import factories
from tests.gates.conftest import LATER, NOON, found, member, sign

C = BY_LETTER["C"]


@pytest.fixture
def account(db):
    return factories.account(crm_organization_id=7, name="Harbour")


def refusal(*arguments, **how) -> str:
    with pytest.raises(CannotDecide) as caught:
        sign(*arguments, **how)
    return str(caught.value)


# --- what is seeded -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_seeded_gates_are_the_catalogue():
    seeded = Gate.objects.values_list("letter", "title", "statement", "question", "owners", "scope", "until_open", "valid_days")
    wanted = [
        (g.letter, g.title, g.statement, g.question, list(g.owners), "account" if g.per_account else "global", g.until_open, 30)
        for g in GATES
    ]
    assert list(seeded) == wanted


@pytest.mark.django_db
def test_milestones_are_seeded():
    found = list(Milestone.objects.values_list("name", "effort", "confidence", "target", "status", "follows"))
    assert found == [
        ("PRD v2.1 finalized", "", "", "2026-06-09", "done", ""),
        ("RFC review R2: 8.0/10, PROCEED with notes (7-chunk scope)", "", "high", "2026-06-18", "done", ""),
        ("Task breakdown expanded to 9 chunks", "BE +4, QA +1.5", "medium", "2026-07-01", "done; R3 delta review not run", ""),
        ("Development", "BE 17, FE 1, QA 6.5", "medium", "2026-Q3", "", ""),
        ("Stage-0 operational gates", "", "", "TBD", "", "gates"),
        ("Migration dry run", "", "", "TBD", "", "dry_runs"),
        ("Production migration", "24.5 days", "medium", "2026-Q3", "", "runs"),
    ]


@pytest.mark.django_db
def test_each_group_has_what_it_needs_and_no_more():
    views = set(
        Permission.objects.filter(content_type__app_label__in=("migration", "gates"), codename__startswith="view_").values_list(
            "codename", flat=True
        )
    )
    beyond = {
        group.name: set(group.permissions.values_list("codename", flat=True)) - views
        for group in Group.objects.prefetch_related("permissions")
    }
    owners = ("CRM Squad", "Platform", "CRM DBA", "CDP", "RFC reviewer", "Design", "Delivery")
    assert all(beyond[name] == {"add_signoff", "add_evidence"} for name in owners)
    assert beyond["viewer"] == set()
    assert beyond["mapper"] == {"change_mappingdraft", "add_mappingrevision", "change_namecollision"}
    assert beyond["operator"] == {
        *("add_run", "change_run", "withdraw_run", "remove_stalerow", "add_batch", "change_batch", "change_readbudget"),
        *("change_quarantinedcandidate", "add_setwatermark", "add_evidence"),
    }
    for group in Group.objects.all():
        assert views <= set(group.permissions.values_list("codename", flat=True)), group.name


def test_what_jsonb_refuses_is_kept_visible(people):
    facts = {"names\0": ["a\0b", {"c": "\ud800"}, 7, None]}
    hostile = Measurement([Finding(True, "Found a\0b.")], facts)
    made = evidence.store(BY_LETTER["A"], None, {}, hostile, 0.1, by="ana", now=NOON)
    made.refresh_from_db()
    assert made.facts == {"names⟨U+0000⟩": ["a⟨U+0000⟩b", {"c": "⟨U+D800⟩"}, 7, None]}
    assert made.findings == [{"ok": True, "sentence": "Found a⟨U+0000⟩b."}]


# --- who may sign, and on what --------------------------------------------------------------------------------------


def test_all_groups_must_sign(people):
    found("A")
    sign("A", "CRM Squad", people["CRM Squad"])
    assert not is_open("A", now=NOON)
    sign("A", "Platform", people["Platform"])
    assert is_open("A", now=NOON)


def test_a_signature_is_a_whole_row_with_its_event(people, account):
    made = found("C", account)
    signed = sign("C", "CDP", people["CDP"], account, note="  98 of 98 ")
    row = SignOff.objects.values_list(
        "gate", "account", "group", "decision", "evidence", "statement", "note", "user", "decided_at", "decided_by"
    ).get()
    assert row == ("C", account.pk, "CDP", "signed", made.pk, C.statement, "98 of 98", people["CDP"].pk, NOON, "of CDP")
    assert signed.pk
    last = Event.objects.first()
    assert (last.kind, last.by, last.at, last.account) == ("gate signed", "of CDP", NOON, account)
    assert last.sentence == (
        f"of CDP signed Gate C (Contacts carry their CRM id) for Harbour (organisation 7) for CDP on evidence {made.pk}: 98 of 98"
    )


def test_somebody_else_is_refused_and_told_who_could(people, account):
    found("C", account)
    stranger = member(name="stranger")
    assert refusal("C", "CDP", stranger, account) == ("stranger is not in group CDP, which must decide on Gate C: in group CDP: of CDP.")
    assert refusal("C", "Platform", people["Platform"], account) == "Platform does not own Gate C: it is for CDP to decide."
    people["CDP"].is_active = False
    people["CDP"].save()
    assert "nobody is in group CDP yet" in refusal("C", "CDP", people["CDP"], account)
    assert not SignOff.objects.exists()


def test_a_superuser_is_no_member(account):
    found("C", account)
    assert "root is not in group CDP" in refusal("C", "CDP", factories.superuser(), account)


def test_nobody_signs_for_two_groups_of_one_gate(people):
    both = member("CRM Squad", "Platform", name="both")
    found("A")
    sign("A", "CRM Squad", both)
    said = refusal("A", "Platform", both)
    assert said == (
        "both has signed Gate A (The CRM is read only) for CRM Squad already: one person never signs for two groups. "
        "Somebody else must sign for Platform (in group Platform: both, of Platform)."
    )
    found("A", passes=False)
    assert refusal("A", "Platform", both) == said, "what has lapsed may stand again"
    found("A")
    sign("A", "Platform", people["Platform"])
    assert is_open("A", now=NOON)


@pytest.mark.django_db
def test_who_withdrew_may_sign_for_the_other_group():
    both = member("CRM Squad", "Platform", name="both")
    found("A")
    sign("A", "CRM Squad", both)
    signoffs.withdraw("A", None, group="CRM Squad", user=both, note="my mistake", now=NOON)
    assert sign("A", "Platform", both).decision == "signed"


def test_failing_evidence_cannot_be_signed(people, account):
    made = found("C", account, passes=False, says="96.94 % is below 99 %.")
    assert refusal("C", "CDP", people["CDP"], account) == (
        f"Evidence {made.pk} of Gate C (Contacts carry their CRM id) for Harbour (organisation 7) fails, so it cannot be signed: 96.94 % is below 99 %."
    )


def test_without_evidence_there_is_nothing_to_sign(people, account):
    assert "was not measured yet" in refusal("C", "CDP", people["CDP"], account)


def test_stale_evidence_cannot_be_signed(people, account, settings):
    found("C", account)
    assert "it is older than 30 days" in refusal("C", "CDP", people["CDP"], account, now=NOON + timedelta(days=30))
    settings.CDP_DATABASE_URL = "postgresql://other:secret@elsewhere:5432/cdp"
    said = refusal("C", "CDP", people["CDP"], account)
    assert "is stale, so it cannot be signed: CDP_DATABASE_URL was " in said
    assert "elsewhere" in said
    assert "secret" not in said


def test_evidence_replaced_while_the_form_was_open_cannot_be_signed(people, account):
    looked_at = found("C", account)
    newer = found("C", account, now=LATER)
    with pytest.raises(CannotDecide, match=f"look at evidence {newer.pk} and sign that"):
        signoffs.sign("C", account, group="CDP", evidence=looked_at, user=people["CDP"], note="fine", now=LATER)


def test_evidence_of_another_account_cannot_be_signed(people, account):
    other = factories.account()
    found("C", account)
    foreign = found("C", other)
    with pytest.raises(CannotDecide):
        signoffs.sign("C", account, group="CDP", evidence=foreign, user=people["CDP"], note="fine", now=NOON)


def test_signing_the_same_evidence_again_is_refused(people, account):
    found("C", account)
    sign("C", "CDP", people["CDP"], account)
    assert "has signed evidence" in refusal("C", "CDP", people["CDP"], account)
    assert SignOff.objects.count() == 1


def test_newer_evidence_is_signed_anew_though_the_old_signature_stands_and_then_counts_from_there(people, account):
    """Nobody has to wait for it to run out, and for production to be paused."""
    found("C", account)
    sign("C", "CDP", people["CDP"], account)
    found("C", account, now=NOON + timedelta(days=20))
    assert is_open("C", account, now=NOON + timedelta(days=20))
    sign("C", "CDP", people["CDP"], account, now=NOON + timedelta(days=20))
    assert is_open("C", account, now=NOON + timedelta(days=49))
    assert not is_open("C", account, now=NOON + timedelta(days=50))


def test_what_was_measured_elsewhere_meanwhile_has_to_be_measured_here_again(people, account, settings):
    found("C", account)
    sign("C", "CDP", people["CDP"], account)
    here, settings.CDP_DATABASE_URL = settings.CDP_DATABASE_URL, "postgresql://other:secret@elsewhere:5432/cdp"
    found("C", account, now=LATER)
    settings.CDP_DATABASE_URL = here
    [group] = standing.of("C", account, now=LATER).groups
    assert (group.state, "CDP_DATABASE_URL was " in group.why, "elsewhere" in group.why) == (State.LAPSED, True, True)
    found("C", account, now=LATER)
    assert is_open("C", account, now=LATER)


def test_a_note_is_needed(people, account):
    found("C", account)
    assert "A note is needed" in refusal("C", "CDP", people["CDP"], account, note=" \n ")


@pytest.mark.parametrize(
    ("letter", "with_account", "said"), [("C", False, "name one"), ("A", True, "name none"), ("Z", False, "no gate Z")]
)
def test_the_account_is_named_where_it_counts(people, account, letter, with_account, said):
    with pytest.raises(CannotDecide, match=said):
        signoffs.reject(letter, account if with_account else None, group="CDP", user=people["CDP"], note="no", now=NOON)


def test_gates_without_a_probe_are_signed_on_the_word(people):
    sign("G", "Design", people["Design"])
    assert is_open("G", now=NOON)
    assert not is_open("G", now=NOON + timedelta(days=30))


# --- other decisions ------------------------------------------------------------------------------------------------


def test_rejecting_and_withdrawing_are_decisions_of_their_own(people, account):
    found("C", account)
    sign("C", "CDP", people["CDP"], account)
    signoffs.withdraw("C", account, group="CDP", user=people["CDP"], note="wrong account", now=LATER)
    [group] = standing.of("C", account, now=LATER).groups
    assert (group.state, group.why) == (State.WITHDRAWN, "of CDP withdrew the sign-off for CDP on 2026-03-02 13:00 UTC: wrong account")
    signoffs.reject("C", account, group="CDP", user=people["CDP"], note="duplicates", now=LATER)
    [group] = standing.of("C", account, now=LATER).groups
    assert (group.state, group.why) == (State.REJECTED, "of CDP rejected it for CDP on 2026-03-02 13:00 UTC: duplicates")
    assert list(SignOff.objects.values_list("decision", flat=True)) == ["rejected", "withdrawn", "signed"]
    sign("C", "CDP", people["CDP"], account, now=LATER)
    assert is_open("C", account, now=LATER)


def test_failing_evidence_can_be_rejected_by_a_member_only(people, account):
    made = found("C", account, passes=False)
    assert signoffs.reject("C", account, group="CDP", user=people["CDP"], note="no", now=NOON).evidence == made
    with pytest.raises(CannotDecide):
        signoffs.reject("C", account, group="CDP", user=people["Platform"], note="no", now=NOON)


def test_only_a_signature_can_be_withdrawn(people, account):
    """Where nothing was decided it cannot, nor a rejection, nor what is withdrawn already."""
    found("C", account)
    no = {"group": "CDP", "user": people["CDP"], "note": "no", "now": NOON}
    for before in (lambda: None, lambda: signoffs.reject("C", account, **no)):
        before()
        with pytest.raises(CannotDecide, match="no sign-off on Gate C"):
            signoffs.withdraw("C", account, **no)
    sign("C", "CDP", people["CDP"], account)
    signoffs.withdraw("C", account, **no)
    with pytest.raises(CannotDecide, match="no sign-off on Gate C"):
        signoffs.withdraw("C", account, **no)


# --- never changed, even in psql ------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["gates_signoff", "gates_evidence", "migration_event", "migration_mappingrevision"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id + 1", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_the_database_itself_refuses(people, account, table, statement):
    factories.mapping()
    found("C", account)
    sign("C", "CDP", people["CDP"], account)
    before = SignOff.objects.count(), Evidence.objects.count(), Event.objects.count()
    with pytest.raises(DatabaseError, match="never changed or removed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # no change may be under way where a table is emptied
        cursor.execute("SET LOCAL ROLE NONE")  # to the tables' owner too
        cursor.execute(statement.format(table))
    assert (SignOff.objects.count(), Evidence.objects.count(), Event.objects.count()) == before


# --- at once --------------------------------------------------------------------------------------------------------


def at_once(*works) -> list[str]:
    """Run them in threads that meet at a barrier; what each said."""
    barrier, said = threading.Barrier(len(works)), [""] * len(works)

    def run(at: int) -> None:
        try:
            barrier.wait(10)
            works[at]()
            said[at] = "done"
        except CannotDecide as error:
            said[at] = str(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return said


@pytest.mark.django_db(transaction=True)
def test_one_person_signing_for_two_groups_at_once_signs_for_one():
    both = member("CRM Squad", "Platform", name="both")
    found("A")
    for _ in range(5):
        said = at_once(lambda: sign("A", "CRM Squad", both), lambda: sign("A", "Platform", both))
        assert sorted(each == "done" for each in said) == [False, True]
        signed = SignOff.objects.first()
        signoffs.withdraw("A", None, group=signed.group, user=both, note="again", now=NOON)


@pytest.mark.django_db(transaction=True)
def test_two_people_signing_at_once_both_sign_or_one_is_told():
    found("A")
    squad, platform, second = member("CRM Squad"), member("Platform"), member("Platform")
    said = at_once(lambda: sign("A", "CRM Squad", squad), lambda: sign("A", "Platform", platform), lambda: sign("A", "Platform", second))
    assert sorted(said)[1:] == ["done", "done"]
    assert "Platform has signed evidence" in sorted(said)[0]
    assert is_open("A", now=NOON)


@pytest.mark.django_db(transaction=True)
def test_a_digest_counts_configuration_and_verdict_only(people):
    first, second = found("A"), found("A", says="Found otherwise, and well.", now=LATER)
    assert first.digest == second.digest
    assert found("A", passes=False).digest != first.digest
    assert evidence.digest({"a": "1", "b": "2"}, True) == evidence.digest({"b": "2", "a": "1"}, True)
