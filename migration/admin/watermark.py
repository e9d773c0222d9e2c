"""The watermarks on an account's page: those of its last run, those set by hand, and the form to set one."""

from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest

from migration.admin import links
from migration.admin.work import note_of
from migration.models import Account, Run, SetWatermark
from migration.runs import Refused
from migration.watermark import ENTITIES

PERMISSION = "migration.add_setwatermark"
MOST_SET = 50


def of(account: Account, request: HttpRequest) -> dict[str, Any]:
    """What the account's page shows of them: by entity the last run's, and what is set by hand for the next."""
    last = Run.objects.filter(account=account, watermark__isnull=False).first()
    history = list(SetWatermark.objects.filter(account=account)[:MOST_SET])
    by_hand = {each.entity: each for each in SetWatermark.objects.filter(account=account).order_by("id")}
    rows = [
        {"entity": entity, "last": (last.watermark or {}).get(entity) if last else None, "set": by_hand.get(entity)} for entity in ENTITIES
    ]
    return {
        "rows": rows,
        "run": last,
        "run_url": links.page(last) if last else "",
        "history": history,
        "entities": ENTITIES,
        "may_set": request.user.has_perm(PERMISSION),
        "typed": {name: request.POST.get(name, "") for name in ("entity", "how", "moment", "note")},
    }


def read(request: HttpRequest) -> tuple[str, datetime | None, str]:
    """Entity, moment (None: back to the live rows) and note of the form. Raises Refused."""
    entity, how, text = (request.POST.get(name, "").strip() for name in ("entity", "how", "moment"))
    note = note_of(request)
    if how == "live":
        return entity, None, note
    if how != "hand":
        raise Refused("Choose whether to set a moment or to go back to the live rows.")
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused("The moment must be a date and a time in UTC, such as 2024-05-01T12:00:00.") from None
    return entity, moment, note
