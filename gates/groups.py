"""What the seeded groups may see: everything that is ours, also what a later schema migration adds."""

from typing import Any

from gates.catalogue import OWNER_GROUPS

STAFF_GROUPS = ("viewer", "mapper", "operator")


def let_see(using: str = "default", **_: Any) -> None:
    """Give the seeded groups the permission to view every model of ours; run after each `migrate`, adds what is missing, takes nothing."""
    from django.contrib.auth.models import Group, Permission  # here, since Django's apps are not there yet when this is imported

    views = Permission.objects.using(using).filter(content_type__app_label__in=("migration", "gates"), codename__startswith="view_")
    groups = Group.objects.using(using).filter(name__in=(*OWNER_GROUPS, *STAFF_GROUPS)).values_list("pk", flat=True)
    link = Group.permissions.through
    wanted = [link(group_id=group, permission_id=view) for group in groups for view in views.values_list("pk", flat=True)]
    link._default_manager.using(using).bulk_create(wanted, ignore_conflicts=True)
