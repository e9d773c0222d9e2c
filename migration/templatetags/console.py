"""What the console's templates use: migration/admin/display.py as filters, the order of the navigation, and the first page's figures."""

from typing import Any

from django import template

from migration.admin import display, overview

register = template.Library()

for shown in (display.visible, display.visible_text, display.words, display.number, display.moment, display.duration, display.pill):
    register.filter(shown.__name__, shown)
register.simple_tag(display.progress_bar)

ORDER = ("Account", "Run", "Chunk", "QuarantinedCandidate", "Event", "MappingRevision")
NAMES = {"QuarantinedCandidate": "Quarantine"}


@register.filter
def navigation(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An app's models in the order in which staff think of them, under the names that they use."""
    rank = {name: place for place, name in enumerate(ORDER)}
    named = [model | {"name": NAMES.get(model["object_name"], model["name"])} for model in models]
    return sorted(named, key=lambda model: rank.get(model["object_name"], len(rank)))


@register.simple_tag(takes_context=True)
def state_of_things(context: template.Context) -> overview.Overview:
    """What the first page tells, as far as the user may see it."""
    return overview.of(context["user"])
