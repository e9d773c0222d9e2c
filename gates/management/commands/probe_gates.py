import sys

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from gates import evidence
from gates.catalogue import BY_LETTER, GATES, Gate
from gates.models import Evidence
from migration.management.output import Output, account_of, refusals_as_sentences, who
from migration.models import Account

MARKS = {True: "good", False: "FAILS", None: "to judge"}
FAILING = 3  # the exit code


class Command(BaseCommand):
    help = "Measure the gates and store the evidence. Exit code 0 if all that was measured passes, 3 if some of it fails."

    def add_arguments(self, parser):
        parser.add_argument("gates", nargs="*", metavar="GATE", help="letters, for example A B (default: every gate that has a probe)")
        parser.add_argument("--account", type=int, metavar="ORG", help="CRM organisation id, for gate C (default: every account)")
        parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")

    @refusals_as_sentences
    def handle(self, **options):
        out = Output(self, options["json"])
        accounts = [account_of(options["account"])] if options["account"] is not None else list(Account.objects.filter(gone=False))
        found = []
        for gate in chosen(options["gates"]):
            for account in accounts if gate.per_account else [None]:
                found.append(evidence.probe(gate, account, by=who(), now=timezone.now()))
                tell(found[-1], out)
            if gate.per_account and not accounts:
                out.line(f"{gate} is measured for each account, and none is known: run `manage.py sync_accounts` first.")
        out.json({"evidence": [as_json(each) for each in found]})
        sys.exit(0 if all(each.passes for each in found) else FAILING)


def chosen(letters: list[str]) -> list[Gate]:
    """The gates that are meant, in their order; CommandError for a letter that is none, or has nothing to measure."""
    wanted = {letter.upper() for letter in letters}
    if unknown := sorted(wanted - BY_LETTER.keys()):
        raise CommandError(f"There is no gate {', '.join(unknown)}: the gates are {', '.join(BY_LETTER)}.")
    if without := sorted(letter for letter in wanted if not BY_LETTER[letter].probe):
        raise CommandError(f"Gate {', '.join(without)} has no probe: people judge it, and sign with `manage.py sign_gate`.")
    return [gate for gate in GATES if gate.probe and (not wanted or gate.letter in wanted)]


def tell(found: Evidence, out: Output) -> None:
    subject = f"{found.gate} for {found.account}" if found.account else f"{found.gate}"
    out.line(f"{subject} {'passes' if found.passes else 'FAILS'}: evidence {found.pk}, measured in {found.seconds:.2f} s")
    for each in found.findings:
        out.line(f"  {MARKS[each['ok']]:<9} {each['sentence']}")


def as_json(found: Evidence) -> dict[str, object]:
    shown = {name: getattr(found, name) for name in ("passes", "findings", "facts", "configuration", "digest", "seconds", "measured_at")}
    account = found.account.crm_organization_id if found.account else None
    return {"gate": found.gate_id, "account": account, "evidence": found.pk} | shown
