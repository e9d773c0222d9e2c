"""Plans a batch: what was asked for is checked as a whole, and refused in sentences that name what is wrong."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from django.db import IntegrityError, transaction

from migration import events
from migration.models import Account, Batch, BatchItem
from migration.runs import Refused
from migration.states import OPEN_ITEM, AtClose, BatchWork
from migration.windows import Window, is_zone

MOST_ACCOUNTS = 5_000
MOST_NAMED = 10
LONGEST_NAME = 120
LONGEST_ID = 18  # digits
FIRST_DAYS = (date(2000, 1, 1), date(2100, 12, 31))  # at the calendar's own ends no opening can be reckoned


@dataclass(frozen=True)
class Plan:
    """What somebody asks for; `most_quarantined` in percent of an account's candidates."""

    name: str
    accounts: list[Account]
    window: Window
    work: BatchWork = BatchWork.BOTH
    at_close: AtClose = AtClose.PAUSE
    at_once: int = 1
    canary: int = 1
    most_failures: int = 0
    most_quarantined: Decimal = Decimal(5)


def plan(wish: Plan, *, by: str, now: datetime) -> Batch:
    """The batch, planned: the tick starts it when its window opens. Raises Refused with what is wrong."""
    if wrong := problems(wish):
        raise Refused(" ".join(wrong))
    try:
        with transaction.atomic():
            return created(wish, by=by, now=now)
    except IntegrityError as error:
        raise Refused("One of the accounts was put into another batch at this moment: look at the batches, and plan again.") from error


def created(wish: Plan, *, by: str, now: datetime) -> Batch:
    window = wish.window
    batch = Batch.objects.create(
        name=wish.name, work=wish.work, days=sorted(window.days), begins=window.begins, ends=window.ends, zone=window.zone,
        first_day=window.first_day, at_close=wish.at_close, at_once=wish.at_once, canary=wish.canary, most_failures=wish.most_failures,
        most_quarantined=wish.most_quarantined, planned_at=now, planned_by=by,
    )  # fmt: skip
    BatchItem.objects.bulk_create(BatchItem(batch=batch, position=n, account=account) for n, account in enumerate(wish.accounts, 1))
    events.record(
        "batch planned", f"{len(wish.accounts):,} account{'s' if len(wish.accounts) != 1 else ''}, {window}", now=now, by=by, batch=batch
    )
    return batch


def problems(wish: Plan) -> list[str]:
    """What is wrong with a plan, in sentences; none where it can be planned."""
    found = [name_problem(wish.name)] if name_problem(wish.name) else []
    if not wish.window.days:
        found.append("Choose at least one day on which the window opens.")
    if not is_zone(wish.window.zone):
        found.append(f"There is no time zone {wish.window.zone[:64]!r}: write a name such as Asia/Jakarta or Europe/Berlin.")
    if wish.window.first_day and not FIRST_DAYS[0] <= wish.window.first_day <= FIRST_DAYS[1]:
        found.append(f"The day before which nothing starts must be from {FIRST_DAYS[0]} to {FIRST_DAYS[1]}.")
    if not 1 <= wish.at_once <= 100:
        found.append("From 1 to 100 accounts can be at work at once.")
    if wish.accounts and not 0 <= wish.canary <= len(wish.accounts):
        found.append(f"The canary can be none to all {len(wish.accounts)} of the accounts.")
    if not 0 <= wish.most_failures <= MOST_ACCOUNTS or not 0 <= wish.most_quarantined <= 100:
        found.append(f"The limits are a number of accounts up to {MOST_ACCOUNTS:,}, and a percentage from 0 to 100.")
    return found + account_problems(wish.accounts)


def name_problem(name: str) -> str:
    if not name.strip():
        return "A batch needs a name, such as who is moved in it."
    if len(name) > LONGEST_NAME:
        return f"The name may have {LONGEST_NAME} characters; this one has {len(name)}."
    return "The name holds a character that cannot be stored." if "\0" in name else ""


def account_problems(accounts: list[Account]) -> list[str]:
    if not accounts:
        return ["Name at least one account."]
    ids = [account.crm_organization_id for account in accounts]
    twice = sorted(each for each, times in Counter(ids).items() if times > 1)
    found = [f"Named twice: {listed(twice)}."] if twice else []
    if gone := [account.crm_organization_id for account in accounts if account.gone]:
        found.append(f"No longer in the CDP: {listed(gone)}.")
    if len(accounts) > MOST_ACCOUNTS:
        found.append(f"A batch holds at most {MOST_ACCOUNTS:,} accounts; these are {len(accounts):,}.")
    elsewhere = BatchItem.objects.filter(account__in=accounts, state__in=OPEN_ITEM).select_related("batch", "account")
    for item in elsewhere[:MOST_NAMED]:
        found.append(f"{item.account} is {item.state} in {item.batch} already.")
    return found


def accounts_of(text: str) -> list[Account]:
    """The accounts whose CRM organisation ids are in the text, in its order, between blanks, commas, semicolons or lines.

    Raises Refused naming what is no id, and the ids that no account has.
    """
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    wrong = [word for word in words if not is_id(word)]
    numbers = [int(word) for word in words if is_id(word)]
    found = Account.objects.filter(crm_organization_id__in=numbers).order_by("-gone")  # the one that is there comes last, and stays
    known = {account.crm_organization_id: account for account in found}
    unknown = [number for number in dict.fromkeys(numbers) if number not in known]
    said = [f"No CRM organisation ids: {listed([repr(word[:40]) for word in wrong])}."] if wrong else []
    if unknown:
        said.append(f"No account has these CRM organisation ids: {listed(unknown)}. Run `manage.py sync_accounts` if they are new.")
    if said:
        raise Refused(" ".join(said))
    return [known[number] for number in numbers]


def is_id(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= LONGEST_ID


def listed(values: list) -> str:
    more = f" and {len(values) - MOST_NAMED} more" if len(values) > MOST_NAMED else ""
    return ", ".join(map(str, values[:MOST_NAMED])) + more


def window_of(batch: Batch) -> Window:
    return Window(frozenset(batch.days), batch.begins, batch.ends, batch.zone, batch.first_day)
