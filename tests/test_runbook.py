"""docs/runbook.md, entry by entry: its symptom is brought about, its commands are run as written, and they print what the page says they print.

`RUNBOOK_DRAW=1 make faults` writes what they print into the page.
"""

import html
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from calm_console.demo import sample
from gates import signoffs
from migration import accounts, revisions, steps
from migration.models import Account, Chunk, Run
from migration.states import RunState
from tests import factories
from tests.conftest import PASSWORD, ROLES, at, rows, run_sql
from tests.faults.servers import caught_up
from tests.gates.test_running import probe_and_sign, ready, staff
from tests.migration.conftest import OWNER, mapping_document, now, run_account
from tests.migration.test_restart import ROOT, environment
from tests.migration.test_restored import PERSONS, cdp_copies, copies, lose, started, work

__all__ = ["cdp_copies", "copies", "staff"]

PAGE = ROOT / "docs" / "runbook.md"
DRAW = bool(os.environ.get("RUNBOOK_DRAW"))
FENCE = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
MANAGE = ".venv/bin/python manage.py "
FIRST_RUN = 7
WIDTH = 160
SYMPTOMS = [
    "A run waits",
    "A run is partial",
    "A gate lapsed",
    "USMAN is down",
    "The replica lags",
    "Redis is lost",
    "A wrong mapping was published",
    "A wrong account was run",
    "The CDP was restored from a backup",
    "The console was restored from a backup",
]
Play = Callable[..., None]


def entries() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_symptom_has_an_entry_of_the_same_form():
    found = entries()
    assert list(found) == SYMPTOMS
    for title, text in found.items():
        assert re.findall(r"^\*\*(.*?)\.?\*\*", text, re.MULTILINE) == ["The page shows", "What to do", "How to see that it worked"], title
        assert FENCE.search(text), title


# --- playing an entry -----------------------------------------------------------------------------------------------


@pytest.fixture
def play(settings, monkeypatch, tmp_path) -> Play:
    """Run an entry's commands in order; each `# comment` between them calls the next of `hooks`."""
    monkeypatch.setenv("LOGNAME", "ops")
    monkeypatch.chdir(tmp_path)

    def run(title: str, *hooks: Callable[[], object], runner: Callable[[str], str] = in_process) -> None:
        left = iter(hooks)
        text = entries()[title]
        drawn = FENCE.sub(lambda fence: played(fence[0], left, runner), text)
        assert list(left) == [], "every hook was called"
        if DRAW:
            PAGE.write_text(PAGE.read_text().replace(text, drawn))
        assert comparable(text) == comparable(drawn)

    return run


def played(fence: str, hooks: Iterator[Callable[[], object]], runner: Callable[[str], str]) -> str:
    """The fence with what its commands print now."""
    lines = []
    for line in fence.splitlines():
        if line.startswith("# "):
            next(hooks)()
            lines.append(line)
        elif line.startswith("$ "):
            lines += [line, *shown(runner(line.removeprefix("$ "))).splitlines()]
    return "".join(f"{line}\n" for line in lines)


def in_process(command: str) -> str:
    """What a command prints on a terminal, and its exit code where that is not 0."""
    if command.startswith("curl "):
        address = urlsplit(command.split()[-1])
        return Client().get(f"{address.path}?{address.query}").content.decode() + "\n"
    assert command.startswith(MANAGE), command
    name, *words = shlex.split(command.removeprefix(MANAGE))
    out, err = StringIO(), StringIO()
    code, sentence = 0, ""
    try:
        call_command(name, *words, stdout=out, stderr=err)
    except SystemExit as ended:
        code = int(str(ended.code))
    except CommandError as error:
        code, sentence = error.returncode, f"CommandError: {error}\n"
    # Whether verification too has to wait a moment for the replica differs from time to time.
    waits = [line for line in err.getvalue().splitlines() if re.search(r"\(.*\): |does not answer", line) and " verifying (" not in line]
    waits = [line.partition("): ")[0] + ")" if "): " in line else line for line in waits]
    waits = list({re.sub(r"\d+", "N", line): line for line in waits}.values())  # each once, however the seconds go on
    return "\n".join(waits) + "\n" * bool(waits) + out.getvalue() + sentence + (f"exit code {code}\n" if code else "")


def by_process(**variables: str) -> Callable[[str], str]:
    """The same in a process of its own, for what is read from the environment once."""
    from django.conf import settings

    def run(command: str) -> str:
        if command.startswith("curl "):
            return in_process(command)
        words = [sys.executable, ROOT / "manage.py", *shlex.split(command.removeprefix(MANAGE))]
        done = subprocess.run(words, env=environment(settings) | variables, capture_output=True, text=True, timeout=100, check=False)
        waits = [line for line in done.stderr.splitlines() if re.match("The broker|CommandError", line)]
        return "\n".join(waits) + "\n" * bool(waits) + done.stdout + (f"exit code {done.returncode}\n" if done.returncode else "")

    return run


def shown(text: str) -> str:
    """With the names that the documents use, in the place of this test's."""
    text = re.sub(r"127\.0\.0\.1:\d+/calm_test_\d+_crm|127\.0\.0\.1:\d+/replicated", "crm-replica.internal:5432/crm", text)
    text = text.replace(ROLES["crm"], "calm_crm_reader").replace(ROLES["cdp"], "calm_loader")
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ..." for line in text.splitlines())


def comparable(text: str) -> str:
    """Without what differs from day to day."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "MOMENT", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)
    text = re.sub(r"(?<=evidence )\d+", "N", text)
    return re.sub(r"\b\d+(\.\d+)?(?= s\b)", "N", text)


# --- what an entry begins with --------------------------------------------------------------------------------------


@pytest.fixture
def console(systems, settings):
    """The sample with accounts and mapping, no gate refusing; the next run is number 7."""
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    accounts.sync(now=now())
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE NONE")
        cursor.execute(f"ALTER SEQUENCE migration_run_id_seq RESTART WITH {FIRST_RUN}")
    connection.close()
    return systems


def page_shows(*words: str) -> None:
    """The newest run's page, as staff see it."""
    client = Client()
    client.force_login(User.objects.filter(username="root").first() or factories.superuser())
    page = html.unescape(client.get(f"/admin/migration/run/{Run.objects.latest('pk').pk}/change/").content.decode())
    assert [word for word in words if word not in page] == []


pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


@pytest.mark.fault
def test_a_run_waits(console, play):
    """Nobody works on it: one worker died with a chunk, and there is no other."""
    run = started()
    work(run, 2)
    lose(run, 1)
    page_shows("running", f"{OWNER} did not come back")
    play("A run waits")
    page_shows("partial")
    assert Run.objects.get().state == RunState.PARTIAL


@pytest.mark.fault
def test_a_run_is_partial(console, play):
    (first,) = rows(
        console.crm,
        "SELECT min(id) FROM audits WHERE auditable_type = 'Crm::Person' AND action = 'create' AND auditable_id = ANY(%s)",
        ([person for (person,) in rows(console.cdp, PERSONS)],),
    )
    ((moment,),) = rows(console.crm, "SELECT created_at::text FROM audits WHERE id = %s", first)
    console.change_crm(f"UPDATE audits SET created_at = NULL WHERE id = {first[0]}")
    run_account(1)
    page_shows("partial", "12 candidates are quarantined", "time_missing")
    play("A run is partial", lambda: console.change_crm(f"UPDATE audits SET created_at = '{moment}' WHERE id = {first[0]}"))


@pytest.mark.fault
def test_a_gate_lapsed(console, staff, settings, play):
    settings.GATE_POLICY = "gates.policies.decide"
    probe_and_sign(staff, "AB")
    run = ready(staff, 2, 40)
    steps.worked(run, owner=OWNER, turn=0.000001)
    account = Account.objects.get(crm_organization_id=2)
    signoffs.withdraw("C", account, group="CDP", user=staff["CDP"], note="contacts were merged", now=now())
    steps.step(run, owner=OWNER)
    run.refresh_from_db()
    assert (run.pk, run.state) == (FIRST_RUN + 1, RunState.PAUSED)
    page_shows("paused", "Gate C (Contacts carry their CRM id) for Borneo Retail (organisation 2) is closed", "in group CDP: CDP")
    play("A gate lapsed")


@pytest.mark.fault
def test_usman_is_down(console, settings, play):
    up, settings.USMAN_URL = settings.USMAN_URL, "http://127.0.0.1:1"
    settings.USMAN_TIMEOUT_SECONDS = 1

    def up_again() -> None:
        page_shows("interrupted", "USMAN_URL: USMAN did not answer")
        settings.USMAN_URL = up

    play("USMAN is down", up_again)


@pytest.mark.fault
def test_the_replica_lags(console, settings, monkeypatch, play, own_postgres, own_standby):
    monkeypatch.setattr("migration.budget.LOOK_EVERY", timedelta(0))  # the whole run takes less than the usual five seconds
    url = own_postgres.new_database("replicated")
    sample.load_crm(url, reader=ROLES["crm"])
    run_sql(url, "CREATE TABLE noise (n int)")
    caught_up(own_postgres, own_standby)
    settings.CRM_DATABASE_URL = at(own_standby.url("replicated"), "replicated", ROLES["crm"], PASSWORD)
    settings.READ_LAG_LIMIT_SECONDS = 2
    started()
    run_sql(own_standby.url(), "SELECT pg_wal_replay_pause()")
    run_sql(url, "INSERT INTO noise VALUES (0)")
    time.sleep(3)

    def goes_on() -> None:
        """Once the run has said why it waits."""
        deadline = time.monotonic() + 60
        console_url = at(console.crm, connection.settings_dict["NAME"])
        while not rows(console_url, "SELECT 1 FROM migration_run WHERE reason_code = 'read_budget'") and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(1)
        page_shows("running", "The CRM's replica is ", " s behind; nothing is read from 2 s on.")
        connection.close()
        run_sql(own_standby.url(), "SELECT pg_wal_replay_resume()")

    mending = threading.Thread(target=goes_on)
    mending.start()
    play("The replica lags")
    mending.join()


@pytest.mark.fault
def test_redis_is_lost(console, settings, play):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    run = started()
    work(run, 1)
    play("Redis is lost", runner=by_process(REDIS_URL="redis://127.0.0.1:1/0", TURN_SECONDS="60"))
    assert Run.objects.get().state == RunState.PARTIAL


@pytest.mark.fault
def test_a_wrong_mapping_was_published(console, play):
    wrong = mapping_document()
    wrong["id_sets"] = wrong["id_sets"] | {"won": [1, 2, 3]}
    revisions.publish(wrong, by="ana", note="typed from memory", now=now())
    run_account(1)
    page_shows("partial", "revision")
    Path("mapping.json").write_text(json.dumps(mapping_document()))
    play("A wrong mapping was published")


@pytest.mark.fault
def test_a_wrong_account_was_run(console, play):
    run = started()
    work(run, 3)
    page_shows("running", "tester")
    play("A wrong account was run")
    page_shows("withdrawn")
    assert console.activities("origin = 'crm_migration'") == []


@pytest.mark.fault
def test_the_cdp_was_restored(console, play, cdp_copies):
    run = started()
    work(run, 2)
    restore = cdp_copies()
    run_account(1, chunk_size=90)
    restore()
    play("The CDP was restored from a backup")
    assert len(console.activities("origin = 'crm_migration'")) == 471


@pytest.mark.fault
def test_the_console_was_restored(console, play, copies):
    run = started()
    work(run, 2)
    restore = copies()
    run_account(1, chunk_size=90)
    restore()
    Chunk.objects.filter(state="leased").update(lease_expires_at=now() - timedelta(seconds=1))
    play("The console was restored from a backup")
