"""What the gates allow: who may sign, which gates are open, and whether a run may start. Everybody asks here."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.contrib.auth.models import Group as UserGroup

from gates import rehearsal, standing
from gates.catalogue import BY_LETTER, CAPABILITIES, GATES, Effect
from gates.evidence import probe_unless_same, reason_why_not
from gates.models import Decision as Verdict
from gates.models import Evidence, SignOff
from gates.standing import Standing, State
from migration.models import Account, Run
from migration.states import RunMode

MEASURED_ANEW_AFTER = timedelta(hours=1)  # during a run; at its start always
MOST_NAMES = 5

Person = AbstractBaseUser | AnonymousUser


@dataclass(frozen=True)
class Decision:
    """What the gates allow: refusals in words (none: go), and the capabilities (D, E, F) that the pipeline is handed."""

    capabilities: frozenset[str]
    refusals: list[str] = field(default_factory=list)


class CannotDecide(RuntimeError):
    """This person may not sign, reject or withdraw this; the sentence says why, and what would help."""


def decide(
    account: Account, mode: RunMode, *, now: datetime, measure: bool = False, run: Run | None = None, downgrade_confirmed: bool = False
) -> Decision:
    """Whether a run of `mode` may start; with `run`, whether that one may go on (its capabilities are its own, and frozen).

    `measure` has the gates that hold back this mode measured again, so that nothing which was signed has changed unseen. Raises
    Outage where that cannot be done. An account that left the CDP is refused whatever the gates say.
    """
    if account.gone:
        return Decision(frozenset(run.capabilities) if run else frozenset(), [gone(account)])
    held_back_by = [
        gate for gate in GATES if gate.effect == Effect.RUN or (gate.effect == Effect.PRODUCTION and mode == RunMode.PRODUCTION)
    ]
    if measure:
        measure_again(standing.of_all(held_back_by, [account], now=now), now=now, always=run is None)
    closed = [each for each in standing.of_all(held_back_by, [account], now=now) if not each.is_open]
    refusals = [refusal(each) for each in closed]
    if run is not None:
        return Decision(frozenset(run.capabilities), refusals)
    capabilities = frozenset(
        each.rule.letter for each in standing.of_all([BY_LETTER[letter] for letter in CAPABILITIES], now=now) if each.is_open
    )
    if mode == RunMode.PRODUCTION:
        refusals += rehearsal.problems(account, capabilities, downgrade_confirmed=downgrade_confirmed)
    return Decision(capabilities, refusals)


def gone(account: Account) -> str:
    """Its contacts went with it, so a run would find no candidate, and call that complete."""
    return f"{account} is no longer in the CDP, so nothing of it is moved or tried again: run `manage.py sync_accounts` if it is back."


def is_open(letter: str, account: Account | None = None, *, now: datetime) -> bool:
    """Whether every owner group's sign-off on a gate stands."""
    return standing.of(letter, account, now=now).is_open


def measure_again(standings: list[Standing], *, now: datetime, always: bool) -> None:
    """Measure what would be open on the word of older evidence."""
    for each in standings:
        if each.is_open and each.evidence and (always or each.evidence.measured_at < now - MEASURED_ANEW_AFTER):
            probe_unless_same(each.rule, each.account, each.evidence, fresh_since=now - MEASURED_ANEW_AFTER, by="gates", now=now)


def refusal(closed: Standing) -> str:
    """Which gate is closed, what is missing, and who can give it."""
    parts = [evidence_missing(closed)] if evidence_missing(closed) else []
    parts += [f"{each.why} ({who_can(each.group)})" for each in closed.groups if each.state != State.SIGNED]
    return f"{closed.name} is closed: {'; '.join(part.rstrip('.') for part in parts)}."


def evidence_missing(closed: Standing) -> str:
    """What is wrong with the evidence, if anything is."""
    if not closed.rule.probe:
        return ""
    if closed.evidence is None:
        option = f" --account {closed.account.crm_organization_id}" if closed.account else ""
        return f"nothing was measured yet, run `manage.py probe_gates {closed.rule.letter}{option}`"
    return (
        ""
        if closed.evidence.passes
        else f"its evidence of {standing.day(closed.evidence.measured_at)} fails: {reason_why_not(closed.evidence)}; have it measured again once that is mended"
    )


def who_can(group: str) -> str:
    """The people of a group, as far as a sentence holds them."""
    names = list(
        User.objects.filter(groups__name=group, is_active=True).order_by("username").values_list("username", flat=True)[: MOST_NAMES + 1]
    )
    if not names:
        return f"nobody is in group {group} yet"
    return f"in group {group}: {', '.join(names[:MOST_NAMES])}{' and others' if len(names) > MOST_NAMES else ''}"


def check_can_sign(user: Person, shown: Standing, group: str, evidence: Evidence | None) -> None:
    """Raise CannotDecide unless this person may sign for this group on this evidence now."""
    check_member(user, shown, group)
    check_not_for_two_groups(user, shown, group)
    if not shown.rule.probe:
        return
    if shown.evidence is None:
        raise CannotDecide(f"{shown.name} was not measured yet: have it probed, then sign on what was found.")
    if evidence is None or evidence.pk != shown.evidence.pk:
        raise CannotDecide(
            f"{shown.name} was measured again on {standing.day(shown.evidence.measured_at)}, after the evidence that you looked at: "
            f"look at evidence {shown.evidence.pk} and sign that."
        )
    if any(
        each.group == group and each.state == State.SIGNED and each.signoff and each.signoff.evidence_id == evidence.pk
        for each in shown.groups
    ):
        raise CannotDecide(f"{group} has signed evidence {evidence.pk} of {shown.name} already, and that sign-off stands.")
    if not evidence.passes:
        raise CannotDecide(f"Evidence {evidence.pk} of {shown.name} fails, so it cannot be signed: {reason_why_not(evidence)}.")
    if shown.stale:
        raise CannotDecide(f"Evidence {evidence.pk} of {shown.name} is stale, so it cannot be signed: {shown.stale}. Have it probed again.")


def check_can_reject(user: Person, shown: Standing, group: str) -> None:
    """Raise CannotDecide unless this person may reject for this group; failing evidence can be rejected too."""
    check_member(user, shown, group)


def check_can_withdraw(user: Person, shown: Standing, group: str) -> SignOff:
    """The sign-off that this person may withdraw for this group, or CannotDecide."""
    check_member(user, shown, group)
    found = next(each.signoff for each in shown.groups if each.group == group)
    if found is None or found.decision != Verdict.SIGNED:
        raise CannotDecide(f"{group} has no sign-off on {shown.name} that could be withdrawn.")
    return found


def check_member(user: Person, shown: Standing, group: str) -> None:
    if group not in shown.rule.owners:
        raise CannotDecide(f"{group or 'No group'} does not own {shown.rule}: it is for {' and '.join(shown.rule.owners)} to decide.")
    if not user.is_active or not UserGroup.objects.filter(name=group, user=user.pk).exists():
        raise CannotDecide(
            f"{user.get_username() or 'Nobody'} is not in group {group}, which must decide on {shown.rule}: {who_can(group)}."
        )


def check_not_for_two_groups(user: Person, shown: Standing, group: str) -> None:
    for each in shown.groups:
        if each.group != group and each.signoff and each.signoff.decision == Verdict.SIGNED and each.signoff.user_id == user.pk:
            raise CannotDecide(
                f"{user.get_username()} has signed {shown.name} for {each.group} already: one person never signs for two groups. "
                f"Somebody else must sign for {group} ({who_can(group)})."
            )
