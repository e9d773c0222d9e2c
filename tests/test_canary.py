"""A secret in every URL and setting: it is in no output, log, page, traceback, table or process list, whether things work or fail."""

import base64
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import redis
from celery.backends.base import DisabledBackend
from django.db import connection
from django.test import Client, override_settings
from django.urls import path

from calm_console import scrubbing
from calm_console.celery import app
from migration import accounts, cdp, crm, tasks
from migration.doors import Misconfigured, Outage
from migration.models import Account, Run
from migration.states import RunState
from tests import factories
from tests.conftest import Systems, run_sql
from tests.migration.conftest import now

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
CANARY = "c4n4ry/p@ss:w<o>rd"
FORMS = {CANARY, quote(CANARY, safe=""), "c4n4ry"}
ROLE = f"calm_canary_{os.getpid()}"
NOWHERE = "127.0.0.1:1"
FAILING = {
    "down": "postgresql://someone:{}@" + NOWHERE + "/none",
    "unknown host": "postgresql://someone:{}@no-such-host.invalid:5432/none",
    "no port": "postgresql://someone:{}@127.0.0.1:port/none",
    "no database": "postgresql://someone:{}@SERVER/none",
    "another scheme": "mysql://someone:{}@127.0.0.1/none",
    "no scheme": "someone:{}@127.0.0.1/none",
}
COMMANDS = (
    ("check",),
    ("sync_accounts",),
    ("publish_mapping", "--file", "calm_console/demo/mapping.json", "--yes"),
    ("run_account", "1", "--mode", "dry-run", "--inline"),
    ("verify_account", "1"),
    ("probe_gates", "A", "D"),
    ("control_run", "1", "pause"),
    ("retry_quarantine", "--inline"),
    ("withdraw_run", "1"),
    ("plan_batch", "1", "--name", "canary", "--first-day", "2999-01-01", "--yes"),  # so that the tick below starts nothing, by night either
    ("compare_receipts",),
    ("retain",),
    ("tick",),
    ("prepare_cdp",),
)
PROCESSES = {
    "worker": ("celery", "-A", "calm_console", "worker", "--concurrency", "1"),
    "beat": ("celery", "-A", "calm_console", "beat"),
    "web": ("gunicorn", "calm_console.wsgi", "--bind", "127.0.0.1:0", "--no-control-socket"),
}


def secret(template: str) -> str:
    return template.replace("{}", quote(CANARY, safe=""))


def console() -> str:
    login = connection.settings_dict
    address = f"{quote(login['HOST'], safe='')}:{login['PORT']}/{login['NAME']}"
    return f"postgresql://{quote(login['USER'])}:{quote(login['PASSWORD'] or '', safe='')}@{address}"


def canaries(systems: Systems) -> dict[str, str]:
    """The environment of a console that works, with a canary wherever a secret may be that nothing depends on here."""
    return {
        "DATABASE_URL": by_canary(console()),
        "CRM_DATABASE_URL": by_canary(systems.crm),
        "CDP_DATABASE_URL": by_canary(systems.cdp),
        "REDIS_URL": secret("redis://:{}@" + NOWHERE + "/0"),
        "USMAN_URL": systems.usman.replace("http://", secret("http://someone:{}@")),
        "IAG_URL": secret("http://someone:{}@" + NOWHERE),
        "EMAIL_URL": secret("smtp://someone:{}@" + NOWHERE),
        "NOTIFY_EMAIL_TO": "staff@sample.example",
        "NOTIFY_WEBHOOK_URL": secret("http://" + NOWHERE + "/hooks/{}?token={}"),
        "NOTIFY_WEBHOOK_SECRET": CANARY * 2,
        "NOTIFY_WEBHOOK_ALLOW_PRIVATE": "1",
        "SECRET_KEY": CANARY * 4,
        "METRICS_TOKEN": CANARY,
        "DJANGO_SETTINGS_MODULE": "tests.open_gates",
        "CONNECT_TIMEOUT_SECONDS": "1",
        "USMAN_TIMEOUT_SECONDS": "1",
        "LOG_LEVEL": "DEBUG",
    }


def by_canary(url: str) -> str:
    """The same database, reached by the role whose password is the canary."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{ROLE}:{quote(CANARY, safe='')}@{parts.netloc.rpartition('@')[2]}").geturl()


@pytest.fixture
def role(postgres) -> Iterator[None]:
    """A role that may do everything, and whose password is the canary."""
    run_sql(postgres, f"CREATE ROLE {ROLE} SUPERUSER LOGIN PASSWORD '{CANARY}'")
    yield
    run_sql(postgres, f"DROP ROLE {ROLE}")


def told(text: str) -> list[str]:
    """The lines that give it away."""
    return [line[:300] for line in text.splitlines() if any(form in line for form in FORMS)]


def run(environment: dict[str, str], *command: str) -> tuple[str, str]:
    """What a command said, and how it and its children showed in the process list."""
    return watched(environment, "manage.py", *command)


def watched(environment: dict[str, str], *words: str, until: str = "") -> tuple[str, str]:
    """The same of any program of Python; one that would not end is told to, once it has said `until`."""
    shown: set[str] = set()
    with (
        NamedTemporaryFile("w") as output,
        subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        ) as child,
    ):
        deadline = time.monotonic() + 50
        while child.poll() is None and time.monotonic() < deadline and not (until and until in Path(output.name).read_text()):
            shown.add(subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, timeout=10, check=True).stdout)
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.5)
        child.terminate()
        child.wait(20)
        return Path(output.name).read_text(), "\n".join(shown)


def tables() -> str:
    """Every row of every table of the console, as text."""
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor)
        found = []
        for name in names:
            cursor.execute(f'SELECT t::text FROM "{name}" t')
            found += [row[0] for row in cursor.fetchall()]
    return "\n".join(found)


@pytest.mark.timeout(400)  # dozens of processes, one after another
def test_commands_that_work_and_wait_say_nothing(role, systems):
    environment, reports = canaries(systems), []
    for command in COMMANDS:
        said, shown = run(environment, *command)
        reports.append(said[-400:])
        assert "Traceback" not in said and "usage:" not in said, (command, said[-2000:])
        assert f"manage.py {' '.join(command)}" in shown, "the process list is seen whole"
        assert told(said) == [], command
        assert told(shown) == [], command
    assert told(tables()) == []
    assert [run.state for run in Run.objects.all()] == [RunState.PARTIAL], reports


@pytest.mark.fault
@pytest.mark.parametrize("name", PROCESSES)
def test_processes_that_wait_for_the_broker_say_nothing(role, systems, tmp_path, name):
    """Each starts, and says what of it is away, if it asks for it."""
    environment = canaries(systems) | {"BEAT_SCHEDULE_FILE": str(tmp_path / "schedule"), "PYTHONUNBUFFERED": "1"}
    until = {"worker": "Cannot connect to redis://", "beat": "maxinterval ->", "web": "Booting worker"}[name]
    said, shown = watched(environment, "-m", *PROCESSES[name], until=until)
    assert until in said
    assert " ".join(PROCESSES[name]) in shown
    assert (told(said), told(shown)) == ([], [])


def test_no_result_of_a_task_is_kept_and_messages_carry_a_number_and_a_time_only(db, settings):
    """So that neither can hold a secret: of each task of ours, the whole message as it lies in Redis."""
    assert isinstance(app.backend, DisabledBackend)
    ours = {name: task for name, task in app.tasks.items() if name.startswith("migration.")}
    assert sorted(ours) == ["migration.count_effect", "migration.send_notification", "migration.tick", "migration.work"]
    assert all(task.ignore_result for task in ours.values())
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        queues = [str(queue["queue"]) for queue in app.conf.task_routes.values()] + [app.conf.task_default_queue]
        client.delete(*queues)
        assert tasks.nudge(7) and tasks.nudge_count(8)
        tasks.nudge_notification(9)
        messages = [json.loads(message) for queue in {*queues} for message in client.lrange(queue, 0, -1)]
        client.delete(*queues)
        assert client.keys("celery-task-meta-*") == []
    bodies = [json.loads(base64.b64decode(message["body"]))[:2] for message in messages]
    told = [(positional, {name: value for name, value in named.items() if name != "sent"}) for positional, named in bodies]
    assert sorted(map(str, told)) == ["([], {'draft_id': 8})", "([], {'notification_id': 9})", "([], {'run_id': 7})"]
    assert [secret for secret in scrubbing.secrets() if secret in json.dumps(messages)] == []


@pytest.mark.parametrize("variable", ["DATABASE_URL", "CRM_DATABASE_URL", "CDP_DATABASE_URL"])
def test_servers_that_fail_are_named_without_it(role, systems, settings, variable, capsys, caplog):
    """Of a connection to the CRM and the CDP in this process, of the console's own database in one of its own."""
    for name, template in FAILING.items():
        url = secret(template).replace("SERVER", urlsplit(systems.crm).netloc.rpartition("@")[2])
        if variable == "DATABASE_URL":
            if name in ("down", "no port", "another scheme"):
                said, _ = run(canaries(systems) | {variable: url}, "sync_accounts")
                assert "DATABASE_URL" in said and told(said) == [], (name, said)
            continue
        setattr(settings, variable, url)
        said = said_of(variable)
        assert variable in said and told(said) == [], (name, said)
    assert told(caplog.text) == []


def said_of(variable: str) -> str:
    try:
        with closing(crm.Crm() if variable == "CRM_DATABASE_URL" else cdp.Cdp()) as door:
            door.rows("SELECT 1")
    except (Outage, Misconfigured, ValueError, psycopg.Error) as error:
        return "".join(traceback.format_exception(error))
    return f"{variable} works"


def broken(request):
    """A page that fails with everything secret in sight: message, local variables, settings."""
    from django.conf import settings

    url, key, everything = settings.CRM_DATABASE_URL, settings.SECRET_KEY, dict(os.environ)
    raise RuntimeError(f"{url} {key} {len(everything)}")


urlpatterns = [path("broken/", broken)]


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
def test_the_page_of_an_error_in_debug_hides_it(settings, accept):
    for name in scrubbing.URLS:
        setattr(settings, name, secret("scheme://someone:{}@host:1/x"))
    for name in scrubbing.WHOLE:
        setattr(settings, name, CANARY)
    settings.NOTIFY_WEBHOOK_URL = secret("https://hooks.example/services/{}?token={}")
    with override_settings(DEBUG=True, ROOT_URLCONF="tests.test_canary"):
        client = Client(raise_request_exception=False)
        answer = client.get("/broken/", headers={"accept": accept}, CRM_DATABASE_URL=settings.CRM_DATABASE_URL)
    page = answer.content.decode()
    assert (answer.status_code, "RuntimeError" in page) == (500, True)
    assert told(page) == []


def test_no_page_of_staff_has_it(systems, settings, client):
    """Configured with it, and everything away."""
    accounts.sync(now=now())
    for name, url in canaries(systems).items():
        if name != "DATABASE_URL" and hasattr(settings, name) and name.endswith(("_URL", "SECRET", "TOKEN")):
            setattr(settings, name, url)
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = secret(FAILING["down"])
    run = factories.run(account=Account.objects.first())
    client.force_login(factories.superuser())
    factories.password_typed(client)
    addresses = ["/admin/", f"/admin/migration/run/{run.pk}/change/", f"/admin/migration/run/{run.pk}/withdraw/", "/readyz"]
    addresses += [f"/admin/gates/gate/{letter}/change/" for letter in "ABDEF"]
    for address in addresses:
        assert told(client.get(address).content.decode()) == [], address
    for letter in "ABDEF":
        answer = client.post(f"/admin/gates/gate/{letter}/measure/", follow=True)
        assert told(answer.content.decode()) == [], letter
    assert told(tables()) == []
