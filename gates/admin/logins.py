"""Logins and groups: Django's own pages. Who may sign follows from them, so each change is an Event beside Django's entry, which goes with its author."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from gates.catalogue import OWNER_GROUPS
from gates.groups import STAFF_GROUPS
from gates.models import SignOff
from migration import events

FIELDS = ("username", "name", "is_active", "is_staff", "is_superuser")
MANY = ("groups", "user_permissions", "permissions")
SIGNED = (
    "The sign-offs of {}, which nobody removes. Take “Active” away from the login instead: what it signed stands, and it signs no more."
)
KNOWN = "The group {}, which the console knows by this name. Take its members or permissions away instead."

Standing = dict[str, Any]


class Recorded(admin.ModelAdmin):
    """Every change told by an Event, in the transaction that the admin keeps for the whole request."""

    noun = ""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.stood = standing(self.model._default_manager.get(pk=obj.pk)) if change else {}
        super().save_model(request, obj, form, change)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self.tell(request, "added", obj, differences({}, standing(obj)))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """After all is saved, the groups too; or a new password was, which comes by a page of its own."""
        told = (
            differences(obj.stood, standing(obj))
            if hasattr(obj, "stood")
            else ["password set" if obj.has_usable_password() else "password taken"]
        )
        if told:
            self.tell(request, "changed", obj, told)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for each in queryset:
            self.tell(request, "removed", each, differences(standing(each), {}))
        return super().log_deletions(request, queryset)

    def tell(self, request: HttpRequest, what: str, obj: Model, told: list[str]) -> None:
        events.record(f"{self.noun} {what}", f"{obj}: {'; '.join(told)}", now=timezone.now(), by=request.user.get_username())

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """With the reasons why they stay, where some do: Django's own would blame the rights of whoever asks."""
        removed, counts, lacking, protected = super().get_deleted_objects(objs, request)
        kept = self.kept(objs)
        return (removed, counts, set(), kept) if kept else (removed, counts, lacking, protected)

    def kept(self, objs: Any) -> list[str]:
        raise NotImplementedError


admin.site.unregister([User, Group])


@admin.register(User)
class LoginAdmin(Recorded, UserAdmin):
    noun = "login"

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        with transaction.atomic():
            return super().user_change_password(request, id, form_url)

    def kept(self, objs: Any) -> list[str]:
        signers = {*SignOff.objects.filter(user__in=[each.pk for each in objs]).values_list("user_id", flat=True)}
        return [SIGNED.format(each) for each in objs if each.pk in signers]


@admin.register(Group)
class OwnersAdmin(Recorded, GroupAdmin):
    noun = "group"

    def kept(self, objs: Any) -> list[str]:
        return [KNOWN.format(each) for each in objs if is_known(each)]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["name"] if is_known(obj) else []


def is_known(group: Group | None) -> bool:
    return group is not None and group.name in (*OWNER_GROUPS, *STAFF_GROUPS)


def standing(obj: Any) -> Standing:
    """What of a login or group decides what people may do, as the database has it."""
    found: Standing = {name: getattr(obj, name) for name in FIELDS if hasattr(obj, name)}
    return found | {name: {named(each) for each in getattr(obj, name).all()} for name in MANY if hasattr(obj, name)}


def named(each: Any) -> str:
    return f"{each.content_type.app_label}.{each.codename}" if isinstance(each, Permission) else str(each)


def differences(before: Standing, after: Standing) -> list[str]:
    """In words: `username ana to anna`, `groups + CDP, - viewer`, `is_active True to False`."""
    told = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if name in MANY:
            come, gone = (new or set()) - (old or set()), (old or set()) - (new or set())
            changed = [*(f"+ {each}" for each in sorted(come)), *(f"- {each}" for each in sorted(gone))]
            told += [f"{name.replace('_', ' ')} {', '.join(changed)}"] if changed else []
        elif old != new:
            told.append(f"{name.replace('_', ' ')} {'nothing' if old is None else old} to {'nothing' if new is None else new}")
    return told
