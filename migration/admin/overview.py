"""The first page: how many accounts, runs by state, what is being worked on, what is quarantined, what happened last."""

from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Count, Exists, OuterRef, QuerySet, Subquery

from migration.admin import links
from migration.admin.queries import with_progress
from migration.models import Account, Event, QuarantinedCandidate, Run
from migration.states import ACTIVE, COMPLETE, RunMode, RunState

MOST_ACTIVE = 10
MOST_EVENTS = 8


@dataclass
class Overview:
    """Figures for one user: None, or empty, where the user may not see the records."""

    accounts: dict[str, Any] | None = None
    runs: dict[str, Any] | None = None
    quarantine: dict[str, Any] | None = None
    events: dict[str, Any] | None = None


def of(user: Any) -> Overview:
    def may_see(model: str) -> bool:
        return user.has_perm(f"migration.view_{model}")

    return Overview(
        accounts() if may_see("account") else None,
        runs() if may_see("run") else None,
        quarantine() if may_see("quarantinedcandidate") else None,
        events() if may_see("event") else None,
    )
