"""For how many days a gate's sign-offs and evidence stand: the only writer of Gate."""

from datetime import datetime

from django.db import transaction

from gates.catalogue import BY_LETTER
from gates.models import Gate
from gates.policies import CannotDecide
from migration import events

MOST_DAYS = 365


def set_days(letter: str, text: str, *, by: str, note: str, now: datetime) -> str:
    """Have a gate's sign-offs stand for as many days; a sentence of what that does. Raises CannotDecide.

    Fewer days hold for what is signed already too. More days hold for what is signed from now on: nobody signed for longer than he was told.
    """
    days = whole(text)
    if not note.strip():
        raise CannotDecide("A note is needed: why.")
    with transaction.atomic():
        gate = Gate.objects.select_for_update().get(pk=BY_LETTER[letter].letter)
        before, gate.valid_days = gate.valid_days, days
        gate.save(update_fields=["valid_days"])
        whom = "what is signed from now on" if days > before else "what is signed already too"
        sentence = f"A sign-off of {gate} stands for {days} day{'' if days == 1 else 's'} (before: {before}); that holds for {whom}."
        events.record("gate days set", f"{sentence} {note.strip()}", now=now, by=by)
    return sentence


def whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MOST_DAYS):
        raise CannotDecide(f"How many days a sign-off stands must be a whole number from 1 to {MOST_DAYS}.")
    return int(text)
