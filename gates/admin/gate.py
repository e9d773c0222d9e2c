from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern
from django.utils import timezone

from gates import board, standing, validity
from gates.admin import account_chooser, deciding, exhibits, history, measuring
from gates.admin.addresses import gate_page
from gates.catalogue import BY_LETTER
from gates.catalogue import Gate as Rule
from gates.models import Gate
from gates.policies import CannotDecide
from migration.admin.display import visible_text
from migration.admin.work import NOT_SENT, WorkAdmin, note_of
from migration.models import Account

MEASURE = "gates.add_evidence"
SET_DAYS = "gates.change_gate"  # in no group: it is for who looks after the console


@admin.register(Gate)
class GateAdmin(WorkAdmin):
    """The list is the readiness board; a gate's page shows its evidence, its history, and the form to decide."""

    plural = "Readiness"
    may = "gates.add_signoff"

    def get_urls(self) -> list[URLPattern]:
        return [
            self.work_url("<str:letter>/decide/", self.decide, "decide"),
            self.work_url("<str:letter>/measure/", self.measure, "measure"),
            self.work_url("<str:letter>/days/", self.set_days, "days"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self.check_may_view(request)
        return self.page(request, "gate/board.html", self.plural, board=board.of(request.user, now=timezone.now()))

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict | None = None) -> HttpResponse:
        self.check_may_view(request)
        rule = rule_of(object_id)
        account = account_of(rule, request.GET.get("account", ""))
        if rule.per_account and account is None:
            return self.page(
                request, "gate/accounts.html", title_of(rule), rule=rule, **account_chooser.of(rule, request, now=timezone.now())
            )
        return self.gate_page(request, rule, account)

    def decide(self, request: HttpRequest, letter: str) -> HttpResponse:
        """Sign, reject or withdraw; a refusal is shown on the gate's page, with the note kept."""
        rule = rule_of(letter)
        if request.method != "POST":
            return self.not_sent(request, rule)
        self.check_may(request)
        account = sent_account(rule, request)
        try:
            said = deciding.decide(deciding.sent(rule, account, request), now=timezone.now())
        except CannotDecide as error:
            return self.gate_page(request, rule, account, problem=str(error))
        return self.back_to_gate(request, rule, account, said)

    def measure(self, request: HttpRequest, letter: str) -> HttpResponse:
        """Have the gate's probe measure now."""
        rule = rule_of(letter)
        if request.method != "POST":
            return self.not_sent(request, rule)
        self.check_may(request, MEASURE)
        account = sent_account(rule, request)
        if not rule.probe:
            raise Http404
        said, level = measuring.measure(rule, account, by=request.user.get_username(), now=timezone.now())
        return self.back_to_gate(request, rule, account, said, level)

    def set_days(self, request: HttpRequest, letter: str) -> HttpResponse:
        """For how many days the gate's sign-offs stand."""
        rule = rule_of(letter)
        if request.method != "POST":
            return self.not_sent(request, rule)
        self.check_may(request, SET_DAYS)
        account, by = account_of(rule, request.POST.get("account", "")), request.user.get_username()
        try:
            said = validity.set_days(rule.letter, request.POST.get("days", "").strip(), by=by, note=note_of(request), now=timezone.now())
        except CannotDecide as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect(gate_page(rule.letter, account))
        return self.back_to_gate(request, rule, account, said)

    # --- what they share --------------------------------------------------------------------------------------------

    def gate_page(self, request: HttpRequest, rule: Rule, account: Account | None, problem: str = "") -> HttpResponse:
        now = timezone.now()
        shown = standing.of(rule.letter, account, now=now)
        context: dict[str, Any] = {"rule": rule, "account": account, "shown": shown, "members": members(rule), "now": now}
        context |= {
            "keep": f"account={account.pk}&" if account else "",
            "expires": board.expiry(shown),
            "exhibit": exhibits.of(shown.evidence) if shown.evidence else None,
        }
        context |= {"form": deciding.form(shown, request) if self.may_work(request) else None}
        context |= {"may_set_days": self.may_work(request, SET_DAYS)}
        context |= {"may_measure": bool(rule.probe) and self.may_work(request, MEASURE), "history": history.of(rule, account, request)}
        return self.page(request, "gate/gate.html", title_of(rule), problem=problem, note=note_of(request), **context)

    def not_sent(self, request: HttpRequest, rule: Rule) -> HttpResponse:
        """After a login in between, which keeps the address of an act and loses its form."""
        return self.back_to_gate(request, rule, None, NOT_SENT, messages.WARNING)

    def back_to_gate(
        self, request: HttpRequest, rule: Rule, account: Account | None, said: str, level: int = messages.SUCCESS
    ) -> HttpResponse:
        self.message_user(request, visible_text(said), level)
        return redirect(gate_page(rule.letter, account))

    def check_may_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def rule_of(letter: str) -> Rule:
    if letter not in BY_LETTER:
        raise Http404
    return BY_LETTER[letter]


def account_of(rule: Rule, key: str) -> Account | None:
    """The account that the address or the form names; None for a global gate, and where none is named."""
    if not rule.per_account or not key:
        return None
    if not (key.isascii() and key.isdecimal() and len(key) < 19):
        raise Http404
    return get_object_or_404(Account, pk=int(key))


def sent_account(rule: Rule, request: HttpRequest) -> Account | None:
    """The form's account; a form without one, where the gate needs one, is none of ours."""
    account = account_of(rule, request.POST.get("account", ""))
    if rule.per_account and account is None:
        raise Http404
    return account


def title_of(rule: Rule) -> str:
    return f"{rule}: {rule.title}"


def members(rule: Rule) -> list[tuple[str, list[str]]]:
    """Each owner group with its active members' names."""
    found = board.members()
    return [(group, found[group]) for group in rule.owners]
