"""README's commands, run as they are written there: on servers of this test's own, with the sample in the place of real systems.

It takes about a minute, so it is run with the faults only: pytest -m fault tests/test_readme.py
"""

import os
import pty
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calm_console.demo import sample
from tests.conftest import at, rows, run_sql
from tests.faults.servers import Own
from tests.migration.test_restart import ROOT
from tests.servers import postgres_programs

README = ROOT / "README.md"
NOT_RUN_HERE = {"make test": "it runs the tests, and so this one"}
DEMO = "make demo"
PARTIAL = 3  # the sample's exit code, on purpose
REFUSED = 4  # a run that has ended cannot be paused
CODES = {"run_account": PARTIAL, "verify_account": PARTIAL, "control_run": REFUSED}
PASSWORD = "of-the-test"
HOST = ":...@db.internal:5432"
ORGANISATION = 42  # README's account; the sample's first one, here
PRODUCTION = 7  # README's run
# README signs gate A as one of its two groups, and C; production needs these beside.
OTHERS = [("A", "Platform"), ("B", "CRM DBA"), ("E", "CRM Squad"), ("E", "CDP")]
USERS = {"crm-lead": "CRM Squad", "cdp-lead": "CDP", "platform": "Platform", "dba": "CRM DBA"}


def sections() -> dict[str, list[str]]:
    """Heading -> the command lines of its blocks, without their comments."""
    parts = re.split(r"^##+ (.*)$", re.sub(r"<details>.*?</details>", "", README.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    found = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        lines = "".join(re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
        found[title] = [re.split(r"\s+# ", line)[0] for line in lines if re.match(r"(\w+=\S+ )?(make|psql|createdb|\.venv/bin/\w+) ", line)]
    return {title: lines for title, lines in found.items() if lines}


def test_every_section_with_commands_is_one_of_these():
    found = sections()
    assert found.pop("Try it") == [DEMO, *NOT_RUN_HERE]
    assert [*found] == ["1. Roles", "3. First use", "4. Open the gates", "5. Move an account", "7. Processes"]
    assert sum(map(len, found.values())) == 25, "another command is run below like its neighbours: see that its exit code is right"


# --- where they are run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Own]:
    """A PostgreSQL with the CRM and the CDP, whose roles README is yet to make."""
    own = Own("postgres", "readme-postgres")
    own.start()
    run_sql(own.url(), "DROP DATABASE calm_console", "DROP ROLE IF EXISTS calm_console")
    crm, cdp = own.new_database("crm"), own.new_database("cdp")
    sample.load_crm(crm)
    sample.load_cdp(cdp)
    run_sql(cdp, f"UPDATE accounts SET crm_organization_id = {ORGANISATION} WHERE crm_organization_id = 1")
    changed = rf"""regexp_replace(audited_changes::text, '("organization_id": )1(?=[,}}])', '\1{ORGANISATION}')::jsonb"""
    run_sql(crm, "SET standard_conforming_strings = on", f"UPDATE audits SET audited_changes = {changed}")
    yield own
    own.remove()


def clone(folder: Path) -> None:
    """Make the folder look like a clone with its `.venv`."""
    for path in ROOT.iterdir():
        if path.name not in (".venv", ".calm", ".env"):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)


class Shell:
    """Where commands are run, with the environment of README's section 2."""

    def __init__(self, folder: Path, server: Own, settings, usman: str) -> None:
        self.folder = folder
        clone(folder)
        shutil.copy(ROOT / "calm_console" / "demo" / "mapping.json", folder)
        url = server.url()
        state = server.state
        self.owner, self.at = at(url, "calm_console"), f"127.0.0.1:{state.ports['postgres']}"
        self.environ = os.environ | {
            "PATH": f"{postgres_programs()}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(state.ports["postgres"]),
            "PGUSER": "postgres",
            "PGPASSWORD": state.passwords["postgres"],
            "DATABASE_URL": at(url, "calm_console", "calm_console", PASSWORD),
            "CRM_DATABASE_URL": at(url, "crm", "calm_crm_reader", PASSWORD),
            "CDP_DATABASE_URL": at(url, "cdp", "calm_loader", PASSWORD),
            "REDIS_URL": settings.REDIS_URL.rpartition("/")[0] + "/8",
            "USMAN_URL": usman,
            "IAG_URL": "http://127.0.0.1:1",
            "SECRET_KEY": "x" * 50,
            "BEAT_SCHEDULE_FILE": str(folder / "schedule"),
        }

    def run(self, command: str, typed: str = "") -> tuple[int, str]:
        """Exit code and everything said; without a terminal, so that what is asked is read from `typed`."""
        done = subprocess.run(
            ["sh", "-c", command.replace(HOST, f":{PASSWORD}@{self.at}")],
            cwd=self.folder, env=self.environ, input=typed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
            start_new_session=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def answer(self, command: str, *typed: tuple[str, str]) -> int:
        """The exit code of a command that wants a terminal; each question's answer is typed once it was asked."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            ["sh", "-c", command], cwd=self.folder, env=self.environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as child:
            said = ""
            for question, reply in typed:
                while question not in said:
                    said += os.read(ours, 1000).decode()
                os.write(ours, f"{reply}\n".encode())
                said = ""
            code = child.wait(30)
        os.close(ours)
        os.close(theirs)
        return code

    @contextmanager
    def running(self, command: str, log: Path) -> Iterator[None]:
        """A process of section 7, which is told to end after the block, and does."""
        with log.open("wb") as output:
            child = subprocess.Popen(["sh", "-c", f"exec {command}"], cwd=self.folder, env=self.environ, stdout=output, stderr=output)
        try:
            yield
        finally:
            child.terminate()
            code = child.wait(40)
        assert code == 0, log.read_text()


@pytest.fixture
def shell(tmp_path, server, settings, usman_url) -> Shell:
    return Shell(tmp_path, server, settings, usman_url)


# --- the demo -------------------------------------------------------------------------------------------------------


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_the_demo_prints_what_readme_shows(tmp_path):
    """With SERVE=0 in the environment, so that it ends; on servers of its own."""
    clone(tmp_path)
    ours = ("_URL", "CALM_", "DJANGO_", "SECRET_KEY")
    given = {name: value for name, value in os.environ.items() if not any(part in name for part in ours)}
    given |= {"SERVE": "0", "CALM_HOME": str(tmp_path / "home")}
    try:
        done = subprocess.run(
            shlex.split(DEMO),
            cwd=tmp_path,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        subprocess.run(["make", "stop"], cwd=tmp_path, env=given, check=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout
    (shown,) = re.findall(r"<details>.*?^```\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert [line for line in comparable(shown) if line not in comparable(done.stdout)] == []


def comparable(text: str) -> list[str]:
    """Lines without what differs from machine to machine, how far a run has got when it is looked at, and what README leaves out."""
    text = re.sub(r"^(Building \.venv|Run \d+ (planned|running|verifying):| *\[\.\.\.).*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "MOMENT", text)
    return re.sub(r"(?<=127\.0\.0\.1:)\d+|[\d,]+(?=/s\b)|\d+\.\d+ s\b|Python [\d.]+", "N", text).splitlines()


# --- the story ------------------------------------------------------------------------------------------------------


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_from_roles_to_a_moved_account(shell):
    told = sections()
    make_roles(shell, told["1. Roles"])
    first_use(shell, told["3. First use"])
    open_gates(shell, told["4. Open the gates"])
    with processes(shell, told["7. Processes"]):
        for command in told["5. Move an account"]:
            code, said = shell.run(command)
            assert code == CODES.get(shlex.split(command)[2], 0), f"{command}\n{said}"
    runs = rows(shell.owner, "SELECT id, mode, state, planned_by <> '' FROM migration_run ORDER BY id")
    assert runs == [(PRODUCTION - 1, "dry_run", "partial", True), (PRODUCTION, "production", "partial", True)]
    assert rows(at(shell.owner, "cdp"), "SELECT count(*) FROM contact_activity_logs WHERE origin = 'crm_migration'") == [(471,)]


def make_roles(shell: Shell, commands: list[str]) -> None:
    twice = f"{PASSWORD}\n{PASSWORD}\n"
    for command in commands:
        code, said = shell.run(command, typed=twice)
        assert code == 0, f"{command}\n{said}"
    last = commands[-1]
    for database, role in (("cdp", "calm_loader"), ("calm_console", "calm_console_owner"), ("calm_console", "calm_console")):
        and_so_on = last.replace("-d crm", f"-d {database}").replace("calm_crm_reader", role)
        assert shell.run(and_so_on, typed=twice)[0] == 0, and_so_on


def first_use(shell: Shell, commands: list[str]) -> None:
    for command in commands:
        if "createsuperuser" in command:
            asked = (("Username", "root"), ("Email", ""), ("Password:", PASSWORD), ("again", PASSWORD))
            assert shell.answer(command, *asked) == 0
            continue
        code, said = shell.run(command)
        assert code == 0, f"{command}\n{said}"
    run_sql(shell.owner, f"ALTER SEQUENCE migration_run_id_seq RESTART WITH {PRODUCTION - 1}")


def open_gates(shell: Shell, commands: list[str]) -> None:
    """As README has it, then by the groups that it leaves out; their members are put in as an administrator does it in the pages."""
    for user, group in USERS.items():
        run_sql(
            shell.owner,
            "INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, is_active, date_joined)"
            f" VALUES ('{user}', '', false, '', '', '', true, true, now())",
            f"INSERT INTO auth_user_groups (user_id, group_id) SELECT u.id, g.id FROM auth_user u, auth_group g"
            f" WHERE u.username = '{user}' AND g.name = '{group}'",
        )
    by_group = {group: user for user, group in USERS.items()}
    sign = ".venv/bin/python manage.py sign_gate"
    others = [f'{sign} {gate} --by {by_group[group]} --group "{group}" --note seen' for gate, group in OTHERS]
    for command in [*commands, *others]:
        code, said = shell.run(command)
        lacking = "probe_gates" in command and "--account" not in command  # of all accounts, and one falls short of C
        assert code == (PARTIAL if lacking else 0), f"{command}\n{said}"


@contextmanager
def processes(shell: Shell, commands: list[str]) -> Iterator[None]:
    worker, beat, web = commands
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shell.environ["GUNICORN_CMD_ARGS"] = f"--bind 127.0.0.1:{port}"  # others may have 8000
    logs = [shell.folder / f"{name}.log" for name in ("worker", "beat", "web")]
    with shell.running(worker, logs[0]), shell.running(beat, logs[1]), shell.running(web, logs[2]):
        yield
        assert page(f"http://127.0.0.1:{port}/admin/login/") == 200


def page(address: str) -> int:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - of this machine
                return answer.status
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
