"""The OpenAPI document and a page that shows it, for staff; everything comes from this server."""

from pathlib import Path

from csp.constants import SELF
from csp.decorators import csp_update
from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

DOCUMENT = Path(__file__).with_name("openapi.yaml")


@staff_member_required
@csp_update({"img-src": [SELF, "data:"]})  # Swagger UI's style sheet holds its icons as data: images
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "status_api/api_docs.html")


@staff_member_required
def document(request: HttpRequest) -> HttpResponse:
    """The committed document, as it is."""
    return HttpResponse(DOCUMENT.read_bytes(), content_type="application/yaml")
