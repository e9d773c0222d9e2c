"""Filters of the lists of evidence and sign-offs, beside those of the migration's lists."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from gates.catalogue import GATES


class ByGate(admin.SimpleListFilter):
    title = parameter_name = "gate"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(gate.letter, f"{gate.letter}: {gate.title}") for gate in GATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(gate=self.value()) if self.value() else queryset


class ByVerdict(admin.SimpleListFilter):
    title = parameter_name = "verdict"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("passes", "passes"), ("fails", "fails")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(passes=self.value() == "passes") if self.value() in ("passes", "fails") else queryset
