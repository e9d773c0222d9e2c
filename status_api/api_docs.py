"""The OpenAPI document and a page that shows it, for staff; everything comes from this server."""

from pathlib import Path

from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

DOCUMENT = Path(__file__).with_name("openapi.yaml")
# Swagger UI's style sheet holds its icons as data: images.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)


@staff_member_required
def page(request: HttpRequest) -> HttpResponse:
    response = render(request, "status_api/api_docs.html")
    response["Content-Security-Policy"] = f"{POLICY}; frame-ancestors 'none'"
    return response


@staff_member_required
def document(request: HttpRequest) -> HttpResponse:
    """The committed document, as it is."""
    return HttpResponse(DOCUMENT.read_bytes(), content_type="application/yaml")
