"""What the pages of all records share: they show and never change, lists stay cheap, search is exact for numbers."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Page, Paginator
from django.db import models
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import capfirst

from migration.admin.display import visible_text

BIGINT = 2**63 - 1


def whole(text: str) -> int | None:
    """The whole number that is written there, as far as a column can hold it. (Python itself reads 4,300 digits, and raises from there on.)"""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    return number if number is not None and number <= BIGINT else None


class ByKeys(Paginator):
    """Finds a page's keys first: what is joined, or reckoned for each row, would be so for all rows before the page too."""

    object_list: models.QuerySet[Any]

    def page(self, number: int | str) -> Page:
        found: Any = super().page(number)
        keys = list(found.object_list.values_list("pk", flat=True))
        return Page(self.object_list.filter(pk__in=keys), found.number, self)


class RecordAdmin(admin.ModelAdmin):
    """A table that only the console's own functions write. `search_fields` are searched for text, `number_fields` for whole numbers."""

    plural = ""
    number_fields: tuple[str, ...] = ()
    actions: tuple[str, ...] | None = None
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # counting every choice of every filter reads the whole table
    list_per_page = 50
    paginator = ByKeys

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        return flatten_fieldsets(self.get_fieldsets(request, obj))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """No text of the database holds the null character: asking for one would be an error there, not an empty list."""
        if "\0" in value:
            raise IncorrectLookupParameters(f"{lookup} holds a null character")
        return super().lookup_allowed(lookup, value, request)

    def get_search_results(self, request: HttpRequest, queryset: models.QuerySet, search_term: str) -> tuple[models.QuerySet, bool]:
        """Rows in which each word is found: a whole number as a number, any word within a text."""
        for word in search_term.split():
            found = Q.create([(f"{field}__icontains", word) for field in self.search_fields], connector=Q.OR)
            if (number := whole(word)) is not None:
                found |= self.numbered(number)
            queryset = queryset.filter(found)
        return queryset, False

    def numbered(self, number: int) -> Q:
        """Where a number that is searched for may stand."""
        return Q.create([(field, number) for field in self.number_fields], connector=Q.OR)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Filters as a bar above the list, so that they leave it the width."""
        changes = super().get_changelist_instance(request)
        for spec in changes.filter_specs:
            spec.template = "admin/migration/filter.html"
        return changes

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": self.plural, "plural": self.plural} | (extra_context or {}))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        title = capfirst(visible_text(context["original"]))
        return super().render_change_form(request, context | {"title": title, "subtitle": None, "plural": self.plural}, *args, **kwargs)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Nothing is changed here, so Django's own history would be empty: the events have it."""
        return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", object_id)
