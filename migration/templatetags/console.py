"""What the console's templates use: migration/admin/display.py as filters, the order of the navigation, and the first page's figures."""

from typing import Any

from django import template

from migration.admin import display, overview

register = template.Library()

for shown in (display.visible, display.visible_text, display.words, display.number, display.moment, display.duration, display.pill):
    register.filter(shown.__name__, shown)
register.simple_tag(display.progress_bar)

ORDER = (
    "Account",
    "Run",
    "Batch",
    "Chunk",
    "ReadBudget",
    "QuarantinedCandidate",
    "NameCollision",
    "StaleRow",
    "Event",
    "Notification",
    "MappingDraft",
    "MappingRevision",
    "LinkIndex",
    "LinkOddity",
    "Gate",
    "SignOff",
    "Evidence",
)
NAMES = {"ReadBudget": "Read budget", "QuarantinedCandidate": "Quarantine", "Gate": "Readiness"}


@register.filter
def navigation(apps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Django's list of apps in the order in which staff think of them: logins last, our nouns as ORDER has them, under the names they use."""
    ordered = sorted(apps, key=lambda app: app["app_label"] == "auth")
    return [app | {"models": sorted(map(named, app["models"]), key=place)} for app in ordered]


def named(model: dict[str, Any]) -> dict[str, Any]:
    return model | {"name": NAMES.get(model["object_name"], model["name"])}


def place(model: dict[str, Any]) -> int:
    return ORDER.index(model["object_name"]) if model["object_name"] in ORDER else len(ORDER)


@register.simple_tag(takes_context=True)
def state_of_things(context: template.Context) -> overview.Overview:
    """What the first page tells, as far as the user may see it."""
    return overview.of(context["user"])
