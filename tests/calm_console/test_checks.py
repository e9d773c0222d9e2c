"""Our system checks: each says its sentence where it should, and production settings are clean; secrets may be in files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from calm_console import checks, secret_files

ROOT = Path(checks.__file__).parents[1]
PRODUCTION = {
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "ALLOWED_HOSTS": "calm.example.com",
    "CSRF_TRUSTED_ORIGINS": "https://calm.example.com",
    "DATABASE_URL": "postgresql://calm:canary@db.example/calm",
    "CRM_DATABASE_URL": "postgresql://reader:canary@crm.example/crm",
    "CDP_DATABASE_URL": "postgresql://loader:canary@cdp.example/cdp",
    "REDIS_URL": "redis://:canary@redis.example:6379/0",
    "USMAN_URL": "http://usman.example",
    "IAG_URL": "http://iag.example",
}


@pytest.fixture
def production(settings):
    """As deployed: others reach it, every URL is given."""
    for name in ("DATABASE_URL", "CRM_DATABASE_URL", "CDP_DATABASE_URL"):
        setattr(settings, name, PRODUCTION[name])
    settings.ALLOWED_HOSTS, settings.DEBUG, settings.EMBEDDED, settings.SECRET_KEY_IS_GIVEN = ["calm.example.com"], False, (), True
    return settings


def found() -> list[tuple[str, str]]:
    return [(each.id, each.msg) for each in checks.consistent() if each.hint]


def test_production_has_nothing_to_say(production):
    assert checks.consistent() == []


def test_debug_where_others_come(production):
    production.DEBUG = True
    assert found() == [("calm.E001", "DEBUG is on, and ALLOWED_HOSTS lets others in (calm.example.com).")]
    production.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
    assert found() == []


def test_no_secret_key(production):
    production.SECRET_KEY_IS_GIVEN = False
    assert found() == [("calm.E002", "SECRET_KEY is not set, so each host makes one of its own.")]
    production.ALLOWED_HOSTS = ["localhost"]
    assert found() == []


def test_embedded_servers_where_others_come(production):
    production.EMBEDDED = ("REDIS_URL", "IAG_URL")
    assert found() == [("calm.E003", "Embedded servers are used (IAG_URL, REDIS_URL), though ALLOWED_HOSTS lets others in.")]
    production.ALLOWED_HOSTS = ["127.0.0.1"]
    assert found() == []


@pytest.mark.parametrize(
    ("crm", "cdp", "same"),
    [
        ("postgresql://a:canary@db/one", "postgres://b:canary@DB:5432/one?sslmode=require", True),
        ("postgresql://a@db/one", "postgresql://a@db/two", False),
        ("postgresql://a@db:5433/one", "postgresql://a@db/one", False),
        ("postgresql://a@db:x/one", "postgresql://a@db:x/one", False),
        ("", "", False),
    ],
)
def test_crm_and_cdp_are_one(production, crm, cdp, same):
    production.CRM_DATABASE_URL, production.CDP_DATABASE_URL = crm, cdp
    wanted = ("calm.E004", "CRM_DATABASE_URL and CDP_DATABASE_URL name the same database (one on db).")
    assert found() == ([wanted] if same else [])


def test_the_console_in_the_cdp(production):
    production.DATABASE_URL = production.CDP_DATABASE_URL
    assert found() == [("calm.W005", "DATABASE_URL names the database of the CDP (cdp on cdp.example).")]


def check(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`manage.py check --deploy` as production would see it: no embedded server is started, none is reached."""
    given = {"PATH": os.environ["PATH"], "CALM_HOME": str(tmp_path), **PRODUCTION, **environ}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=False)


def test_check_deploy_is_clean_with_secrets_in_files(tmp_path):
    environ = {}
    for name in ("SECRET_KEY", "DATABASE_URL", "CDP_DATABASE_URL"):
        file = tmp_path / f"{name}.txt"
        file.write_text(PRODUCTION[name] + "\n")
        environ |= {f"{name}_FILE": str(file), name: ""}
    clean = check(tmp_path, **environ)
    assert (clean.returncode, clean.stdout) == (0, "System check identified no issues (2 silenced).\n"), clean.stderr
    assert not (tmp_path / "secret_key").exists()


def test_check_says_what_is_wrong(tmp_path):
    wrong = check(tmp_path, CDP_DATABASE_URL=PRODUCTION["CRM_DATABASE_URL"])
    assert wrong.returncode == 1
    assert "(calm.E004) CRM_DATABASE_URL and CDP_DATABASE_URL name the same database" in wrong.stderr
    assert "HINT: Correct one of them" in wrong.stderr
    assert "canary" not in wrong.stderr + wrong.stdout


# --- secrets in files -----------------------------------------------------------------------------------------------


def test_a_secret_in_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("  abc\n")
    environ = {"METRICS_TOKEN_FILE": str(file), "DATABASE_URL": "postgresql://x"}
    for _ in range(2):  # a process that ours starts has both
        secret_files.read(environ)
        assert environ == {"METRICS_TOKEN_FILE": str(file), "METRICS_TOKEN": "abc", "DATABASE_URL": "postgresql://x"}


@pytest.mark.parametrize(
    ("content", "given", "says"),
    [
        (None, "", "REDIS_URL_FILE names .*, which cannot be read \\(FileNotFoundError\\): correct it."),
        (b"\xff\xfe", "", "REDIS_URL_FILE names .*, which cannot be read \\(UnicodeDecodeError\\): correct it."),
        (b" \n", "", "REDIS_URL_FILE names .*, which is empty: write the secret into it."),
        (b"canary", "other", "REDIS_URL and REDIS_URL_FILE are both set, and differ: unset one of them."),
    ],
)
def test_a_file_that_will_not_do(tmp_path, content, given, says):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImproperlyConfigured, match=f"^{says}$") as refused:
        secret_files.read({"REDIS_URL_FILE": str(file), "REDIS_URL": given})
    assert "canary" not in str(refused.value)


def test_every_secret_is_told_of():
    readme, example = (ROOT / "README.md").read_text(), (ROOT / ".env.example").read_text()
    for name in secret_files.SECRETS:
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"(or `{name}_FILE`) |" in row
        assert name in example.partition("# --- Django")[0]
