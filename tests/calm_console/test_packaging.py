"""The Dockerfile and compose.yaml, held against the code; and the Dockerfile's steps, done here in a folder and virtualenv of their own.

No Docker engine is needed. The steps take about a minute, so they are run with the faults only: pytest -m fault tests/calm_console/test_packaging.py
"""

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands
from django.test import RequestFactory

from calm_console import health, secret_files
from calm_console.celery import app
from tests import test_docs

ROOT = Path(__file__).parents[2]
NOBODY = 65534
VERSION = f"python3.{sys.version_info.minor}"
PYTHONS = (Path(sys.base_prefix) / "bin" / VERSION, Path("/usr/bin") / VERSION)


def instructions() -> list[list[tuple[str, str]]]:
    """The Dockerfile's stages, each a list of (instruction, rest of the line)."""
    text = re.sub(r"\\\n\s*", "", "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")))
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    return stages


BUILD, LAST = instructions()


def of(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for found, rest in stage if found == word]


# --- the Dockerfile -------------------------------------------------------------------------------------------------


def test_the_last_stage_builds_nothing_and_is_nobody_special():
    assert [word for word, _ in LAST] == ["FROM", "ENV", "WORKDIR", "COPY", "COPY", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "CMD"]
    assert all(rest.startswith("--from=build ") for rest in of(LAST, "COPY"))
    (user,) = of(LAST, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "by number, as Kubernetes' runAsNonRoot wants it"
    assert of(BUILD, "FROM") == ["python:3.11-slim AS build"]
    assert of(LAST, "FROM") == ["python:3.11-slim"]


def test_the_health_check_and_the_command_name_what_is_there():
    (check,), (command,) = of(LAST, "HEALTHCHECK"), of(LAST, "CMD")
    assert "curl" not in check and "wget" not in check
    assert "/healthz" in check and "/healthz" in health.PATHS
    words = json.loads(command)
    assert words[:2] == ["gunicorn", "calm_console.wsgi"]
    gunicorn = [sys.executable, "-m", *words, "--check-config", "--bind", "127.0.0.1:0"]
    done = subprocess.run(gunicorn, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_copied_is_there_and_is_let_in():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [rest.split()[0] for rest in of(BUILD, "COPY")]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / name).exists() for name in copied)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(copied)
    assert not any(fnmatch(secret, name) for secret in (".env", ".calm", "secrets", ".git") for name in copied)


def test_variables_of_the_image_exist():
    named = set(re.findall(r"([A-Z_]+)=", " ".join([*of(LAST, "ENV"), *of(BUILD, "RUN")])))
    assert named - {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"} <= test_docs.variables().keys()


# --- compose.yaml ---------------------------------------------------------------------------------------------------

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("migrate", "web", "worker", "beat")


def test_services():
    assert sorted(SERVICES) == sorted([*OURS, "postgres", "redis"])
    for name in OURS:
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"]), name
        assert service["security_opt"] == ["no-new-privileges:true"]
    checked = {name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})}
    assert checked == SERVICES.keys() - {"migrate"}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert all(
        SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully" for name in ("web", "worker", "beat")
    )
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8000:8000"]


def test_variables_and_secrets_exist():
    known = test_docs.variables().keys() | {f"{name}_FILE" for name in secret_files.SECRETS}
    for name in OURS:
        given = SERVICES[name]["environment"]
        assert given.keys() <= known
        files = {key: value for key, value in given.items() if key.endswith("_FILE")}
        assert sorted(files.values()) == sorted(f"/run/secrets/{secret}" for secret in SERVICES[name]["secrets"])
        wanted = {key: f"/run/secrets/{key.removesuffix('_FILE').lower()}" for key in files}
        if name == "migrate":  # the one that may make tables
            wanted["DATABASE_URL_FILE"] = "/run/secrets/owner_database_url"
        assert files == wanted
        urls = {"DATABASE_URL", "CRM_DATABASE_URL", "CDP_DATABASE_URL", "REDIS_URL", "USMAN_URL", "IAG_URL"}
        assert urls <= {key.removesuffix("_FILE") for key in given}, "none is left to an embedded server"
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", ())}
    assert used == COMPOSE["secrets"].keys()
    mounted = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())}
    files = {mount for mount in mounted if mount.startswith("./")}
    assert mounted - files == COMPOSE["volumes"].keys()
    assert all((ROOT / file).is_file() for file in files)


def test_commands_exist():
    assert "command" not in SERVICES["web"], "the image's own"
    assert SERVICES["migrate"]["command"][:2] == ["python", "manage.py"]
    assert SERVICES["migrate"]["command"][2] in get_commands()
    for name in ("worker", "beat"):
        words = SERVICES[name]["command"]
        assert words[:4] == ["celery", "-A", app.main, name]
        shown = subprocess.run(
            [sys.executable, "-m", *words[:4], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        assert not [option for option in words[4:] if option.startswith("--") and option not in shown.stdout]


def test_health_checks_ask_what_is_answered():
    (url,) = re.findall(r"127\.0\.0\.1:8000(/[^']*)'", SERVICES["web"]["healthcheck"]["test"][-1])
    path, _, query = url.partition("?")
    assert path in health.PATHS
    excluded = RequestFactory().get(f"{path}?{query}").GET.getlist("exclude")
    assert excluded and {*excluded} < health.CHECKS.keys()
    ast.parse(SERVICES["web"]["healthcheck"]["test"][-1])
    (file,) = re.findall(r"BEAT_SCHEDULE_FILE=(\S+)", of(LAST, "ENV")[0])
    assert f"find {Path(file).parent} -name '{Path(file).name}*'" in SERVICES["beat"]["healthcheck"]["test"][1]


# --- the steps themselves -------------------------------------------------------------------------------------------


class Image:
    """The build's result in a folder: /app, /venv, /tmp and /metrics lie in it, all else is the machine's."""

    def __init__(self, root: Path, user: int | None) -> None:
        self.root, self.user = root, user
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(root)}
        (root / "tmp").mkdir()

    def inside(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(app|venv|tmp|metrics)\b", lambda found: f"{self.root}/{found[1]}", text)

    def run(self, command: str) -> None:
        shell = ["sh", "-ec", self.inside(command)]
        done = subprocess.run(
            shell, cwd=self.root / "app", env=self.environ, user=self.user, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def set(self, assignments: str) -> None:
        for each in shlex.split(assignments):
            name, _, value = each.partition("=")
            self.environ[name] = self.inside(value).replace("$PATH", self.environ["PATH"])

    def copy(self, rest: str) -> None:
        source, target = rest.split()
        to = self.root / "app" / (source if target == "./" else target)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(ROOT / source, to)
        if self.user is not None:
            for path in (to, *to.rglob("*")):
                os.chown(path, self.user, self.user)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Built as an ordinary user where this process may become one and that one may run the interpreter."""
    root = Path(tempfile.mkdtemp(prefix="calm-image-"))
    theirs = next((python for python in PYTHONS if os.geteuid() == 0 and runs(python, NOBODY)), None)
    user = NOBODY if theirs else None
    (root / "app").mkdir()
    built = Image(root, user)
    for path in (root, root / "app", root / "tmp"):
        os.chown(path, -1 if user is None else user, -1)
    links = root / "bin"
    links.mkdir()
    (links / "python").symlink_to(theirs or PYTHONS[0])
    built.environ["PATH"] = f"{links}:{built.environ['PATH']}"
    for word, rest in BUILD:
        if word == "ENV":
            built.set(rest)
        elif word == "COPY":
            built.copy(rest)
        elif word == "RUN":
            built.run(rest)
    for rest in of(LAST, "ENV"):
        built.set(rest)
    yield built
    shutil.rmtree(root)


def runs(python: Path, user: int) -> bool:
    """Whether this user may run it, and make virtualenvs with it."""
    try:
        done = subprocess.run([python, "-c", "import ensurepip, venv"], user=user, cwd="/", check=False, timeout=30, capture_output=True)
        return done.returncode == 0
    except OSError:
        return False


@pytest.mark.fault
@pytest.mark.timeout(400)  # with the fixture, which installs all the packages
def test_the_steps_make_a_console_that_serves(image, tmp_path):
    """Nothing under /app or /venv can be written while it runs; the page and its collected styles are there."""
    for left in ("pip", "setuptools"):
        assert not list((image.root / "venv").glob(f"lib/python*/site-packages/{left}/__init__.py"))
    subprocess.run(["chmod", "-R", "a-w", image.root / "app", image.root / "venv"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    urls = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    urls |= {name: f"postgresql://nobody@127.0.0.1:1/{name}" for name in ("CRM_DATABASE_URL", "CDP_DATABASE_URL")}
    urls |= dict.fromkeys(("USMAN_URL", "IAG_URL"), "http://127.0.0.1:1")
    environ = image.environ | urls | {"SECRET_KEY": "x" * 50, "METRICS_FOLDER": image.inside("/metrics"), "METRICS_TOKEN": "t"}
    command = [image.inside(word) for word in json.loads(of(LAST, "CMD")[0])]
    command[command.index("--bind") + 1] = f"127.0.0.1:{port}"
    command[0] = str(image.root / "venv" / "bin" / command[0])
    with (tmp_path / "log").open("w+") as log:
        before = tree(image.root / "app")
        server = subprocess.Popen(command, cwd=image.root / "app", env=environ, user=image.user, stdout=log, stderr=log)
        try:
            assert answer(port, "/healthz", patience=40)[0] == 200, (tmp_path / "log").read_text()
            page = answer(port, "/admin/login/")[1].decode()
            (style,) = re.findall(r'href="(/static/admin/css/base\.[0-9a-f]{12}\.css)"', page)
            status, _, headers = answer(port, style)
            assert (status, headers["Content-Encoding"], "immutable" in headers["Cache-Control"]) == (200, "gzip", True)
            assert b"calm_iag_call_seconds" in answer(port, "/metrics", Authorization="Bearer t")[1]
        finally:
            server.terminate()
            server.wait(timeout=30)
        assert server.returncode == 0
        assert tree(image.root / "app") == before


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def answer(port: int, path: str, patience: float = 0, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept-Encoding": "gzip"} | headers)
    ends = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - of this machine
                return response.status, response.read(), dict(response.headers)
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.3)
