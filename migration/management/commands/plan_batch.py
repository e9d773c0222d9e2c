import sys
from argparse import ArgumentTypeError
from datetime import date, time
from decimal import Decimal, InvalidOperation
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from migration import batch_plans, forecast, windows
from migration.batch_plans import Plan
from migration.forecast import Terms
from migration.management.output import Output, refusals_as_sentences, who
from migration.models import BatchItem
from migration.runs import Refused
from migration.states import AtClose, BatchWork
from migration.windows import Window


class Command(BaseCommand):
    help = "Plan a batch: accounts in order, within a window. Without --yes only what would start when. Exit code 4 where it is refused."

    def add_arguments(self, parser):
        parser.add_argument("organisations", nargs="*", metavar="ORG", help="CRM organisation ids, in the order in which they start")
        parser.add_argument("--file", help="a file with more of them, between blanks, commas or lines; - is standard input")
        parser.add_argument("--name", required=True)
        parser.add_argument(
            "--work", choices=["both", "dry-run", "production"], default="both", help="both: a dry run first where none fits"
        )
        parser.add_argument("--days", type=days, default=windows.read_days("every"), help="such as mon-fri or sat,sun (default: every)")
        parser.add_argument("--from", type=hour, dest="begins", default=time(22), help="HH:MM (default: 22:00)")
        parser.add_argument(
            "--to", type=hour, dest="ends", default=time(6), help="HH:MM, at or before --from on the next day (default: 06:00)"
        )
        parser.add_argument("--zone", default="UTC", help="such as Asia/Jakarta (default: UTC)")
        parser.add_argument("--first-day", type=date.fromisoformat, metavar="YYYY-MM-DD", help="nothing starts before")
        parser.add_argument(
            "--at-close", choices=[str(each) for each in AtClose], default=AtClose.PAUSE, help="runs under way at closing time"
        )
        parser.add_argument("--at-once", type=int, default=1, metavar="N")
        parser.add_argument("--canary", type=int, default=1, metavar="N", help="so many accounts must balance before others start")
        parser.add_argument("--most-failures", type=int, default=2, metavar="N", help="more failed or refused accounts stop it")
        parser.add_argument("--most-quarantined", type=percent, default=Decimal(5), metavar="PERCENT", help="of an account's candidates")
        parser.add_argument("--yes", action="store_true", help="plan it")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        wish, now, out = wish_of(options), timezone.now(), Output(self, options["json"])
        if wrong := batch_plans.problems(wish):
            raise Refused(" ".join(wrong))
        rows = list(outlook(wish, now=now))
        batch = batch_plans.plan(wish, by=who(), now=now) if options["yes"] else None
        out.json({"batch": batch.pk if batch else None, "window": str(wish.window), "accounts": rows})
        out.line(f"{wish.name}: {len(wish.accounts):,} account{'s' if len(wish.accounts) != 1 else ''}, {wish.window}")
        for row in rows:
            start, end = (row[key] or "not known" for key in ("start", "end"))
            out.line(f"  organisation {row['account']:>10}   starts {start}   ends {end}")
        out.line(f"Planned as batch {batch.pk}: it begins when its window opens." if batch else "Nothing is planned yet: --yes plans it.")


def wish_of(options) -> Plan:
    window = Window(options["days"], options["begins"], options["ends"], options["zone"], options["first_day"])
    same = {name: options[name] for name in ("name", "at_once", "canary", "most_failures", "most_quarantined")}
    accounts = batch_plans.accounts_of(" ".join([*options["organisations"], read(options["file"])]))
    work = BatchWork(options["work"].replace("-", "_"))
    return Plan(accounts=accounts, window=window, work=work, at_close=AtClose(options["at_close"]), **same)


def read(file: str | None) -> str:
    if file is None:
        return ""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read ({type(error).__name__}): name a text file of organisation ids.") from error


def outlook(wish: Plan, *, now):
    """`{"account", "seconds", "start", "end"}` of each account; null where that cannot be told."""
    items = [BatchItem(position=number, account=account) for number, account in enumerate(wish.accounts, 1)]
    terms = Terms(wish.window, wish.at_once, wish.canary, wish.at_close)
    for item, place in zip(items, forecast.places(forecast.works(items, wish.work, now=now), terms, now=now), strict=True):
        start, end = (each.isoformat(timespec="minutes") if each else None for each in (place.start, place.end))
        seconds = round(place.takes.total_seconds()) if place.takes is not None else None
        yield {"account": item.account.crm_organization_id, "seconds": seconds, "start": start, "end": end}


def days(text: str) -> frozenset[int]:
    try:
        return windows.read_days(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def hour(text: str) -> time:
    found = time.fromisoformat(text)
    if found.tzinfo:
        raise ArgumentTypeError(f"{text!r} has an offset of its own: write HH:MM as the clocks of --zone show it")
    return found


def percent(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(text) from error
    if not number.is_finite():  # one that is no number cannot even be compared
        raise ValueError(text)
    return number
