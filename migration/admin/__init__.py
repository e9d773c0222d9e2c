"""The console for staff. One file per noun; run_report.py is what a run's page tells, overview.py what the first page does."""

from django.contrib import admin

from migration.admin import account, chunk, event, mapping_revision, quarantine, run

__all__ = ["account", "chunk", "event", "mapping_revision", "quarantine", "run"]

admin.site.site_header = "CALM console"
admin.site.site_title = "CALM console"
admin.site.index_title = "Overview"
admin.site.site_url = None  # there is no other site to view
