"""Everything that was measured and decided of a gate, newest first, in pages."""

from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import F, QuerySet, Window
from django.db.models.functions import Lag
from django.http import HttpRequest

from gates.catalogue import Gate as Rule
from gates.models import Evidence, SignOff
from migration.models import Account

ON_A_PAGE = 20


def of(rule: Rule, account: Account | None, request: HttpRequest) -> dict[str, Page]:
    measured = with_previous(Evidence.objects.filter(gate=rule.letter, account=account))
    decided = SignOff.objects.filter(gate=rule.letter, account=account)
    return {
        "evidence": Paginator(measured, ON_A_PAGE).get_page(page_number(request, "evidence_page")),
        "decisions": Paginator(decided, ON_A_PAGE).get_page(page_number(request, "decision_page")),
    }


def with_previous(measured: QuerySet[Evidence]) -> Any:
    """Evidence with `previous`, the digest of what was measured before it for the same gate and account; without the long facts."""
    before = Window(Lag("digest"), partition_by=[F("gate"), F("account")], order_by="id")
    return measured.defer("facts", "configuration").annotate(previous=before)


def page_number(request: HttpRequest, name: str) -> str:
    """A page of the address, as far as it is a number that a paginator can take."""
    text = request.GET.get(name, "")
    return text if text.isascii() and text.isdecimal() and len(text) < 10 else "1"
