"""Taking a run's rows out of the CDP again, and rows that are stale: previewed, in bounded steps, each step its own transaction.

A step removes rows by their keys, and only where they are still ours; what it removed is counted in the same transaction, in the run's own
row of calm.receipts. So a withdrawal that was killed goes on where it stopped, and its count stays exact.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import psycopg
from django.db import IntegrityError, transaction

from migration import fences, reaper, runs, worlds
from migration.cdp import Cdp
from migration.doors import Misconfigured, Outage, translated
from migration.models import Run
from migration.runs import Busy, Refused
from migration.states import COMPLETE, Overtaken, RunMode, RunReason, RunState, Verb

KEYS_AT_ONCE = 5_000

# On runs that came after it.
BEING_WITHDRAWN = "{} is being withdrawn: what this run had found right and left in place goes with it. Run the account again afterwards."
WITHDRAWN = "{} was withdrawn afterwards: what this run had found right and left in place went with it. Run the account again."
GIVEN_UP = (
    "{} was being withdrawn afterwards until that was given up: {} rows that this run may have found right are gone. Run the account again."
)

OURS = "run_id = %(run)s AND account_id = %(account)s AND origin = 'crm_migration'"

# What an earlier run first wrote was inserted before that run's last commit; both times are the CDP's own.
COUNT = f"""
    WITH earlier AS (
        SELECT run_id, max(committed_at) AS last FROM calm.receipts
        WHERE account_id = %(account)s AND run_id <> ALL(%(not_earlier)s) AND committed_at IS NOT NULL GROUP BY run_id)
    SELECT l.category, (SELECT e.run_id FROM earlier e WHERE l.inserted_at <= e.last ORDER BY e.last LIMIT 1), count(*)
    FROM contact_activity_logs l WHERE {OURS} GROUP BY 1, 2"""  # noqa: S608 - constants only

REMOVE = f"""
    WITH gone AS (DELETE FROM contact_activity_logs WHERE id = ANY(%(keys)s) AND {OURS} RETURNING category)
    SELECT category, count(*) FROM gone GROUP BY 1"""  # noqa: S608 - constants only

BEGUN = """
    INSERT INTO calm.receipts (chunk, run_id, account_id, token, generation, receipt)
    VALUES (%(run)s, %(run)s, %(account)s, %(token)s, 1, '{"removed": {}}') ON CONFLICT (chunk) DO NOTHING"""

# No step that begins from now on removes anything; one that is under way holds the row, and is waited for. In the CDP, where steps are counted.
ABANDON = """
    INSERT INTO calm.receipts AS r (chunk, run_id, account_id, token, generation, receipt)
    VALUES (%(run)s, %(run)s, %(account)s, %(token)s, 1, '{"removed": {}, "abandoned": true}')
    ON CONFLICT (chunk) DO UPDATE SET receipt = r.receipt || '{"abandoned": true}'
    RETURNING receipt -> 'removed'"""
BEGIN_AGAIN = "UPDATE calm.receipts SET receipt = receipt - 'abandoned' WHERE chunk = %(run)s"

# Nobody adopts such a receipt, or writes under it, any more. The row that counts has that token from the first.
CLOSED = """
    UPDATE calm.receipts SET token = %(token)s, receipt = receipt || '{"withdrawn": true}'
    WHERE run_id = %(run)s AND token < %(token)s"""


@dataclass
class Preview:
    """What withdrawing a run would remove: rows by category, of them by run those that an earlier one first wrote; later runs in words."""

    categories: Counter[str] = field(default_factory=Counter)
    earlier: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.categories.total()

    def in_words(self, run: Run) -> list[str]:
        """For a terminal: what would go, a line for each category."""
        lines = [f"{run}: {self.rows:,} row{'' if self.rows == 1 else 's'} would be removed from the CDP."]
        lines += [f"  {category:<24} {number:>12,}" for category, number in sorted(self.categories.items())]
        lines += [f"Of them {number:,} that {earlier} first wrote and {run} corrected." for earlier, number in sorted(self.earlier.items())]
        return lines + self.warnings

    def as_json(self) -> dict[str, object]:
        return {"rows": self.rows, "categories": dict(sorted(self.categories.items())), "earlier": dict(sorted(self.earlier.items()))}


def preview(run: Run) -> Preview:
    """Count in the CDP what would go. Raises Refused where the run cannot be withdrawn, Outage, and Misconfigured where a right is missing."""
    check(run)
    same_account = Run.objects.filter(account=run.account, mode=RunMode.PRODUCTION)
    names = {str(each.uuid): str(each) for each in same_account}
    found = Preview()
    with closing(Cdp()) as cdp:
        check_may_delete(cdp)
        if not has_receipts(cdp):
            return found
        later = [each.uuid for each in same_account.filter(pk__gte=run.pk)]
        for category, first, number in cdp.rows(COUNT, fences.names_of(run) | {"not_earlier": later}):
            found.categories[category] += number
            if first:
                found.earlier[names.get(str(first), f"a run that is not on record ({first})")] += number
    found.warnings = [
        f"{each} came after it: what it found right and left in place goes too, so run the account again afterwards."
        for each in same_account.filter(pk__gt=run.pk).exclude(state__in=(RunState.CANCELLED, RunState.WITHDRAWN)).order_by("pk")
    ]
    return found


def begin(run: Run, *, by: str, now: datetime) -> Run:
    """Begin to withdraw a run, or go on with one that is being withdrawn. No worker of it can write any more, and no other run starts.

    Raises Refused, Busy where another run of the account is active, Outage, and Misconfigured where a right is missing.
    """
    run.refresh_from_db()
    if run.state == RunState.WITHDRAWING:
        return run
    found = preview(run)
    try:
        with transaction.atomic():
            left = runs.seized(run)
            if found.rows:
                warn_later(run, BEING_WITHDRAWN.format(run))
            reason = f"{by} withdraws it: {found.rows:,} row{' is' if found.rows == 1 else 's are'} to be removed."
            runs.move(run, RunState.WITHDRAWING, code=RunReason.ASKED, reason=reason, by=by, now=now, withdrawal=found.as_json())
            reaper.end_sessions(left)
            fences.shut_out(run)
            begin_again(run)
    except IntegrityError as error:
        raise Busy(f"Another run of {run.account} is active: wait for it, or cancel it, before {run} is withdrawn.") from error
    except Overtaken as error:
        run.refresh_from_db()
        if run.state != RunState.WITHDRAWING:
            raise Busy(f"{error} Look at it again.") from error
    return run


def begin_again(run: Run) -> None:
    """Where an earlier withdrawal of it was given up."""
    with closing(Cdp()) as cdp:
        if has_receipts(cdp):
            cdp.connection.execute(BEGIN_AGAIN, fences.names_of(run))


def give_up(run: Run) -> dict[str, int] | None:
    """Have no step of a withdrawal begin any more; what was removed by category, None where the CDP does not tell.

    Raises Busy while a step is under way.
    """
    try:
        worlds.check_systems(run)
        with closing(Cdp()) as cdp:
            if not has_receipts(cdp):
                return {}
            rows: list[tuple[dict[str, int]]] = cdp.rows(ABANDON, fences.names_of(run) | {"token": fences.NO_TOKEN_IS_HIGHER})
    except Outage as error:
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise Busy(f"A worker is removing rows of {run} at this moment: try again once that step has ended.") from error
        return None  # nor can any worker remove anything
    except Misconfigured:
        return None
    return rows[0][0]


def warn_later(run: Run, sentence: str) -> None:
    """Say on the complete runs that came after it what becomes of rows that they found right; nothing where the sentence is empty."""
    for later in Run.objects.filter(account=run.account, mode=RunMode.PRODUCTION, pk__gt=run.pk, state__in=COMPLETE):
        others = [each for each in later.warnings if not each.startswith(f"Run {run.pk} ")]
        if (warnings := [*others, sentence] if sentence else others) != later.warnings:
            runs.record(later, warnings=warnings)


def warnings_of(run: Run) -> list[str]:
    """What withdrawals of earlier runs said on it; the rest of its warnings is the boundary audit's."""
    return [each for each in run.warnings if each.startswith("Run ")]


def warn_later_of(run: Run, removed: dict[str, int] | None) -> None:
    """The same once its withdrawal is given up."""
    number = "some" if removed is None else f"{sum(removed.values()):,}"
    warn_later(run, "" if removed == {} else GIVEN_UP.format(run, number))


def check(run: Run) -> None:
    """Raise Refused unless the run is one that wrote, and has ended; Misconfigured where this process reaches another CDP."""
    if not run.writes:
        raise Refused(f"{run} wrote nothing: only a production run is withdrawn.")
    runs.check_verb(run, Verb.WITHDRAW)
    worlds.check_systems(run)


def check_may_delete(cdp: Cdp) -> None:
    """Raise Misconfigured with the grant that is missing: moving rows needs no DELETE, so the role may not have it."""
    may, role = cdp.rows("SELECT has_table_privilege('contact_activity_logs', 'DELETE'), current_user")[0]
    if not may:
        raise Misconfigured(
            f"CDP_DATABASE_URL: role {role} may not remove rows: GRANT DELETE ON contact_activity_logs TO {role}, at least until this is done."
        )


def has_receipts(cdp: Cdp) -> bool:
    return bool(cdp.rows("SELECT to_regclass('calm.receipts') IS NOT NULL")[0][0])


def proceed(run: Run, *, by: str, now: datetime, pulse: Callable[[], bool]) -> Run:
    """Remove rows of a run that is being withdrawn, until `pulse` (asked after each step) is False or none is left: then it is withdrawn."""
    worlds.check_systems(run)
    with closing(Cdp()) as cdp:
        close_receipts(cdp, run)
        for keys in keys_of(cdp, run):
            removed = remove(cdp, run, keys)
            if removed is None:
                return run
            runs.record(run, withdrawal=(run.withdrawal or {}) | {"removed": removed})
            if not pulse():
                return run
        removed = remove(cdp, run, [])
        left = cdp.rows(f"SELECT count(*) FROM contact_activity_logs WHERE {OURS}", fences.names_of(run))[0][0]  # noqa: S608 - constants only
    if left or removed is None:
        return run  # found by the next turn, or given up
    number = sum(removed.values())
    reason = f"{number:,} row{' is' if number == 1 else 's are'} removed."
    withdrawal = (run.withdrawal or {}) | {"removed": removed}
    with transaction.atomic():
        if removed:
            warn_later(run, WITHDRAWN.format(run))
        return runs.move(run, RunState.WITHDRAWN, code=RunReason.ASKED, reason=reason, by=by, now=now, withdrawal=withdrawal)


def close_receipts(cdp: Cdp, run: Run) -> None:
    """Keep out whoever may still hold a chunk of the run, and begin to count."""
    names = fences.names_of(run) | {"token": fences.NO_TOKEN_IS_HIGHER}
    cdp.prepare()
    with cdp.transaction() as connection:
        connection.execute(CLOSED, names)
        connection.execute(BEGUN, names)


def keys_of(cdp: Cdp, run: Run) -> Iterator[list[UUID]]:
    """The run's rows as they are now, some thousand keys at a time: read once by the index on run_id, and kept by the server meanwhile."""
    with translated("CDP_DATABASE_URL"), cdp.connection.cursor(name="calm_withdrawal", withhold=True) as cursor:
        cursor.execute(f"SELECT id FROM contact_activity_logs WHERE {OURS} ORDER BY id", fences.names_of(run))  # noqa: S608 - constants only
        while rows := cursor.fetchmany(KEYS_AT_ONCE):
            yield [row[0] for row in rows]


def remove(cdp: Cdp, run: Run, keys: list[UUID]) -> dict[str, int] | None:
    """Remove these rows where they are the run's, and add them to its count; all that were removed so far, by category. None, and nothing removed,
    where the withdrawal was given up."""
    names = fences.names_of(run)
    with cdp.transaction() as connection:
        row = connection.execute("SELECT receipt FROM calm.receipts WHERE chunk = %(run)s FOR UPDATE", names).fetchone()
        if row and "abandoned" in row[0]:
            return None
        removed = Counter(row[0]["removed"] if row else {})
        for category, number in connection.execute(REMOVE, names | {"keys": keys}).fetchall() if keys else ():
            removed[category] += number
        receipt = json.dumps({"removed": removed})
        connection.execute("UPDATE calm.receipts SET receipt = %(receipt)s WHERE chunk = %(run)s", names | {"receipt": receipt})
    return dict(sorted(removed.items()))
