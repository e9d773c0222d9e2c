"""The delivery milestones, each with a status that stands in the plan or follows from the gates and the runs. Read only."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import OuterRef, Subquery

from gates.by_account import Tally
from gates.models import Milestone
from gates.standing import Standing, State
from migration.models import Account, Run
from migration.states import RunMode, RunState

NOT_BEGUN, IN_PROGRESS, DONE = "not begun", "in progress", "done"


@dataclass(frozen=True)
class Status:
    """`state` is coarse, one of the three above or ""; `sentence` says the rest."""

    state: str
    sentence: str


@dataclass(frozen=True)
class Step:
    milestone: Milestone
    status: Status


def of(stage_0: Sequence[Standing], by_account: Tally) -> list[Step]:
    """The milestones in their order. `stage_0` are the global gates that a run needs, `by_account` the one that is asked for each account."""
    reached = newest_complete()
    follows = {
        "gates": gates_open(stage_0, by_account),
        "dry_runs": rehearsed([state for state, _ in reached]),
        "runs": moved([state for _, state in reached]),
    }
    return [Step(each, follows.get(each.follows) or planned(each.status)) for each in Milestone.objects.all()]


def planned(text: str) -> Status:
    """A status that stands in the plan: `done; R3 delta review not run`."""
    first, _, rest = text.partition("; ")
    return Status(first, rest) if first in (NOT_BEGUN, IN_PROGRESS, DONE) else Status("", text)


def gates_open(stage_0: Sequence[Standing], by_account: Tally) -> Status:
    lacking = [f"{each.rule.letter} lacks {missing(each)}" for each in stage_0 if not each.is_open]
    if not by_account.total:
        lacking.append("C has no account yet")
    elif by_account.closed:
        lacking.append(f"C lacks {by_account.closed:,} of {counted(by_account.total)}")
    total = len(stage_0) + 1
    told = f"{total - len(lacking)} of {total} gates open"
    begun = any(group.state == State.SIGNED for each in stage_0 for group in each.groups) or by_account.open
    return Status(progress(begun, done=not lacking), f"{told}: {'; '.join(lacking)}" if lacking else told)


def missing(closed: Standing) -> str:
    return " and ".join(each.group for each in closed.groups if each.state != State.SIGNED)


def newest_complete() -> list[tuple[str | None, str | None]]:
    """For each account the state of its newest dry run and of its newest production run that ran to its end and stands."""

    def newest(mode: RunMode) -> Subquery:
        runs = Run.objects.standing().filter(account=OuterRef("pk"), mode=mode).order_by("-pk")
        return Subquery(runs.values("state")[:1])

    accounts = Account.objects.filter(gone=False).annotate(dry=newest(RunMode.DRY_RUN), moved=newest(RunMode.PRODUCTION))
    return list(accounts.order_by().values_list("dry", "moved"))


def rehearsed(states: list[str | None]) -> Status:
    """A partial dry run will do, as it does for the start of production."""
    done, total = sum(state is not None for state in states), len(states)
    return Status(progress(done, done=bool(total) and done == total), f"{done:,} of {counted(total)} rehearsed")


def moved(states: list[str | None]) -> Status:
    """Complete only where nothing is quarantined; a partial run is named apart and never counts as done."""
    complete, partial, total = states.count(RunState.SUCCEEDED), states.count(RunState.PARTIAL), len(states)
    told = f"{complete:,} of {counted(total)} complete" + (f", {partial:,} partial" if partial else "")
    return Status(progress(complete or partial, done=bool(total) and complete == total), told)


def progress(begun: object, *, done: bool) -> str:
    return DONE if done else IN_PROGRESS if begun else NOT_BEGUN


def counted(accounts: int) -> str:
    return f"{accounts:,} account{'' if accounts == 1 else 's'}"
