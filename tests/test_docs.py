"""The documents say what the code does: variables, commands, states, the mapping's keys, links. `python -m tests.test_docs` draws the states anew."""

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class

from migration import states

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
DEMO_ONLY = {"SERVE", "PORT"}  # read by the demo itself, not by the settings
BEGIN, END = "<!-- states: begin -->", "<!-- states: end -->"
GROUPS = ("ACTIVE", "WORKABLE", "COMPLETE", "FINISHED")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


# --- environment variables ------------------------------------------------------------------------------------------


def variables() -> dict[str, ast.expr | None]:
    """Every variable that settings.py reads, with its default as written there."""
    found: dict[str, ast.expr | None] = {}
    for node in ast.walk(ast.parse((ROOT / "calm_console" / "settings.py").read_text())):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        if ast.unparse(node.func) in ("env.str", "env.bool", "env.list", "env.int", "env", "url", "number"):
            default = node.args[1] if len(node.args) > 1 else next((k.value for k in node.keywords if k.arg == "default"), None)
            found[str(node.args[0].value)] = default
    return found


def table(page: Path) -> dict[str, str]:
    """Variable -> default, from the tables of a page."""
    return dict(re.findall(r"^\| `([A-Z][A-Z_]+)` \| ([^|]*?) \|", page.read_text(), re.MULTILINE))


def test_readme_has_every_variable_and_no_other():
    assert table(ROOT / "README.md").keys() == variables().keys() | DEMO_ONLY


def test_env_example_has_every_variable_and_no_other():
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [], "everything is commented out"
    named = [line[1:].partition("=")[0] for line in lines if re.match(r"#[A-Z_]+=", line)]
    assert sorted(named) == sorted(variables())
    for at, line in enumerate(lines):
        assert not re.match(r"#[A-Z_]+=", line) or lines[at - 1].startswith("# "), f"{line} has no line that says what it is"


def test_readme_has_the_defaults():
    told = table(ROOT / "README.md")
    for name, default in variables().items():
        if isinstance(default, ast.Constant | ast.List) and (value := ast.literal_eval(default)) != "":
            wanted = (",".join(value) or "empty") if isinstance(value, list) else str(value)
            assert told[name].strip("`") == wanted, name


def test_nothing_else_is_read_from_the_environment():
    """Outside the settings only the embedded servers, which come before them, and the demo look at the environment."""
    files = [path for package in ("calm_console", "migration", "gates") for path in (ROOT / package).rglob("*.py")]
    reading = {str(path.relative_to(ROOT)) for path in files if re.search(r"os\.environ|os\.getenv|environ\.get", path.read_text())}
    assert {path for path in reading if not path.startswith(("calm_console/embedded/", "calm_console/demo/"))} == {
        "calm_console/celery.py",
        "calm_console/commandline.py",
        "calm_console/wsgi.py",
        "migration/bench/plain_dlt.py",  # reads nothing: it tells dlt to call nobody
    }
    for path in (ROOT / "calm_console" / "demo", ROOT / "calm_console" / "embedded"):
        text = "\n".join(file.read_text() for file in path.rglob("*.py"))
        named = set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", text)) - {"PYTHONUNBUFFERED"}
        assert named <= variables().keys() | DEMO_ONLY


# --- commands -------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `manage.py` command line of the documents: the command and its words."""
    for page in PAGES:
        for line in re.findall(r"manage\.py ([a-z_]+(?: [^`\n#]*)?)", page.read_text()):
            words = line.split(" #")[0].split()
            yield words[0], words[1:]


def test_commands_of_the_documents_exist():
    known = get_commands()
    unknown = {name for name, _ in commands()} - known.keys()
    assert not unknown
    told = {name for name, _ in commands()}
    assert {name for name, app in known.items() if app == "migration"} - told == set(), "every command of ours is told somewhere"


def test_options_of_the_documents_exist():
    known = get_commands()
    for name, words in commands():
        parser = load_command_class(known[name], name).create_parser("manage.py", name)
        options = {option for action in parser._actions for option in action.option_strings}
        assert not [word for word in words if word.startswith("--") and word.strip(".,;:)") not in options], name


def test_make_targets_of_the_documents_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {word for page in PAGES for word in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert told
    assert told <= targets


@pytest.mark.parametrize("module", ["calm_console.embedded", "tests.test_docs"])
def test_modules_that_are_called_exist(module: str):
    path = ROOT.joinpath(*module.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    assert any(f"python -m {module}" in page.read_text() for page in PAGES)


def test_shell_lines_can_be_read():
    for page in PAGES:
        for line in re.findall(r"^\.venv/bin/.*$", page.read_text(), re.MULTILINE):
            shlex.split(line, comments=True)


# --- links, mapping, reasons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", names(PAGES))
def test_links_resolve(page: str):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_code_names_pages_that_exist():
    for package in ("calm_console", "migration", "gates"):
        for path in (ROOT / package).rglob("*.py"):
            for page in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
                assert (ROOT / page).is_file(), f"{path}: {page}"


def test_the_mapping_page_has_a_mapping_and_every_key():
    from migration import mapping, mapping_document

    text = (DOCS / "mapping.md").read_text()
    for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
        mapping.parse(json.loads(block))
    for key in (*mapping_document._TOP_KEYS, *mapping_document._CATEGORY_KEYS, *mapping_document._ACTOR_KEYS, *mapping_document.ActorKind):
        assert f"`{key}`" in text, key


def test_every_reason_is_explained():
    text = (DOCS / "operations.md").read_text() + (DOCS / "states.md").read_text()
    for reason in (*states.Reason, *states.RunReason):
        assert not reason or f"| `{reason}` |" in text, reason


def test_decisions_are_numbered_and_listed():
    records = sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    index = (DOCS / "decisions" / "README.md").read_text()
    for name in records:
        text = (DOCS / "decisions" / name).read_text()
        title = text.splitlines()[0].removeprefix("# ")
        assert f"- [{title}]({name})" in index
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"]


def test_the_changelog_begins_with_what_is_unreleased():
    headings = re.findall(r"^##+ (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert set(headings[1:]) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"} or any("20" in each for each in headings)


def test_the_layout_names_every_module():
    """Of the packages' own folders; what is below is told by the folder."""
    layout = (DOCS / "architecture.md").read_text().partition("## Layout")[2].partition("```\n\n")[0]
    told = [re.compile(name.replace(".", r"\.").replace("*", ".*")) for name in re.findall(r"[a-z_*]+\.py\b", layout)]
    modules = [path.name for package in ("calm_console", "migration", "gates", "status_api") for path in (ROOT / package).glob("*.py")]
    of_django = {"__init__.py", "apps.py", "wsgi.py"}
    assert [name for name in modules if name not in of_django and not any(each.fullmatch(name) for each in told)] == []


# --- the states -----------------------------------------------------------------------------------------------------


def drawn() -> str:
    """What docs/states.md has between its marks: diagrams and tables of states.py."""
    runs = drawing("Runs", states.RUN_MOVES, states.RunState.PLANNED, states.FINISHED)
    chunks = drawing("Chunks", states.CHUNK_MOVES, states.ChunkState.PENDING, ())
    members = "\n".join(f"- `{name}`: {', '.join(getattr(states, name))}" for name in GROUPS)
    verbs = "\n".join(f"| {verb} | {', '.join(fitting)} |" for verb, fitting in states.VERBS.items())
    asked = f"## What people may ask\n\n| verb | of a run that is |\n|---|---|\n{verbs}"
    return f"{runs}\n\n{chunks}\n\n{asked}\n\n## Which states are in which group\n\n{members}"


def drawing(title: str, moves: Mapping[Any, str], first: str, last: tuple[str, ...]) -> str:
    """One diagram, and one table with what causes each move."""
    arrows = [f"[*] --> {first}", *(f"{old} --> {new}" for old, new in moves), *(f"{state} --> [*]" for state in last)]
    diagram = "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {arrow}" for arrow in arrows), "```"])
    rows = "\n".join(f"| {old} | {new} | {cause} |" for (old, new), cause in moves.items())
    return f"## {title}\n\n{diagram}\n\n| from | to | what causes it |\n|---|---|---|\n{rows}"


def test_states_are_as_drawn():
    text = (DOCS / "states.md").read_text()
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == drawn(), "draw them anew: python -m tests.test_docs"


def test_every_state_is_in_a_move():
    assert {state for move in states.RUN_MOVES for state in move} == set(states.RunState)
    assert {state for move in states.CHUNK_MOVES for state in move} == set(states.ChunkState)


def draw() -> None:
    """Write the states into docs/states.md."""
    page = DOCS / "states.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{drawn()}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    draw()
