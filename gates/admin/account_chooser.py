"""For a gate that is asked for each account: the accounts, searched and in pages, each with how the gate stands."""

from datetime import datetime
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest

from gates import standing
from gates.admin.history import page_number
from gates.catalogue import Gate as Rule
from migration.admin.records import whole
from migration.models import Account

ON_A_PAGE = 50


def of(rule: Rule, request: HttpRequest, *, now: datetime) -> dict[str, Any]:
    """One page of accounts as standings, by organisation; `q` of the address narrows them down."""
    words = request.GET.get("q", "").replace("\0", "").strip()
    page = Paginator(found(words), ON_A_PAGE).get_page(page_number(request, "page"))
    accounts = list(page.object_list)
    return {"q": words, "page": page, "standings": standing.of_all([rule], accounts, now=now) if accounts else []}


def found(words: str) -> Any:
    accounts = Account.objects.all()
    for word in words.split():
        named = Q(name__icontains=word)
        if (number := whole(word)) is not None:
            named |= Q(crm_organization_id=number)
        accounts = accounts.filter(named)
    return accounts
