"""Gate B: EXPLAIN ANALYZE of the very queries that a run sends to the CRM, and the indexes that they need.

For the account with most contacts in the CDP and for a typical one (the median by contacts), with one chunk's worth of contacts, under the
settings of the console's own sessions. A query whose plan already shows a scan of a whole table is not executed. What comes back is not
carried over the network, so the times are the server's.

Readings. A scan of a whole index is one of the whole table, and so is one of a class with more audits than a chunk; of a smaller class it
is what a planner rightly does on a small table. Where the accounts' contacts have no audit at all, nothing was measured, and that fails.

Facts: {"accounts": [{"which": "largest" or "typical", "account", "organisation", "contacts"}], "queries": [{"which", "name", "rows",
"milliseconds", "buffers": {"hit", "read"}; all three null where it was not executed, "plan": see plan_trees.pruned, "sql": shortened}],
"indexes": [{"table", "columns": [names], "found": name or null, "create": statement or null}]}.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

from django.conf import settings
from psycopg import sql

from gates.probes import Finding, Measurement, by_index, extraction, gem_indexes, plan_trees
from gates.probes.addresses import database
from gates.probes.extraction import Query, Work
from migration import mapping as mappings
from migration import planning, revisions
from migration.cdp import Cdp
from migration.crm import Crm, Shape
from migration.doors import Outage
from migration.mapping import Mapping
from migration.models import Account
from migration.pipeline.queries import Selection
from migration.pipeline.records import Joined, Links
from migration.planning import HasShape

PROBE_SECONDS = 60  # for each statement
SECONDS_PER_10_000 = 10  # audits, read from a disk that is cold
MOST_CHUNKS_OF_ROWS = 2  # deals bring audits from before and after the time that they were linked
NO_MAPPING = "No mapping is published, so no class of the CRM is known: publish one (`manage.py publish_mapping --file mapping.json`)."
ASSUMED = Shape("jsonb", "integer", "integer", "integer", "timestamp without time zone", has_request=True)
EMPTY = Work(Selection([0]), Links(by_deal={0: [(0, 0, 0)]}, by_audit={0: [Joined(0, None, 0, 0)]}))


@dataclass(frozen=True)
class Subject:
    """An account to measure with, and the first of its contacts' CRM person ids."""

    which: str
    name: str
    organisation: int
    contacts: int
    persons: list[int]

    def __str__(self) -> str:
        return f"{self.which.capitalize()} account {self.name} (organisation {self.organisation})"

    @property
    def fact(self) -> dict[str, object]:
        return {"which": self.which, "account": self.name, "organisation": self.organisation, "contacts": self.contacts}


@dataclass(frozen=True)
class Explained:
    """A query's plan and what is wrong with it. Rows and times are None where it was not executed to its end."""

    which: str
    query: Query
    text: str
    plan: dict[str, Any]
    problems: list[str]
    rows: int | None = None
    milliseconds: float | None = None
    stopped: str = ""  # the problem, where it took too long

    @property
    def fact(self) -> dict[str, object]:
        buffers = {"hit": self.plan.get("Shared Hit Blocks"), "read": self.plan.get("Shared Read Blocks")}
        return {
            "which": self.which, "name": self.query.name, "rows": self.rows, "milliseconds": self.milliseconds, "buffers": buffers,
            "plan": plan_trees.pruned(self.plan), "sql": plan_trees.short(self.text),
        }  # fmt: skip


def configuration(account: Account | None) -> dict[str, str]:
    """The CRM's address and login, and a digest of the queries' text under the current mapping."""
    revision = revisions.current()
    text = "none: no mapping is published"
    if revision is not None:
        assumed = cast(HasShape, SimpleNamespace(shape=ASSUMED))
        composed = extraction.queries(assumed, mappings.parse(revision.document), EMPTY)
        text = hashlib.sha256("\n".join(query.explained.as_string(None) for query in composed).encode()).hexdigest()[:12]
    return {"CRM_DATABASE_URL": database("CRM_DATABASE_URL"), "the extraction queries": text}


def measure(account: Account | None) -> Measurement:
    """Explain and run the queries. Raises Outage and Misconfigured; a query that takes too long is a finding."""
    revision = revisions.current()
    if revision is None:
        return Measurement([Finding(False, NO_MAPPING)])
    with closing(Cdp()) as cdp:
        held = cdp.contacts_by_account()
        subjects = [
            replace(each, persons=list(cdp.persons(identifier)[: planning.MOST_PERSONS_PER_CHUNK])) for identifier, each in chosen(held)
        ]
    if not subjects:
        return Measurement([nobody(len(held))])
    mapping = mappings.parse(revision.document)
    works = planned(mapping, subjects)
    with closing(Crm()) as crm:
        crm.rows("SELECT set_config('statement_timeout', %s, false)", (f"{int(PROBE_SECONDS * 1000)}ms",))
        findings, indexes = gem_indexes.look(crm)
        explained = [explain(crm, each.which, query) for each, work in works for query in extraction.queries(crm, mapping, work)]
    findings += [*work_findings(works), *(finding for subject, _ in works for each in explained if each.which == subject.which
                                          for finding in query_findings(subject, each))]  # fmt: skip
    return Measurement(
        findings,
        {"accounts": [each.fact for each in subjects], "queries": [each.fact for each in explained], "indexes": indexes},
    )


def chosen(held: list[tuple[Any, int, str, int]]) -> Iterator[tuple[Any, Subject]]:
    """The account with most contacts, and the median one of those that have any; once where it is the same."""
    some = [row for row in held if row[3]]
    for which, at in (("largest", 0), ("typical", len(some) // 2)):
        if at < len(some) and not (which == "typical" and at == 0):
            identifier, organisation, name, contacts = some[at]
            yield identifier, Subject(which, name, organisation, contacts, [])


def nobody(accounts: int) -> Finding:
    if not accounts:
        return Finding(
            False, "The CDP holds no account, so there is nothing to extract: check that CDP_DATABASE_URL names the right database."
        )
    return Finding(
        False,
        f"None of the CDP's {accounts} accounts has a contact with source 'crm' and a source_id, so there is nothing to extract: "
        "have the CDP fill contacts.source_id with the CRM's person ids (gate C shows which lack it).",
    )


def planned(mapping: Mapping, subjects: list[Subject]) -> list[tuple[Subject, Work]]:
    """One chunk's worth of each account's contacts; found by a session of its own, whose settings are not those that are measured."""
    with closing(Crm()) as scout:
        by_index.prepare(scout, PROBE_SECONDS)
        return [(each, extraction.chunk(scout, mapping, each.persons)) for each in subjects]


def explain(crm: Crm, which: str, query: Query) -> Explained:
    """The plan alone first: what reads a whole table is not executed on somebody's replica."""
    text, ask = query.statement.as_string(crm.connection), crm.rows_by_sets if query.by_sets else crm.rows
    plan = ask(sql.SQL("EXPLAIN (FORMAT JSON) ") + query.explained)[0][0][0]["Plan"]
    if problems := plan_trees.scans(plan, query.keys, settings.CHUNK_SIZE):
        return Explained(which, query, text, plan, problems)
    try:
        answer = ask(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + query.explained)[0][0][0]
    except Outage as error:
        if not by_index.gave_up(error):
            raise
        stopped = f"it was stopped after {PROBE_SECONDS:g} seconds"
        return Explained(which, query, text, plan, [stopped], stopped=stopped)
    plan, rows, milliseconds = answer["Plan"], round(answer["Plan"]["Actual Rows"]), answer["Execution Time"]
    problems = (
        plan_trees.scans(plan, query.keys, settings.CHUNK_SIZE)
        + plan_trees.spills(plan)
        + beyond_bounds(max(rows, plan_trees.most_rows_read(plan)), milliseconds)
    )
    return Explained(which, query, text, plan, problems, rows, milliseconds)


def beyond_bounds(rows: int, milliseconds: float) -> list[str]:
    """Whether one chunk's query goes through more rows than a chunk may hold, or takes longer than they allow."""
    found = []
    if rows > MOST_CHUNKS_OF_ROWS * settings.CHUNK_SIZE:
        found.append(f"it goes through {rows} rows, more than {MOST_CHUNKS_OF_ROWS} times CHUNK_SIZE ({settings.CHUNK_SIZE})")
    allowed = SECONDS_PER_10_000 * max(rows, settings.CHUNK_SIZE, 10_000) / 10_000
    if milliseconds > allowed * 1000:
        found.append(f"{milliseconds / 1000:.1f} seconds, more than the {allowed:g} that a chunk of this size may take")
    return found


def work_findings(works: list[tuple[Subject, Work]]) -> Iterator[Finding]:
    """What was measured with; nothing at all, where no contact has an audit."""
    if all(work.audits == 0 for _, work in works):
        yield Finding(
            False,
            f"The CRM has no audit of any contact of {' and '.join(subject.name for subject, _ in works)} that was looked at, so nothing was "
            "measured: check that CRM_DATABASE_URL and CDP_DATABASE_URL belong together, and the mapping's contact classes.",
        )
        return
    for subject, work in works:
        persons = len(work.selection.persons)
        counted = f"{work.audits} audits concern" if work.audits is not None else "it was not counted how many audits concern"
        yield Finding(None, f"{subject}: {counted} the {persons} of its {subject.contacts} contacts that it was measured with.")


def query_findings(subject: Subject, each: Explained) -> Iterator[Finding]:
    what = f"{subject}, {each.query.name}"
    for problem in each.problems:
        spared = ", so it was not executed" if each.rows is None and problem != each.stopped else ""
        yield Finding(False, f"{what}: {problem}{spared}. {cure(problem)}")
    if not each.problems:
        hit, read = each.plan.get("Shared Hit Blocks", 0), each.plan.get("Shared Read Blocks", 0)
        indexes = " and ".join(plan_trees.indexes(each.plan)) or "no index"
        yield Finding(
            True,
            f"{what}: {each.rows} row{'' if each.rows == 1 else 's'} in {each.milliseconds:.1f} ms by {indexes}, "
            f"{hit} blocks from memory and {read} read.",
        )


def cure(problem: str) -> str:
    """What a DBA can do about it."""
    if "scan of" in problem:
        return "Make the index that is missing; if none is, run ANALYZE on the table, so that the planner sees it."
    if "disk" in problem:
        return "Raise work_mem for this role (ALTER ROLE … SET work_mem), or lower CHUNK_SIZE."
    if "rows" in problem:
        return "Look for deals with very many audits; where they are meant, a larger CHUNK_SIZE allows for them."
    return "Look at the plan with the CRM's DBA, try again when the replica is quiet, or lower CHUNK_SIZE."
