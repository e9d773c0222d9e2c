"""What the templates use of the gates: gates/admin/display.py as filters, addresses, and the readiness board for the first page."""

from django import template
from django.utils import timezone

from gates import board as readiness
from gates.admin import addresses, display

register = template.Library()
register.simple_tag(addresses.gate_page)
for shown in (display.state_pill, display.verdict_pill, display.open_pill, display.toned, display.ago, display.short):
    register.filter(shown.__name__, shown)


@register.simple_tag(takes_context=True)
def board(context: template.Context) -> readiness.Board:
    """What the board tells the user of the page."""
    return readiness.of(context["user"], now=timezone.now())
