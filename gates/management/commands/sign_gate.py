from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from gates import signoffs, standing
from gates.catalogue import BY_LETTER
from gates.models import Evidence
from gates.policies import CannotDecide
from migration.management.output import Output, account_of, refusals_as_sentences
from migration.models import Account

REFUSED = 4  # the exit code


class Command(BaseCommand):
    help = "Sign a gate for one of its owner groups, on its newest evidence. Exit code 0 done, 4 refused (the sentence says why)."

    def add_arguments(self, parser):
        parser.add_argument("gate", metavar="GATE", help="the gate's letter")
        parser.add_argument("--by", required=True, metavar="USERNAME", help="who signs: a member of the group")
        parser.add_argument("--group", required=True, metavar="GROUP", help="the owner group for which is signed")
        parser.add_argument("--note", required=True, metavar="TEXT", help="what was looked at, and why it will do")
        parser.add_argument("--account", type=int, metavar="ORG", help="CRM organisation id, for gate C")
        parser.add_argument("--evidence", type=int, metavar="N", help="the evidence that was looked at (default: the newest)")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--reject", action="store_true", help="reject instead: the evidence will not do")
        what.add_argument("--withdraw", action="store_true", help="withdraw the group's sign-off instead")

    @refusals_as_sentences
    def handle(self, **options):
        letter = options["gate"].upper()
        account = account_of(options["account"]) if options["account"] is not None else None
        user = User.objects.filter(username=options["by"]).first()
        if user is None:
            raise CommandError(f"There is no login {options['by']}: make it in the admin, and put it into group {options['group']}.")
        given = {"group": options["group"], "user": user, "note": options["note"], "now": timezone.now()}
        try:
            if options["reject"]:
                made = signoffs.reject(letter, account, **given)
            elif options["withdraw"]:
                made = signoffs.withdraw(letter, account, **given)
            else:
                made = signoffs.sign(letter, account, evidence=evidence(letter, account, options["evidence"]), **given)
        except CannotDecide as error:
            raise CommandError(str(error), returncode=REFUSED) from error
        for_account = f" for {account}" if account else ""
        on = f" on evidence {made.evidence_id}" if made.evidence_id else ""
        out = Output(self, as_json=False)
        out.line(f"Gate {letter}{for_account}: {made.decision} by {made.decided_by} for {made.group}{on}.")
        shown = standing.of(letter, account, now=timezone.now())
        missing = "; ".join(each.why for each in shown.groups if each.why)
        out.line("The gate is open." if shown.is_open else f"The gate is not open: {missing}.")


def evidence(letter: str, account: Account | None, number: int | None) -> Evidence | None:
    """The evidence that was named, or the newest; None where the gate or its account is not named right, which signing refuses."""
    if number is None:
        rule = BY_LETTER.get(letter)
        unclear = rule is None or (rule.per_account and account is None)
        return None if unclear else standing.of(letter, account, now=timezone.now()).evidence
    found = Evidence.objects.filter(pk=number, gate=letter, account=account).first()
    if found is None:
        raise CommandError(f"There is no evidence {number} of gate {letter}{f' for {account}' if account else ''}.")
    return found
