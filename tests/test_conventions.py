"""The house's rules that a reader may rely on, read off the source: who imports whom, who writes what, how large a thing may be.

Where the code breaks a rule for now, the exception is named here with its reason; one that is no longer needed fails, so that none outlives
its cause.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from django.apps import apps
from django.core.management import get_commands
from django.db import models

ROOT = Path(__file__).parents[1]
OURS = ("calm_console", "migration", "gates", "status_api")
PRODUCT = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py") if "migrations" not in path.parts)

# From the bottom to the top; a module imports from its own row or from rows above it in this list. A name stands for what is below it too.
LAYERS = (
    ("migration.states",),
    ("migration.models",),
    (
        "migration.copytext",
        "migration.link_history",
        "migration.meanwhile",
        "migration.unseen",
        "migration.mapping_json",
        "migration.mapping_checks",
        "migration.windows",
    ),
    ("migration.mapping_secrets", "migration.mapping_document", "migration.mapping", "migration.override_csv"),
    ("migration.events", "migration.doors", "migration.outbox", "migration.ticks", "migration.webhook"),
    ("migration.notify",),
    ("migration.tables",),
    ("migration.cdp_shape",),
    ("migration.crm", "migration.cdp", "migration.usman"),
    ("migration.accounts", "migration.budget", "migration.people", "migration.raw_audits", "migration.revisions", "migration.watermark"),
    ("migration.logins",),
    ("migration.pipeline",),
    ("migration.link_reader", "migration.link_source"),
    ("migration.links", "migration.ours"),
    ("migration.ledger", "migration.planning", "migration.progress"),
    ("migration.shares",),
    ("migration.boundary", "migration.reconcile", "migration.reports", "migration.source_audits", "migration.worlds"),
    ("migration.summaries", "migration.tallies"),
    ("migration.chunks", "migration.fences", "migration.leases"),
    ("migration.reaper", "migration.receipts"),
    ("migration.runs",),
    ("migration.control", "migration.splitting", "migration.verdicts", "migration.withdrawal"),
    ("migration.attempts", "migration.holding", "migration.stale", "migration.forecast", "migration.batch_limits"),
    ("migration.lanes",),
    ("migration.batch_plans", "migration.batches"),
    ("migration.beats",),
    ("migration.steps",),
    ("migration.decisions", "migration.effects", "migration.figures", "migration.quarantine", "migration.retention"),
    ("migration.drafts",),
    ("migration.tasks",),
    ("migration.bench",),
    ("migration.admin", "migration.apps", "migration.management", "migration.templatetags", "migration.urls"),
)
DOORS = {"migration.crm", "migration.cdp", "migration.usman"}
STEPS = {f"migration.pipeline.{step}" for step in ("extract", "contacts", "actors", "categories", "associations", "load", "verify")}
MAPPING_STEPS = {f"migration.pipeline.{step}" for step in ("contacts", "actors", "categories", "associations")}
CLOCKS_AND_DATABASES = (
    "psycopg",
    "django",
    "time",
    "datetime",
    "httpx",
    "migration.crm",
    "migration.cdp",
    "migration.usman",
    "migration.models",
)

# (importer, imported): why this one import of a step is right all the same.
STEP_IMPORTS = {
    ("migration.worlds", "migration.pipeline.actors"): "it makes the ActorMapper that the flow is handed",
    ("migration.worlds", "migration.pipeline.categories"): "it makes the CategoryMapper that the flow is handed",
    (
        "migration.pipeline.verify",
        "migration.pipeline.load",
    ): "for the type Target, which could live in a file of its own",
    ("migration.bench.timers", "migration.pipeline.load"): "the benchmark puts a clock around what it does row by row",
    ("gates.probes.enrichments", "migration.pipeline.associations"): "gate F asks the enricher itself, so that the two cannot disagree",
    ("gates.probes.enrichments", "migration.pipeline.extract"): "the enricher's candidates, as it gets them",
}
# What of the console's frame `migration` may know.
FRAME_IMPORTS = {
    ("migration.doors", "calm_console.faults"): "one wording for what a server answers",
    ("migration.doors", "calm_console.sessions"): "a session is marked and set up in one way, whoever's it is",
    ("migration.tasks", "calm_console.celery"): "the Celery app",
    ("migration.usman", "calm_console.deadlines"): "HTTP calls that end in time",
    ("migration.webhook", "calm_console.deadlines"): "HTTP calls that end in time",
    ("migration.bench.server", "calm_console.embedded"): "the embedded server's owner may make scratch databases",
    ("migration.management.commands.bench", "calm_console.demo.stand_ins"): "USMAN for the benchmark's people",
    ("migration.management.commands.demo_logins", "calm_console.demo.logins"): "the demo's own command",
}
# Who alone creates, changes and removes rows of a model, by module.
WRITERS = {
    "Run": {"migration.runs", "migration.holding"},
    "Chunk": {"migration.runs", "migration.steps", "migration.chunks"},
    "Batch": {"migration.batches", "migration.batch_plans"},
    "BatchItem": {"migration.batches", "migration.batch_plans"},
    "Notification": {"migration.outbox", "migration.notify"},
    "LoginAttempt": {"migration.logins"},
    "Event": {"migration.events"},
    "MappingRevision": {"migration.revisions"},
    "MappingDraft": {"migration.drafts"},
    "NameCollision": {"migration.chunks", "migration.decisions"},
    "SetWatermark": {"migration.decisions"},
    "ReadBudget": {"migration.budget"},
    "Waiver": {"migration.quarantine"},
    "Summary": {"migration.summaries"},
    "Tally": {"migration.tallies"},
    "Tick": {"migration.ticks"},
    "Evidence": {"gates.evidence"},
    "SignOff": {"gates.signoffs"},
}
WRITES = {"create", "update", "delete", "save", "bulk_create", "bulk_update", "get_or_create", "update_or_create"}
OTHER_WRITERS = {
    ("migration.quarantine", "Chunk"): "add_chunks makes the retry's chunks; its place is chunks.py",
    ("migration.quarantine", "Run"): "settle rewrites the reason of a run that stays partial; its place is runs.py",
}
STATE_FIELDS = {"state", "reason_code", "lease_owner", "lease_expires_at", "token", "attempts", "generation", "not_before"}

OTHER_TASK_ARGUMENTS = {("work", "sent"): "when the nudge was sent: nothing of what is to be done, but whether it still is"}

# Times of the machine, which no person stands behind.
MACHINE_TIMES = {
    "Account.synced_at": "when the CDP was read last",
    "Chunk.ended_at": "the database's clock; what came of it says the chunk's state",
    "Chunk.lease_expires_at": "the database's clock; lease_owner says whose",
    "LinkIndex.covered_at": "when the index was extended last",
    "LinkIndex.counted_at": "when its settled audits were counted last",
    "LinkIndex.building_at": "when its first build began",
    "MappingDraft.effect_at": "when a worker had counted it",
    "NameCollision.first_seen_at": "when a chunk met it first",
    "ReadBudget.looked_at": "when a worker looked at the replica last",
    "Run.started_at": "when a worker had planned it; its Event names the worker",
    "Run.finished_at": "when it ended; its Event says by whom",
    "Run.lease_expires_at": "the database's clock; lease_owner says whose",
    "Summary.started_at": "the run's",
    "Tick.began_at": "when the tick that ticked_by ran had begun",
    "Summary.finished_at": "the run's",
    "Summary.progress_at": "when a worker was last heard of",
    "Summary.updated_at": "when what the customer is told changed",
}
MOST_LINES = 300
LONGER_FILES: dict[str, str] = {}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PRODUCT}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(name: str) -> set[str]:
    """What a module imports, wherever in it: of ours the module, of others the name as it is written."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports by dots: write whole names"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module_within(each) for each in found}


def module_within(dotted: str) -> str:
    """`migration.crm` of `migration.crm.Crm`; a name that is not ours stays as it is."""
    parts = dotted.split(".")
    if parts[0] not in OURS:
        return dotted
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts)


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def pairs() -> Iterator[tuple[str, str]]:
    for importer in MODULES:
        for imported in sorted(imports(importer)):
            yield importer, imported


def allow(found: set, exceptions: dict, what: str) -> None:
    """Nothing found but the exceptions, and each of those is found."""
    assert not found - exceptions.keys(), f"{what}: {sorted(found - exceptions.keys())}"
    assert not exceptions.keys() - found, f"no longer needed, remove the exception: {sorted(exceptions.keys() - found)}"


# --- who imports whom -----------------------------------------------------------------------------------------------


def layer(name: str) -> int:
    found = [rank for rank, names in enumerate(LAYERS) if is_in(name, *names)]
    assert len(found) == 1, f"{name} has no place in LAYERS above: give it one"
    return found[0]


def test_imports_go_down_only():
    upwards = {
        (importer, imported)
        for importer, imported in pairs()
        if is_in(importer, "migration") and is_in(imported, "migration") and "migration" not in (importer, imported)
        if layer(imported) > layer(importer)
    }
    assert not upwards


def test_every_layer_is_there():
    names = [name for names in LAYERS for name in names]
    assert not [name for name in names if name not in MODULES]


def test_no_two_modules_import_each_other():
    found = set(pairs())
    assert not {(a, b) for a, b in found if a != b and (b, a) in found and not is_in(a, b) and not is_in(b, a)}


def test_states_import_nothing_of_ours_and_models_only_states():
    assert not [each for each in imports("migration.states") if is_in(each, *OURS)]
    wrong = [(i, each) for i in MODULES if is_in(i, "migration.models") for each in imports(i) if is_in(each, *OURS)]
    assert not [(i, each) for i, each in wrong if not is_in(each, "migration.models", "migration.states")]


def test_doors_know_neither_runs_nor_chunks():
    allowed = {*DOORS, "migration.cdp_shape", "migration.doors", "migration.tables", "calm_console.deadlines"}
    assert not [(d, each) for d in DOORS for each in imports(d) if is_in(each, *OURS) and each not in allowed]


def test_only_the_flow_imports_steps():
    found = {(i, each) for i, each in pairs() if each in STEPS and i not in ("migration.pipeline.flow", each)}
    allow(found, STEP_IMPORTS, "only flow.py imports steps")


def test_mapping_and_enriching_touch_no_database_and_no_clock():
    assert not [(s, each) for s in MAPPING_STEPS for each in imports(s) if is_in(each, *CLOCKS_AND_DATABASES)]


def test_only_load_and_verify_touch_the_cdp_and_no_step_the_clock():
    pipeline = {name for name in MODULES if is_in(name, "migration.pipeline")}
    with_cdp = {name for name in pipeline if "migration.cdp" in imports(name)}
    assert with_cdp == {"migration.pipeline.flow", "migration.pipeline.load", "migration.pipeline.verify"}
    assert not [name for name in pipeline if re.search(r"timezone\.now|datetime\.now|time\.time\(", MODULES[name].read_text())]
    assert not [name for name in pipeline if "migration.models" in imports(name)]


def test_the_pipeline_does_not_know_gates():
    assert not [(i, each) for i, each in pairs() if is_in(i, "migration") and is_in(each, "gates")]
    assert [name for name, path in MODULES.items() if is_in(name, "migration") and "GATE_POLICY" in code(path)] == [
        "migration.bench.worker",  # opens them for scratch databases only
        "migration.runs",
    ]


def test_gates_start_no_run_and_know_no_frame():
    """Gates read what migration knows; of what acts they use the page for staff alone, which starts runs as everybody does."""
    found = {(i, each) for i, each in pairs() if is_in(i, "gates") and not is_in(i, "gates.admin") and is_in(each, *OURS)}
    acting = {"migration.runs", "migration.steps", "migration.chunks", "migration.tasks", "migration.admin"}
    assert not [pair for pair in found if is_in(pair[1], "calm_console", "status_api", *acting)]


def test_the_status_api_reads_models_and_writes_nothing():
    found = {each for i, each in pairs() if is_in(i, "status_api") and is_in(each, *OURS) and not is_in(each, "status_api")}
    assert found <= {"migration.models", "migration.states", "calm_console.deadlines"}
    assert not [(name, model) for name in MODULES if is_in(name, "status_api") for model in writes(name)]
    assert not [i for i, each in pairs() if each.startswith("status_api") and not is_in(i, "status_api")]


def test_migration_and_the_frame_hardly_know_each_other():
    up = {(i, each) for i, each in pairs() if is_in(i, "migration") and is_in(each, "calm_console")}
    allow(up, FRAME_IMPORTS, "what migration takes of calm_console")
    assert not [(i, each) for i, each in pairs() if is_in(i, "calm_console") and is_in(each, "migration", "gates")]


def code(path: Path) -> str:
    """The source less its comments and docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0] = ast.Pass()
    return ast.unparse(tree)


# --- who opens what, who writes what --------------------------------------------------------------------------------


def test_only_the_doors_connect():
    connecting = {
        name
        for name in MODULES
        if is_in(name, "migration") and re.search(r"psycopg\.connect\(|(?<!httpcore\.)ConnectionPool", code(MODULES[name]))
    }
    assert connecting == {"migration.doors", "migration.bench.server"}  # the latter to scratch databases of its own
    asking = {name for name in MODULES if is_in(name, "migration") and "connect" in imported_names(name, "migration.doors")}
    assert asking == {"migration.crm", "migration.cdp"}
    assert [name for name in MODULES if "httpx" in imports(name)] == ["migration.usman"]
    assert [name for name in MODULES if is_in(name, "migration") and "httpcore" in imports(name)] == [
        "migration.usman",
        "migration.webhook",
    ]


def imported_names(name: str, module: str) -> set[str]:
    return {
        alias.name for node in ast.walk(TREES[name]) if isinstance(node, ast.ImportFrom) and node.module == module for alias in node.names
    }


def writes(name: str) -> Iterator[str]:
    """The models whose rows a module creates, changes or removes, as far as its text tells."""
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in WRITES:
            continue
        base = ast.unparse(node.func.value)
        for model in WRITERS:
            variable = re.sub(r"(?<!^)(?=[A-Z])", "_", model).lower().rpartition("_")[2]
            if re.match(
                rf"{model}\.(_default_manager|objects)\b|{variable}$|self\.{variable}$|.*\b{variable}s\.(filter|exclude|all)\(", base
            ):
                yield model


def test_each_model_has_its_writers():
    found = {(name, model) for name in MODULES for model in writes(name)}
    allow(
        {(name, model) for name, model in found if name not in WRITERS[model]}, OTHER_WRITERS, "rows are written elsewhere than they should"
    )


def test_state_fields_are_set_by_runs_and_chunks_only():
    allowed = {"migration.runs", "migration.steps", "migration.chunks"}
    setting = {
        (name, target.attr)
        for name, tree in TREES.items()
        if is_in(name, "migration") and name not in allowed
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr in STATE_FIELDS
    }
    assert not setting
    sql = {name for name in MODULES if re.search(r"(?i)(update|insert into|delete from) migration_", MODULES[name].read_text())}
    assert sql == {"migration.chunks", "migration.retention"}
    assert re.findall(r"SET (\w+) =", MODULES["migration.retention"].read_text()) == ["receipt"], "no state"


def test_tasks_have_a_name_and_take_ids_by_keyword():
    tasks = [
        (function, decorator)
        for tree in TREES.values()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("app.task", "shared_task")
    ]
    assert tasks
    for function, decorator in tasks:
        assert {"name"} <= {keyword.arg for keyword in decorator.keywords}, function.name
        assert not function.args.args, function.name
        others = {(function.name, argument.arg) for argument in function.args.kwonlyargs if not argument.arg.endswith("_id")}
        assert others <= OTHER_TASK_ARGUMENTS.keys(), function.name


def test_no_command_of_ours_begins_with_migrate():
    assert not [name for name, app in get_commands().items() if app in OURS and name.startswith("migrate")]


# --- models ---------------------------------------------------------------------------------------------------------


def our_models() -> Iterator[type[models.Model]]:
    for config in apps.get_app_configs():
        if config.name in OURS:
            yield from config.get_models()


def test_every_time_has_somebody_who_made_it():
    alone, loose = set(), []
    for model in our_models():
        fields = {field.name: field for field in model._meta.concrete_fields}
        for name, field in fields.items():
            person = f"{name.removesuffix('_at')}_by"
            if not name.endswith("_at"):
                continue
            if person not in fields:
                alone.add(f"{model.__name__}.{name}")
            elif field.null and not tied(model, name, person):
                loose.append(f"{model.__name__}.{name}")
    assert not loose, f"set together or not at all: add a CHECK for {loose}"
    allow(alone, MACHINE_TIMES, "a time without a person")


def tied(model: type[models.Model], *names: str) -> bool:
    """Whether one CHECK speaks of all these fields."""
    checks = [str(c.condition) for c in model._meta.constraints if isinstance(c, models.CheckConstraint)]
    return any(all(name in check for name in names) for check in checks)


# --- sizes and habits -----------------------------------------------------------------------------------------------


def test_files_are_short():
    long = {str(path.relative_to(ROOT)) for path in PRODUCT if len(path.read_text().splitlines()) > MOST_LINES}
    allow(long, LONGER_FILES, f"files of more than {MOST_LINES} lines")


def test_functions_are_short():
    lines = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert median(lines) <= 12
    assert sum(number <= 30 for number in lines) / len(lines) >= 0.9


@pytest.mark.parametrize("pattern", [r"\bTODO\b|\bFIXME\b|\bXXX\b", r"# ?noqa(?!: ?[A-Z]+\d+)", r"# ?type: ignore(?!\[)"])
def test_nothing_is_left_for_later_or_silenced_as_a_whole(pattern: str):
    assert not [str(path) for path in PRODUCT if re.search(pattern, path.read_text())]


def test_nothing_is_asserted_in_the_product():
    assert not [name for name, tree in TREES.items() if any(isinstance(node, ast.Assert) for node in ast.walk(tree))]


def test_no_error_is_swallowed_without_a_word():
    """An except whose body is only `pass` or `continue` says why on the same line or in the body."""
    silent = []
    for name, tree in TREES.items():
        source = MODULES[name].read_text().splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and all(isinstance(each, ast.Pass | ast.Continue) for each in node.body):
                text = "\n".join(source[node.lineno - 1 : node.end_lineno])
                if "#" not in text:
                    silent.append(f"{name}:{node.lineno}")
    assert not silent
