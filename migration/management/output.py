"""What the commands share: JSON or lines, and refusals as one sentence instead of a traceback."""

import functools
import getpass
import json
import os
from collections.abc import Callable
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError

from migration.doors import Misconfigured, Outage
from migration.models import Account, Run
from migration.runs import Busy, Refused
from migration.unseen import for_terminal, unseen


class Output:
    """Lines for people on standard output; with `--json` one object there, and nothing else."""

    def __init__(self, command: BaseCommand, as_json: bool) -> None:
        self.command, self.as_json = command, as_json

    def line(self, text: str) -> None:
        if not self.as_json:
            self.command.stdout.write(for_terminal(text))

    def aside(self, text: str) -> None:
        """A word on what happens meanwhile, on standard error."""
        self.command.stderr.write(for_terminal(text), style_func=lambda plain: plain)

    def json(self, value: object) -> None:
        if self.as_json:
            text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
            self.command.stdout.write("".join(json.dumps(each)[1:-1] if unseen(each) and each != "\n" else each for each in text))


def refusals_as_sentences(handle: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what the doors and runs.py refuse into a CommandError: exit code 1, or 4 where a gate refuses."""

    @functools.wraps(handle)
    def wrapped(self: BaseCommand, *args: object, **options: object) -> Any:
        try:
            return handle(self, *args, **options)
        except CommandError as error:
            raise CommandError(for_terminal(str(error)), returncode=error.returncode) from error
        except (Outage, Misconfigured, Busy) as error:
            raise CommandError(for_terminal(str(error))) from error
        except Refused as error:
            raise CommandError(for_terminal(str(error)), returncode=4) from error
        except psycopg.Error as error:
            raise CommandError(f"A database refused a statement ({type(error).__name__}); nothing was half done. See the log.") from error

    return wrapped


def who() -> str:
    """The login name of whoever runs the command; in a container without one, the user id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def run_of(number: int) -> Run:
    """The run of that number, or a CommandError."""
    run = Run.objects.select_related("account").filter(pk=number).first()
    if run is None:
        newest = Run.objects.order_by("-pk").values_list("pk", flat=True).first()
        raise CommandError(f"There is no run {number}{f'; the newest is {newest}' if newest else ''}.")
    return run


def account_of(organisation: int) -> Account:
    """The account of a CRM organisation id, or a CommandError that names those there are."""
    account = Account.objects.filter(crm_organization_id=organisation, gone=False).first()
    if account is None:
        known = list(Account.objects.filter(gone=False).values_list("crm_organization_id", flat=True)[:10])
        hint = f"known are {', '.join(map(str, known))}" if known else "none is known yet"
        raise CommandError(f"There is no account for CRM organisation {organisation} ({hint}): run `manage.py sync_accounts` first.")
    return account
