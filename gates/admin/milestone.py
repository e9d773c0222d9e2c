from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db import models
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils import timezone

from gates.models import Milestone
from migration import events
from migration.admin.records import RecordAdmin


@admin.register(Milestone)
class MilestoneAdmin(RecordAdmin):
    """The delivery plan: targets get their days, and work is done. A status that follows from gates and runs is in nobody's hands."""

    plural = "Milestones"
    change_form_template = "admin/change_form.html"  # Django's own, with fields: the console's pages of records only show
    list_display = ("name", "effort", "confidence", "target", "status")
    fields = ("name", "effort", "confidence", "target", "status")
    formfield_overrides = {models.TextField: {"widget": AdminTextInputWidget}}

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return bool(request.user.has_perm("gates.change_milestone"))

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        return ["name", "status"] if isinstance(obj, Milestone) and obj.follows else ["name"]

    def save_model(self, request: HttpRequest, obj: Milestone, form: ModelForm, change: bool) -> None:
        """Saved with an Event, in the transaction that the admin keeps for the whole request."""
        super().save_model(request, obj, form, change)
        before, after = form.initial, form.cleaned_data
        if told := "; ".join(f"{name} {before.get(name) or 'nothing'} to {after[name] or 'nothing'}" for name in form.changed_data):
            events.record("milestone changed", f"{obj}: {told}", now=timezone.now(), by=request.user.get_username())
