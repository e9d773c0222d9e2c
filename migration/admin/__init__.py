"""The console for staff. One file per noun; run_report.py is what a run's page tells, overview.py what the first page does."""

from django.contrib import admin

from migration.admin import (
    account,
    batch,
    chunk,
    event,
    link_index,
    login_form,
    mapping_draft,
    mapping_revision,
    name_collision,
    notification,
    quarantine,
    read_budget,
    run,
    stale_row,
)

__all__ = [
    "account",
    "batch",
    "chunk",
    "event",
    "link_index",
    "login_form",
    "mapping_draft",
    "mapping_revision",
    "name_collision",
    "notification",
    "quarantine",
    "read_budget",
    "run",
    "stale_row",
]

admin.site.login_form = login_form.LoginForm
admin.site.site_header = "CALM console"
admin.site.site_title = "CALM console"
admin.site.index_title = "Overview"
admin.site.site_url = None  # there is no other site to view
