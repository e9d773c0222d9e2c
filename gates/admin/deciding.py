"""The form by which a person signs, rejects or withdraws, and what becomes of it when it is sent."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from gates import policies, signoffs
from gates.catalogue import Gate as Rule
from gates.models import Decision, Evidence, Gate, SignOff
from gates.policies import CannotDecide
from gates.signoffs import VERBS
from gates.standing import GroupStanding, Standing, day
from migration.admin.work import note_of
from migration.models import Account

ACTS = {"sign": Decision.SIGNED, "reject": Decision.REJECTED, "withdraw": Decision.WITHDRAWN}


@dataclass(frozen=True)
class Choice:
    """One group for which the person may decide; `why_not` says why they may not sign for it now."""

    standing: GroupStanding
    why_not: str

    @property
    def is_signed(self) -> bool:
        return bool(self.standing.signoff and self.standing.signoff.decision == Decision.SIGNED)


@dataclass(frozen=True)
class Form:
    """`latest` is the newest decision that the page shows: one that is made after it is not overwritten unseen."""

    choices: list[Choice]
    chosen: str
    latest: int

    @property
    def can_sign(self) -> bool:
        return any(not each.why_not for each in self.choices)

    @property
    def can_withdraw(self) -> bool:
        return any(each.is_signed for each in self.choices)


def form(shown: Standing, request: HttpRequest) -> Form:
    """For the owner groups that the person is in; no choices where they are in none."""
    mine = set(Group.objects.filter(user=request.user.pk, name__in=shown.rule.owners).values_list("name", flat=True))
    choices = [Choice(each, why_not_sign(shown, each.group, request)) for each in shown.groups if each.group in mine]
    fitting = [each.standing.group for each in choices if not each.why_not] or [each.standing.group for each in choices]
    chosen = request.POST.get("group", "") or (fitting[0] if fitting else "")
    return Form(choices, chosen, max((each.signoff.pk for each in shown.groups if each.signoff), default=0))


def why_not_sign(shown: Standing, group: str, request: HttpRequest) -> str:
    try:
        policies.check_can_sign(request.user, shown, group, shown.evidence)
    except CannotDecide as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Sent:
    """A form as it was sent. `evidence` and `latest` are what its page showed, 0 where it showed none."""

    decision: Decision
    rule: Rule
    account: Account | None
    group: str
    evidence: int
    latest: int
    note: str
    user: User


def sent(rule: Rule, account: Account | None, request: HttpRequest) -> Sent:
    """Raises CannotDecide where nothing was chosen."""
    decision = ACTS.get(request.POST.get("act", ""))
    if decision is None:
        raise CannotDecide("Choose whether to sign, to reject or to withdraw.")
    if not isinstance(request.user, User):
        raise PermissionDenied
    evidence, latest = (number(request.POST.get(name, "")) for name in ("evidence", "latest"))
    return Sent(decision, rule, account, request.POST.get("group", ""), evidence, latest, note_of(request), request.user)


def number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def decide(form: Sent, *, now: datetime) -> str:
    """Do it; a sentence that says it. Raises CannotDecide, also where somebody decided or measured since the form was shown."""
    with transaction.atomic():
        Gate.objects.select_for_update().filter(pk=form.rule.letter).first()
        given = of_gate(form).filter(group=form.group, pk__gt=form.latest).first()
        if given and is_sent_twice(form, given):
            return f"It was recorded already: {given.decided_by} {VERBS[form.decision]} {form.rule} for {form.group}."
        if given:
            raise CannotDecide(
                f"{form.group} has decided meanwhile: {given.decided_by} {VERBS[Decision(given.decision)]} {form.rule} "
                f"on {day(given.decided_at)}. Look at that, then decide again."
            )
        made = recorded(form, now=now)
    return f"{made.decided_by} {VERBS[form.decision]} {form.rule} for {form.group}. It is recorded for good."


def of_gate(form: Sent) -> QuerySet[SignOff]:
    return SignOff.objects.filter(gate=form.rule.letter, account=form.account)


def is_sent_twice(form: Sent, given: SignOff) -> bool:
    """Whether the same person sent the same form before: a double click, or a page sent again."""
    same = (given.user_id, given.decision, given.note) == (form.user.pk, form.decision, form.note)
    return same and (form.decision == Decision.WITHDRAWN or (given.evidence_id or 0) == form.evidence)


def recorded(form: Sent, *, now: datetime) -> SignOff:
    letter, account, group, user, note = form.rule.letter, form.account, form.group, form.user, form.note
    if form.decision == Decision.WITHDRAWN:
        return signoffs.withdraw(letter, account, group=group, user=user, note=note, now=now)
    seen = Evidence.objects.filter(pk=form.evidence).first()
    if form.decision == Decision.SIGNED:
        return signoffs.sign(letter, account, group=group, evidence=seen, user=user, note=note, now=now)
    check_newest(form)
    return signoffs.reject(letter, account, group=group, user=user, note=note, now=now)


def check_newest(form: Sent) -> None:
    """A rejection is recorded on the newest evidence, so that must be what the person looked at."""
    newest = Evidence.objects.filter(gate=form.rule.letter, account=form.account).first()
    if newest is not None and newest.pk != form.evidence:
        raise CannotDecide(
            f"{form.rule} was measured again on {day(newest.measured_at)}, after the evidence that you looked at: "
            f"look at evidence {newest.pk} first."
        )
