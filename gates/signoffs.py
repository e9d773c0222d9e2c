"""Sign, reject, withdraw: the only writer of SignOff. Each decision is a row of its own, with an Event in the same transaction."""

from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction

from gates import policies, standing
from gates.catalogue import BY_LETTER
from gates.models import Decision, Evidence, Gate, SignOff
from gates.policies import CannotDecide
from gates.standing import Standing
from migration import events
from migration.models import Account

VERBS = {Decision.SIGNED: "signed", Decision.REJECTED: "rejected", Decision.WITHDRAWN: "withdrew the sign-off on"}


def sign(letter: str, account: Account | None, *, group: str, evidence: Evidence | None, user: User, note: str, now: datetime) -> SignOff:
    """Sign a gate for a group, on this evidence (None where a gate has no probe). Raises CannotDecide."""
    with transaction.atomic():
        shown = locked(letter, account, now=now)
        policies.check_can_sign(user, shown, group, evidence)
        return decide(shown, group, Decision.SIGNED, evidence=evidence, user=user, note=note, now=now)


def reject(letter: str, account: Account | None, *, group: str, user: User, note: str, now: datetime) -> SignOff:
    """Say for a group that the newest evidence will not do. Raises CannotDecide."""
    with transaction.atomic():
        shown = locked(letter, account, now=now)
        policies.check_can_reject(user, shown, group)
        return decide(shown, group, Decision.REJECTED, evidence=shown.evidence, user=user, note=note, now=now)


def withdraw(letter: str, account: Account | None, *, group: str, user: User, note: str, now: datetime) -> SignOff:
    """Take a group's sign-off back. Raises CannotDecide."""
    with transaction.atomic():
        shown = locked(letter, account, now=now)
        found = policies.check_can_withdraw(user, shown, group)
        return decide(shown, group, Decision.WITHDRAWN, evidence=found.evidence, user=user, note=note, now=now)


def locked(letter: str, account: Account | None, *, now: datetime) -> Standing:
    """How the gate stands, with its row locked: of two people who decide at once the second sees what the first did."""
    rule = BY_LETTER.get(letter)
    if rule is None or not Gate.objects.select_for_update(no_key=True).filter(pk=letter).exists():
        raise CannotDecide(f"There is no gate {letter}: the gates are {', '.join(BY_LETTER)}.")
    if rule.per_account and account is None:
        raise CannotDecide(f"{rule} is decided for each account: name one.")
    if not rule.per_account and account is not None:
        raise CannotDecide(f"{rule} is decided once for all accounts: name none.")
    return standing.of(letter, account, now=now)


def decide(shown: Standing, group: str, decision: Decision, *, evidence: Evidence | None, user: User, note: str, now: datetime) -> SignOff:
    if not note.strip():
        raise CannotDecide("A note is needed: what you looked at, and why you decide so.")
    gate = Gate.objects.get(pk=shown.rule.letter)
    made = SignOff.objects.create(
        gate=gate, account=shown.account, group=group, decision=decision, evidence=evidence, statement=shown.rule.statement,
        note=note.strip(), user=user, valid_days=gate.valid_days, decided_at=now, decided_by=user.get_username(),
    )  # fmt: skip
    on = f" on evidence {evidence.pk}" if evidence else ""
    sentence = f"{user.get_username()} {VERBS[decision]} {shown.name} for {group}{on}: {note.strip()}"
    events.record(f"gate {decision}", sentence, now=now, by=user.get_username(), account=shown.account)
    return made
