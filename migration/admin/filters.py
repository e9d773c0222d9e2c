"""Filters of the lists. They ask for what is there by indexes only, so a long table does not slow its own list down."""

from enum import StrEnum
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest

from migration.admin.display import words
from migration.admin.records import whole
from migration.models import Account, Run

MOST_RUNS = 20
MOST_ACCOUNTS = 50


def one_of(name: str, values: type[StrEnum]) -> type[admin.SimpleListFilter]:
    """A filter on the column `name` for the values of an enumeration."""

    class OneOf(admin.SimpleListFilter):
        title = words(name)
        parameter_name = name

        def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
            return [(value.value, words(value)) for value in values if value]

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            return queryset.filter(**{name: self.value()}) if self.value() else queryset

    return OneOf


class ByNumber(admin.SimpleListFilter):
    """By the key of a related record; one that is not among the choices is asked for in the address, as the links of other pages do."""

    path = ""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        if not (value.isascii() and value.isdecimal()):
            raise IncorrectLookupParameters(f"{self.parameter_name} must be a number")
        number = whole(value)
        return queryset.none() if number is None else queryset.filter(**{self.path: number})


class ByRun(ByNumber):
    """The latest runs."""

    title = parameter_name = "run"
    path = "run"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(str(run.pk), str(run)) for run in Run.objects.select_related("account")[:MOST_RUNS]]


class ByAccount(ByNumber):
    """The first accounts by organisation id; search finds the others."""

    title = parameter_name = "account"
    path = "account"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(str(account.pk), str(account)) for account in Account.objects.all()[:MOST_ACCOUNTS]]


class ByAccountOfRun(ByAccount):
    path = "run__account"
