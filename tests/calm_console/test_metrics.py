"""/metrics: who may read it, what it says to the figure, and that a scrape costs the same however much there is."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import promql_parser
import pytest
import yaml
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from calm_console import metrics
from migration import budget, figures, summaries, tallies, ticks
from migration.doors import Outage
from migration.models import Chunk, ReadBudget, Summary
from migration.pipeline.problems import Problem
from migration.pipeline.records import Quarantined, Receipt
from migration.states import ChunkState, Reason, RunMode, RunState
from migration.usman import Usman
from tests import factories

TOKEN = {"Authorization": "Bearer s3cret"}
OPS = Path(metrics.__file__).parents[1] / "docs" / "ops"


@pytest.fixture
def token(settings):
    settings.METRICS_TOKEN = "s3cret"


def scraped(client) -> dict[tuple, float]:
    """(name, label values...) -> value."""
    text = client.get("/metrics", headers=TOKEN).text
    return {(s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples}


def test_without_a_token_there_is_no_page(client):
    assert client.get("/metrics", headers=TOKEN).status_code == 404


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer S3cret", "Basic s3cret", "s3cret", "Bearer s3cret ü"])
def test_who_has_no_token_reads_nothing(client, token, given):
    response = client.get("/metrics", headers={"Authorization": given})
    assert (response.status_code, response.content, response["WWW-Authenticate"]) == (401, b"", "Bearer")


@pytest.mark.django_db
def test_an_empty_console(client, token):
    found = scraped(client)
    ours = {key: value for key, value in found.items() if key[0].startswith("calm_") and not key[0].startswith(("calm_usman", "calm_iag"))}
    zero = {("calm_runs", str(m), str(s)): 0 for m in RunMode for s in RunState}
    zero |= {("calm_outcomes_total", str(m), o): 0 for m in RunMode for o in tallies.OUTCOMES}
    names = ("calm_quarantined", "calm_chunks_leased", "calm_chunks_failed", "calm_oldest_lease_age_seconds", "calm_reading_stopped")
    zero |= {("calm_runs_kept_from_end",): 0}
    zero |= {(name,): 0 for name in names}
    zero |= {("calm_gate_open", letter): 0 for letter in "ABDEFGH"}
    zero |= {("calm_gate_accounts", "C", "yes"): 0, ("calm_gate_accounts", "C", "no"): 0}
    assert ours == zero | {("calm_ledger_up",): 1, ("calm_readers_allowed",): 4}


def receipt() -> Receipt:
    put_aside = Quarantined(1, 2, None, Problem(Reason.TENANT_MISMATCH, "", ""))
    return factories.receipt(written=5, corrected=1, already_live=2, skipped={"nothing_changed": 3}, quarantined=[put_aside])


@pytest.mark.django_db
def test_outcomes_add_up(client, token):
    for mode in (RunMode.PRODUCTION, RunMode.PRODUCTION, RunMode.DRY_RUN):
        tallies.count(mode, receipt())
    found = scraped(client)
    once = {"written": 5, "corrected": 1, "unchanged": 0, "already_live": 2, "skipped": 3, "quarantined": 1, "waived": 0}
    assert {outcome: found["calm_outcomes_total", "production", outcome] for outcome in once} == {o: 2 * n for o, n in once.items()}
    assert {outcome: found["calm_outcomes_total", "dry_run", outcome] for outcome in once} == once


@pytest.mark.django_db
def test_runs_chunks_replica_and_tick(client, token, settings):
    now = timezone.now()
    account = factories.account()
    factories.chunk(factories.run(RunState.FAILED, account=account), state=ChunkState.FAILED)  # of an earlier run
    run = factories.run(RunState.RUNNING, account=account)
    factories.chunk(run, state=ChunkState.FAILED)
    for held in (5, 25):
        ends = now + timedelta(seconds=held)
        factories.chunk(run, state=ChunkState.LEASED, lease_owner="w:1", lease_expires_at=ends)
    partial = factories.run(RunState.PARTIAL, candidates=10)
    summaries.refresh(partial.account, now=now)
    Summary.objects.update(done=7, total=10)
    budget.current()
    ReadBudget.objects.update(lag_seconds=15, looked_at=now - timedelta(seconds=3))
    ticks.record(by="w:1", now=now - timedelta(seconds=40))
    found = scraped(client)
    assert found["calm_runs", "production", "running"] == found["calm_runs", "production", "partial"] == 1
    assert found["calm_chunks_failed",] == 1
    assert found["calm_chunks_leased",] == 2
    assert found["calm_oldest_lease_age_seconds",] == pytest.approx(25, abs=2)
    assert found["calm_quarantined",] == 3
    assert found["calm_replica_lag_seconds",] == 15
    assert found["calm_replica_lag_age_seconds",] == pytest.approx(3, abs=2)
    assert found["calm_readers_allowed",] == 2
    assert found["calm_seconds_since_tick",] == pytest.approx(40, abs=2)


@pytest.mark.django_db
def test_a_scrape_costs_the_same_however_much_there_is():
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            list(figures.families(now=datetime.now(UTC)))
            metrics.snapshot()
        return len(seen)

    queries()
    factories.run(RunState.RUNNING)
    one = queries()
    for _ in range(3):
        factories.chunk(factories.run(RunState.RUNNING), state=ChunkState.FAILED)
    assert queries() == one


@pytest.mark.django_db
def test_the_counting_of_chunks_uses_an_index():
    with CaptureQueriesContext(connection) as seen:
        list(figures.chunks(datetime.now(UTC)))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {seen[0]['sql']}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert f"Seq Scan on {Chunk._meta.db_table}" not in plan, plan


def test_without_the_database_the_rest_is_told(client, token, django_db_blocker, monkeypatch):
    with django_db_blocker.unblock():
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "PORT", 1)
        found = scraped(client)
        connection.close()
    assert found["calm_ledger_up",] == 0
    assert ("calm_usman_attempt_seconds_count",) in found
    assert not [key for key in found if key[0] == "calm_runs"]


@pytest.mark.django_db
def test_calls_of_usman_are_counted(client, token, usman_url, settings):
    before = scraped(client)
    settings.USMAN_URL = usman_url
    with closing(Usman()) as usman:
        usman.users_by_email(["a@example.com"])
    with closing(Usman("http://127.0.0.1:1")) as away, pytest.raises(Outage, match="did not answer 3 attempts"):
        away.users_by_email(["a@example.com"])
    found = scraped(client)
    assert found["calm_usman_attempt_seconds_count",] - before["calm_usman_attempt_seconds_count",] == 4
    assert found["calm_usman_failures_total",] - before["calm_usman_failures_total",] == 1


# --- what others build on it ----------------------------------------------------------------------------------------


def expressions() -> list[str]:
    rules = [rule for group in yaml.safe_load((OPS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    assert all(rule["annotations"].keys() == {"summary", "do"} and rule["labels"]["severity"] in ("page", "ticket") for rule in rules)
    panels = json.loads((OPS / "dashboard.json").read_text())["panels"]
    return [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.django_db
def test_alerts_dashboard_and_page_name_what_is_told(client, token):
    import_module("status_api.iag")  # as the first other request does
    now = timezone.now()
    budget.current()
    ReadBudget.objects.update(lag_seconds=1, looked_at=now)
    ticks.record(by="w:1", now=now)
    told = {key[0] for key in scraped(client) if key[0].startswith("calm_") and not key[0].endswith("_created")}
    used = set(re.findall(r"\bcalm_[a-z_]+", " ".join(expressions())))
    assert used <= told
    page = set(re.findall(r"`(calm_[a-z_]+)`", (OPS.parent / "deployment.md").read_text()))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told}
    assert page == families
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} == families, "each is shown or watched"


def test_prometheus_could_evaluate_each_expression():
    """Parsed, and with the types that each function and operator takes."""
    assert [(expression, refusal(expression)) for expression in expressions() if refusal(expression)] == []


def refusal(expression: str) -> str:
    """What is wrong with it; "" where nothing is."""
    try:
        promql_parser.parse(expression)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("wrong", ["sum(calm_runs", "rate(calm_runs)", "calm_runs > 0 and on(", "histogram_quantile(calm_runs)"])
def test_a_wrong_expression_would_be_seen(wrong):
    assert refusal(wrong)


def test_values_of_labels_exist():
    named = re.findall(r'(\w+)(?:=|=~|!~)"([^"]+)"', " ".join(expressions()))
    known = {"state": {*RunState}, "mode": {*RunMode}, "outcome": {*tallies.OUTCOMES}, "gate": {*"ABCDEFGH"}}
    assert not [(label, value) for label, values in named for value in values.split("|") if value not in known[label]]


def test_processes_share_what_they_count(tmp_path):
    """Two processes of one host and one of another, whose process id may be the same."""
    counting = "import django; django.setup(); from migration.usman import SECONDS; SECONDS.observe(2)"
    given = os.environ | {"METRICS_FOLDER": str(tmp_path), "DJANGO_SETTINGS_MODULE": "calm_console.settings"}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", counting], env=given, check=True, timeout=60)
    (here,) = tmp_path.iterdir()
    shutil.copytree(here, tmp_path / "another-host")
    (family,) = [each for each in metrics.Folder(tmp_path).collect() if each.name == "calm_usman_attempt_seconds"]
    found = {sample.name: sample.value for sample in family.samples if not sample.labels}
    assert found == {"calm_usman_attempt_seconds_sum": 8, "calm_usman_attempt_seconds_count": 4}
