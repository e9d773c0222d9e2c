"""Beat as a process of its own, on a machine where nothing was started before it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.processes import ROOT, until

NOWHERE = {
    "DATABASE_URL": "postgresql://calm@127.0.0.1:1/calm",
    "CRM_DATABASE_URL": "postgresql://calm@127.0.0.1:1/crm",
    "CDP_DATABASE_URL": "postgresql://calm@127.0.0.1:1/cdp",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "USMAN_URL": "http://127.0.0.1:1",
    "IAG_URL": "http://127.0.0.1:1",
    "SECRET_KEY": "x" * 50,
}


@contextmanager
def beat(schedule: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "celery", "-A", "calm_console", "beat"]
    given = os.environ | NOWHERE | {"BEAT_SCHEDULE_FILE": str(schedule)}
    with subprocess.Popen(command, cwd=ROOT, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_the_folder_for_its_schedule_is_made(tmp_path):
    """As `.calm` is in a clone where SECRET_KEY and every URL are set, so that nothing else makes it."""
    folder = tmp_path / "not" / "there"
    with beat(folder / "schedule") as child:
        until(lambda: list(folder.glob("schedule*")) or child.poll() is not None)
        assert child.poll() is None, child.communicate()[0]


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with beat(tmp_path / "file" / "schedule") as child:
        said, _ = child.communicate(timeout=60)
    assert f"BEAT_SCHEDULE_FILE: {tmp_path}/file cannot be written (File exists): name a file in a folder that beat may write." in said
    assert "Traceback" not in said
    assert child.returncode == 1
