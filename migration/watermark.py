"""SyncWatermarkResolver: up to when each entity's history is ours to move, and from when on the live sync has it."""

from datetime import datetime, timedelta

from migration.cdp import Cdp
from migration.models import Account, SetWatermark

ENTITIES = ("contact", "deal", "task", "ticket", "note")


def resolve(cdp: Cdp, account: Account, *, now: datetime, safety_lag: timedelta) -> dict[str, datetime]:
    """Entity -> watermark (UTC): what staff set by hand, else the account's earliest live row of that entity, else `now` less the safety lag."""
    live = cdp.live_since(account.cdp_id)
    by_hand = {each.entity: each.moment for each in SetWatermark.objects.filter(account=account).order_by("id")}
    return {entity: by_hand.get(entity) or live.get(entity, now - safety_lag) for entity in ENTITIES}


def as_json(watermark: dict[str, datetime]) -> dict[str, str]:
    return {entity: moment.isoformat() for entity, moment in watermark.items()}


def from_json(plain: dict[str, str]) -> dict[str, datetime]:
    return {entity: datetime.fromisoformat(moment) for entity, moment in plain.items()}
