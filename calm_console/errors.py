"""What is answered to a request that broke: 500, or 503 where the console's own database did not answer or takes no writes, so that trying again may help."""

import sys

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views import defaults

from calm_console.faults import is_away

RETRY_AFTER = 30  # seconds


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500; it calls this while it handles the exception."""
    if is_away(sys.exc_info()[1]):
        return HttpResponse(render_to_string("503.html"), status=503, headers={"Retry-After": str(RETRY_AFTER)})
    return defaults.server_error(request)
