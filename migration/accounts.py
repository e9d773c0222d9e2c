"""The console's copy of the CDP's accounts."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from migration.cdp import Cdp
from migration.models import Account


@dataclass
class Synced:
    total: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0


def sync(*, now: datetime) -> Synced:
    """Bring Account in line with the CDP. An account that is not there any more keeps its runs, and is marked gone."""
    with closing(Cdp()) as cdp:
        rows = cdp.accounts()
    known = {account.cdp_id: account for account in Account.objects.all()}
    found = Synced(total=len(rows))
    with transaction.atomic():
        for cdp_id, organisation, name in rows:
            account = known.pop(cdp_id, None)
            values = {"crm_organization_id": organisation, "name": name, "gone": False}
            if account is None:
                found.new += 1
            elif any(getattr(account, key) != value for key, value in values.items()):
                found.changed += 1
            Account.objects.update_or_create(cdp_id=cdp_id, defaults=values | {"synced_at": now})
        found.gone = Account.objects.filter(pk__in=[a.pk for a in known.values()], gone=False).update(gone=True, synced_at=now)
    return found
