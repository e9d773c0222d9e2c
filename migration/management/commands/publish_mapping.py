import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from migration import effects, revisions
from migration import mapping as mappings
from migration.doors import Misconfigured, Outage
from migration.management.output import Output, refusals_as_sentences, who
from migration.models import Account
from migration.runs import Refused

LONGEST_LOGIN = 150  # as Django's own


class Command(BaseCommand):
    help = "Publish a mapping revision from a JSON file. Without --yes it only shows what publishing would do."

    def add_arguments(self, parser):
        parser.add_argument("--file", required=True, type=Path, help="the mapping, as docs/mapping.md describes it")
        parser.add_argument("--yes", action="store_true", help="publish it")
        parser.add_argument("--by", type=login, default=who(), help="who publishes (default: your login name)")
        parser.add_argument("--note", default="", help="why")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        document = read(options["file"])
        out = Output(self, options["json"])
        try:
            digest = mappings.digest_of_new(document)
        except mappings.MappingError as error:
            raise CommandError(f"{options['file']} is no mapping:\n{error}") from error
        last = revisions.current()
        report: dict[str, Any] = {"revision": last.number if last else 0, "published": False, "effect": None}
        if last and last.digest == digest:
            return say(out, f"Equal to revision {last.number}, which is current: nothing to publish.", report)
        if options["yes"]:
            published = revisions.publish(document, by=options["by"], note=options["note"], now=timezone.now())
            return say(
                out,
                f"Published as revision {published.revision.number}.",
                report | {"revision": published.revision.number, "published": True},
            )
        report |= {"revision": report["revision"] + 1, "effect": effect(document, out)}
        return say(out, f"Valid. With --yes it becomes revision {report['revision']}.", report)


def effect(document: object, out: Output) -> list[dict[str, object]] | None:
    """What publishing would change, account by account; None where nothing can be counted, with the reason said."""
    counted = []
    try:
        for found in effects.count(document, Account.objects.filter(gone=False), now=timezone.now(), pulse=lambda: None):
            counted.append(found.as_json())
            moves = ", ".join(f"{move} {number:,}" for move, number in found.categories.most_common(8))
            out.line(
                f"  organisation {found.organisation}: {found.changed:,} activities would change, {found.added:,} come, {found.removed:,} go;"
                f" {found.loaded:,} of these are loaded already" + (f" ({moves})" if moves else "")
            )
    except (Outage, Misconfigured, Refused) as error:
        out.line(f"  The effect is not counted: {error}")
        return None
    return counted


def say(out: Output, sentence: str, report: dict[str, object]) -> None:
    out.line(sentence)
    out.json(report | {"sentence": sentence})


def login(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("it must say who publishes")
    if len(text) > LONGEST_LOGIN:
        raise ArgumentTypeError(f"a login name may have {LONGEST_LOGIN} characters; this one has {len(text)}")
    return text


def read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path} is not JSON: {error}.") from error
