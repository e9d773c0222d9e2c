"""Addresses of the gates' own pages."""

from urllib.parse import urlencode

from django.urls import reverse

from migration.models import Account


def gate_page(letter: str, account: Account | None = None) -> str:
    """A gate's page; for one that is asked for each account without an account, the page to choose one."""
    return reverse("admin:gates_gate_change", args=[letter]) + (f"?{urlencode({'account': account.pk})}" if account else "")
