"""Addresses of the console's own pages, and links to them."""

from urllib.parse import urlencode

from django.db import models
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from migration.admin.display import visible


def page(record: models.Model) -> str:
    return address(type(record), record.pk)


def address(model: type[models.Model], pk: object) -> str:
    """The page of one record."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[pk])


def listing(model: type[models.Model], **filters: object) -> str:
    """The list of a model's records, filtered as the filters of filters.py are named."""
    query = f"?{urlencode(filters)}" if filters else ""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") + query


def link(address: str, text: object) -> SafeString:
    return format_html('<a href="{}">{}</a>', address, visible(text))
