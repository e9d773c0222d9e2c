import getpass
import json
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from migration import mapping as mappings
from migration import revisions
from migration.management.output import Output


class Command(BaseCommand):
    help = "Publish a mapping revision from a JSON file. Without --yes it only shows what publishing would do."

    def add_arguments(self, parser):
        parser.add_argument("--file", required=True, type=Path, help="the mapping, as docs/mapping.md describes it")
        parser.add_argument("--yes", action="store_true", help="publish it")
        parser.add_argument("--by", default=getpass.getuser(), help="who publishes (default: your login name)")
        parser.add_argument("--note", default="", help="why")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, **options):
        document = read(options["file"])
        out = Output(self, options["json"])
        try:
            digest = mappings.digest(document)
        except mappings.MappingError as error:
            raise CommandError(f"{options['file']} is no mapping:\n{error}") from error
        last = revisions.current()
        if last and last.digest == digest:
            return say(out, f"Equal to revision {last.number}, which is current: nothing to publish.", last.number, published=False)
        if not options["yes"]:
            following = last.number + 1 if last else 1
            return say(out, f"Valid. With --yes it becomes revision {following} (digest {digest[:12]}).", following, published=False)
        published = revisions.publish(document, by=options["by"], note=options["note"], now=timezone.now())
        return say(out, f"Published as revision {published.revision.number}.", published.revision.number, published=published.is_new)


def say(out: Output, sentence: str, number: int, *, published: bool) -> None:
    out.line(sentence)
    out.json({"revision": number, "published": published, "sentence": sentence})


def read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CommandError(f"{path} is not JSON: {error}.") from error
