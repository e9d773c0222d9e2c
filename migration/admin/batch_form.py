"""The form in which a batch is planned. What it says is checked by batch_plans.py, as for the command."""

from decimal import Decimal
from typing import Any

from django import forms
from django.db.models import Q
from django.http import QueryDict

from migration import batch_plans, windows
from migration.batch_plans import LONGEST_NAME, Plan
from migration.models import Account
from migration.runs import Refused
from migration.states import AtClose, BatchWork
from migration.windows import DAYS, Window

MOST_FOUND = 200

WORKS = {
    BatchWork.BOTH: "A dry run where none fits, then production",
    BatchWork.DRY_RUN: "Dry runs only: nothing is written",
    BatchWork.PRODUCTION: "Production only: an account without a dry run that fits is refused",
}
CLOSES = {
    AtClose.PAUSE: "They are paused at their next chunk, and go on when it opens again",
    AtClose.FINISH: "They go on to their end; no further account starts",
}


def choices(texts: dict[Any, str]) -> list[tuple[str, str]]:
    return [(str(value), text) for value, text in texts.items()]


class PlanForm(forms.Form):
    name = forms.CharField(max_length=LONGEST_NAME, help_text="Such as who is moved in it, and why now.")
    accounts = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        label="Accounts: CRM organisation ids, in the order in which they start",
        help_text="Between blanks, commas or lines, as pasted from a spreadsheet.",
    )
    find = forms.CharField(
        required=False, label="Find accounts by name", help_text="Those found are added to the list, by organisation id."
    )
    work = forms.ChoiceField(
        choices=choices(WORKS), widget=forms.RadioSelect, initial=BatchWork.BOTH, label="What is done for each account"
    )
    days = forms.TypedMultipleChoiceField(
        choices=list(enumerate(DAYS)), coerce=int, widget=forms.CheckboxSelectMultiple, label="Days on which the window opens",
        initial=list(range(len(DAYS))),
    )  # fmt: skip
    begins = forms.TimeField(initial="22:00", label="From", widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"))
    ends = forms.TimeField(
        initial="06:00", label="To", widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
        help_text="At or before the beginning: on the next day. The same time: a whole day.",
    )  # fmt: skip
    zone = forms.CharField(initial="UTC", label="Time zone", max_length=64, widget=forms.TextInput(attrs={"list": "zones"}))
    first_day = forms.DateField(
        required=False, label="Not before", widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text="A day in that time zone. Empty: with the next opening.",
    )  # fmt: skip
    at_close = forms.ChoiceField(
        choices=choices(CLOSES), widget=forms.RadioSelect, initial=AtClose.PAUSE, label="Runs under way when the window closes"
    )
    at_once = forms.IntegerField(min_value=1, max_value=100, initial=1, label="Accounts at once")
    canary = forms.IntegerField(min_value=0, initial=1, label="Canary", help_text="So many of the first must balance before others start.")
    most_failures = forms.IntegerField(
        min_value=0,
        initial=2,
        label="Failed or refused accounts allowed",
        help_text="One more stops the batch; in the canary the first does.",
    )
    most_quarantined = forms.DecimalField(
        min_value=Decimal(0), max_value=Decimal(100), decimal_places=2, initial=5, label="Percent of an account's candidates quarantined",
        help_text="More stops the batch.",
    )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        """The fields together make a plan, kept as `plan`, or the form says what is wrong with it."""
        found = super().clean() or {}
        if self.errors:
            return found
        try:
            self.plan = plan_of(found)
        except Refused as error:
            self.add_error("accounts", str(error))
            return found
        for problem in batch_plans.problems(self.plan):
            self.add_error(None, problem)
        return found

    @classmethod
    def with_found(cls, sent: QueryDict) -> tuple["PlanForm", str]:
        """The form as it was sent, its list longer by the accounts that were searched for; and how many those are."""
        listed, found = sent.get("accounts", "").rstrip(), searched(sent.get("find", ""))
        named = {*listed.split()}
        new = [str(number) for number in found if str(number) not in named]
        shown = {name: sent.getlist(name) if name == "days" else sent.get(name) for name in cls.base_fields}
        more = f"; there are more than {MOST_FOUND}, so search for less" if len(found) == MOST_FOUND else ""
        form = cls(initial=shown | {"accounts": "\n".join(filter(None, [listed, *new]))})
        return form, f"{len(new)} account{'s' if len(new) != 1 else ''} added{more}."


def searched(text: str) -> list[int]:
    """Organisation ids of the accounts in whose name the text is found, or whose id it is."""
    word = text.replace("\0", "").strip()
    if not word:
        return []
    wanted = Q(name__icontains=word) | (Q(crm_organization_id=int(word)) if batch_plans.is_id(word) else Q())
    return list(Account.objects.filter(wanted, gone=False).values_list("crm_organization_id", flat=True)[:MOST_FOUND])


def plan_of(found: dict[str, Any]) -> Plan:
    """Raises Refused for accounts that are none."""
    window = Window(frozenset(found["days"]), found["begins"], found["ends"], found["zone"].strip(), found["first_day"])
    same = {name: found[name] for name in ("at_once", "canary", "most_failures", "most_quarantined")}
    return Plan(
        name=found["name"],
        accounts=batch_plans.accounts_of(found["accounts"]),
        window=window,
        work=BatchWork(found["work"]),
        at_close=AtClose(found["at_close"]),
        **same,
    )


def zone_names() -> list[str]:
    return sorted(name for name in windows.zones() if "/" in name or name == "UTC")
