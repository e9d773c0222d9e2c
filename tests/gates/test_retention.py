"""`manage.py retain`: what it blanks, what it leaves, and that the database allows evidence this one change and no other."""

import json
from datetime import timedelta
from hashlib import sha256
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from gates.models import Decision, Evidence, Gate, SignOff
from migration.models import ActorAnswer, Event, QuarantinedCandidate
from migration.pipeline.problems import Problem
from migration.pipeline.records import Quarantined, Receipt
from migration.states import Reason, RunMode, RunState
from tests import factories

NAMED = "budi@sample.example"
LONG_AGO = 400


@pytest.fixture
def now(db):
    return timezone.now()


def measured(now, days: int, letter: str = "D", **fields) -> Evidence:
    given = {
        "gate": Gate.objects.get(pk=letter),
        "passes": True,
        "findings": [{"ok": True, "sentence": f"{NAMED} came back"}],
        "facts": {"users": [{"email": NAMED, "share": 0.50}]},
        "configuration": {"USMAN_URL": "http://usman.example"},
        "digest": "d" * 64,
        "seconds": 0.5,
        "measured_at": now - timedelta(days=days),
        "measured_by": "ana",
    }
    return Evidence.objects.create(**given | fields)


def decided(on: Evidence, decision: Decision, now) -> SignOff:
    user = factories.superuser(f"user{SignOff.objects.count()}")
    given = {"gate": on.gate, "group": "Platform", "evidence": on, "statement": "s", "note": "n", "decided_at": now, "decided_by": "ana"}
    return SignOff.objects.create(decision=decision, user=user, **given)


def retain(*words: str) -> dict[str, object]:
    out = StringIO()
    call_command("retain", "--json", *words, stdout=out)
    return json.loads(out.getvalue())


def as_stored(table: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id, to_jsonb(t)::text FROM {table} t ORDER BY id")
        return cursor.fetchall()


def text_of(evidence: Evidence) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT findings::text || facts::text FROM gates_evidence WHERE id = %s", [evidence.pk])
        return cursor.fetchone()[0]


def test_old_evidence_keeps_its_digest_and_all_but_its_body(now):
    """Not the newest of its gate, not what the latest decision of a group was made on, not what is younger."""
    decided_before, signed, gone, young, newest = (measured(now, days) for days in (500, 450, LONG_AGO, 300, 290))
    decided(decided_before, Decision.SIGNED, now)
    decided(signed, Decision.SIGNED, now)
    stood = sha256(text_of(gone).encode()).hexdigest()
    kept = {each.pk: text_of(each) for each in (signed, young, newest)}
    signoffs = as_stored("gates_signoff")
    assert retain() == {"days": 365, "blanked": False, "evidence": 2, "quarantine_details": 0, "receipts": 0, "usman_answers": 0}
    assert Event.objects.count() == 0 and text_of(gone).count(NAMED) == 2

    before = {row.pk: row for row in Evidence.objects.all()}
    assert retain("--yes")["evidence"] == 2
    gone.refresh_from_db()
    assert gone.facts == {}
    assert gone.findings == [{"ok": None, "sentence": f"What was measured is no longer kept; its SHA-256 is {stood}."}]
    others = [field.attname for field in Evidence._meta.fields if field.attname not in ("facts", "findings")]
    for row in Evidence.objects.all():
        assert [getattr(row, name) for name in others] == [getattr(before[row.pk], name) for name in others]
    assert {pk: text_of(Evidence.objects.get(pk=pk)) for pk in kept} == kept
    assert as_stored("gates_signoff") == signoffs
    event = Event.objects.get()
    assert (event.kind, event.sentence.split(",")[0]) == ("retention", "Blanked what is older than 365 days: 2 bodies of evidence")
    assert retain("--yes")["evidence"] == 0, "what is blanked is not blanked again"


def test_old_runs_lose_details_samples_and_answers_and_no_count(now):
    put_aside = [
        Quarantined(1, 2, None, Problem(Reason.CHANGES_UNREADABLE, NAMED)),
        Quarantined(1, 3, None, Problem(Reason.PROCESSING_FAILED, "", "KeyError")),
    ]
    samples = [{"before": None, "after": {"actor_name": NAMED}}]
    results = [Receipt(written=3, quarantined=put_aside), Receipt(written=3, samples=samples)]
    stored = [result.as_json() for result in results]
    old = factories.run(mode=RunMode.DRY_RUN, finished_at=now - timedelta(days=LONG_AGO))
    young = factories.run(mode=RunMode.DRY_RUN, finished_at=now - timedelta(days=1))
    for run in (old, young):
        chunk, _ = (factories.chunk(run, result=result) for result in results)
        factories.quarantined(chunk, detail=NAMED)
        ActorAnswer.objects.create(run=run, email=NAMED, usman_id="u", name="Budi", status="ACTIVE")
    assert retain() == {"days": 365, "blanked": False, "evidence": 0, "quarantine_details": 1, "receipts": 2, "usman_answers": 1}
    assert retain("--yes") == {"days": 365, "blanked": True, "evidence": 0, "quarantine_details": 1, "receipts": 2, "usman_answers": 1}
    blanked = [[1, 2, None, "changes_unreadable", "", ""], [1, 3, None, "processing_failed", "", "KeyError"]]
    receipts = {run: list(run.chunks.order_by("number").values_list("receipt", flat=True)) for run in (old, young)}
    assert receipts == {old: [stored[0] | {"quarantined": blanked}, stored[1] | {"samples": []}], young: stored}
    assert Receipt.from_json(receipts[old][0]).written == 3
    assert list(QuarantinedCandidate.objects.order_by("run_id").values_list("detail", flat=True)) == ["", NAMED]
    assert ActorAnswer.objects.get().run == young
    assert set(retain("--yes").values()) == {365, True, 0}


def test_what_is_counted_is_what_is_blanked_and_a_run_that_is_being_withdrawn_is_left(now):
    """More is young than old: a count of the others would be another number."""
    runs = {days: factories.run(finished_at=now - timedelta(days=days)) for days in (LONG_AGO, 1)}
    withdrawing = factories.run(RunState.WITHDRAWING, finished_at=now - timedelta(days=LONG_AGO))
    for run, number in ((runs[LONG_AGO], 2), (runs[1], 3), (withdrawing, 1)):
        chunk = factories.chunk(run)
        for one in range(number):
            factories.quarantined(chunk, detail=NAMED)
            ActorAnswer.objects.create(run=run, email=f"{one}{NAMED}", usman_id="u", name="Budi", status="ACTIVE")
    counted = {"days": 365, "evidence": 0, "quarantine_details": 2, "receipts": 0, "usman_answers": 2}
    assert (retain(), retain("--yes")) == (counted | {"blanked": False}, counted | {"blanked": True})
    assert set(QuarantinedCandidate.objects.filter(detail="").values_list("run", flat=True)) == {runs[LONG_AGO].pk}


@pytest.mark.parametrize(
    "change",
    [
        "facts = '{}'",
        "findings = '[]', facts = '{}'",
        "findings = gates_blanked(findings, facts)",
        "facts = '{}', findings = gates_blanked(findings, '{}')",
        "facts = '{}', findings = gates_blanked(findings, facts), passes = NOT passes",
        "facts = '{}', findings = gates_blanked(findings, facts), digest = repeat('e', 64)",
        "facts = '{}', findings = gates_blanked(findings, facts), measured_at = now()",
        "measured_by = 'eve'",
        "id = id",
    ],
)
def test_no_other_change_of_old_evidence(now, change):
    evidence = measured(now, LONG_AGO)
    stored = as_stored("gates_evidence")
    with pytest.raises(DatabaseError, match="never changed or removed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE gates_evidence SET {change} WHERE id = %s", [evidence.pk])
    assert as_stored("gates_evidence") == stored


@pytest.mark.parametrize(("days", "times"), [(29, 1), (LONG_AGO, 2)])
def test_not_the_body_of_young_evidence_and_no_body_twice(now, days, times):
    evidence = measured(now, days)
    blanking = "UPDATE gates_evidence SET facts = '{}', findings = gates_blanked(findings, facts) WHERE id = %s"
    with pytest.raises(DatabaseError, match="never changed or removed"), transaction.atomic(), connection.cursor() as cursor:
        for _ in range(times):
            cursor.execute(blanking, [evidence.pk])


def test_it_refuses_to_blank_what_is_young(db):
    with pytest.raises(CommandError, match="--days must be 30 at least"):
        call_command("retain", "--days", "29")


@pytest.mark.parametrize("days", ["36501", "4000000", "999999999", "9" * 30])
def test_more_days_than_the_calendar_has_are_refused_in_words(db, days):
    with pytest.raises(CommandError, match="--days may be 36,500 at most") as caught:
        call_command("retain", "--days", days)
    assert caught.value.returncode == 2
    assert retain("--days", "36500")["days"] == 36500


def test_the_pages_say_that_a_body_is_gone(now, client):
    old, _ = measured(now, LONG_AGO), measured(now, 1)
    retain("--yes")
    client.force_login(factories.superuser())
    page = client.get(f"/admin/gates/evidence/{old.pk}/change/")
    assert (page.status_code, "What was measured is no longer kept; its SHA-256 is" in page.content.decode()) == (200, True)
    assert NAMED not in page.content.decode()
