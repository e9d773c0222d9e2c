"""The two questions: the customer's own status, and any account's for staff."""

import json
import re
from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils import timezone, translation
from django.utils.cache import get_conditional_response, patch_vary_headers
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotAuthenticated, NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from migration.models import Run
from migration.states import RunMode
from status_api import knowledge
from status_api.authentication import HasSession, IagSession, PerIdentity
from status_api.serializers import ProblemSerializer, StaffStatusSerializer, StatusSerializer, body, staff_body
from status_api.status import status

ALLOWED = "GET, HEAD, OPTIONS"
ACCOUNT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def header(name: str, what: str, **where: Any) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, description=what, **where)


HEADERS = [
    header("If-None-Match", "The ETag of the body that the caller has."),
    header("Accept-Language", "`en` or `id`, for the message."),
    header("ETag", "Of this body.", response=[200, 304]),
]
UNCHANGED = OpenApiResponse(description="The body is the one that If-None-Match names.")
ONLY_JSON = OpenApiResponse(ProblemSerializer, description="Accept rules JSON out, and there is nothing else.")
AWAY = OpenApiResponse(ProblemSerializer, description="Something that the answer needs is away; Retry-After says when to ask again.")


class MigrationStatus(APIView):
    authentication_classes = [IagSession]
    permission_classes = [HasSession]
    throttle_classes = [PerIdentity]

    @extend_schema(
        operation_id="migration_status",
        summary="How far the move of the session's own account is",
        parameters=[*HEADERS, header("Retry-After", "Seconds.", response=[429, 503])],
        responses={
            200: OpenApiResponse(StatusSerializer, description="The status; `stale` is there only where it is true."),
            304: UNCHANGED,
            401: OpenApiResponse(ProblemSerializer, description="There is no session."),
            406: ONLY_JSON,
            429: OpenApiResponse(ProblemSerializer, description="Asked too often."),
            503: AWAY,
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        now = timezone.now()
        known, stale = knowledge.of(request.user.account, now=now)
        if known.account is None:
            raise NotAuthenticated
        told = status(known.summary, visible=known.visible, now=now, stale=stale)
        return told_in_language(request, lambda: body(told))


class AccountMigrationStatus(APIView):
    """For staff with permission to view runs. To everybody else no account exists."""

    authentication_classes = [SessionAuthentication]
    permission_classes: list[type] = []  # whom it admits is decided in `get`, since a refusal must look like an unknown account

    @extend_schema(
        operation_id="account_migration_status",
        summary="What the customer of an account is told, for staff",
        parameters=[
            OpenApiParameter("account", OpenApiTypes.UUID, OpenApiParameter.PATH, description="The CDP's account id, in lower case."),
            *HEADERS,
            header("Retry-After", "Seconds.", response=[503]),
        ],
        responses={
            200: OpenApiResponse(StaffStatusSerializer, description="What the customer is told, the run, and the reasons."),
            304: UNCHANGED,
            404: OpenApiResponse(ProblemSerializer, description="No such account, or it is not for you."),
            406: ONLY_JSON,
            503: AWAY,
        },
    )
    def get(self, request: Request, account: str) -> HttpResponseBase:
        user = request.user
        if user is None or not (user.is_staff and user.has_perm("migration.view_run")) or not ACCOUNT_ID.fullmatch(account):
            raise NotFound
        now = timezone.now()
        known, stale = knowledge.of(UUID(account), now=now)
        if known.account is None:
            raise NotFound
        told = status(known.summary, visible=known.visible, now=now, stale=stale)
        run = Run.objects.filter(account=known.account, mode=RunMode.PRODUCTION).order_by("-id").first()
        return told_in_language(request, lambda: staff_body(told, run))


def told_in_language(request: Request, make: Callable[[], dict[str, Any]]) -> HttpResponseBase:
    """The body in the caller's language with its ETag, or 304 where the caller has it."""
    language = translation.get_language_from_request(request._request)
    with translation.override(language):
        content = make()
    etag = f'"{sha256(json.dumps(content, cls=DjangoJSONEncoder).encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Content-Language": language}
    condition: HttpResponse | None = get_conditional_response(request._request, etag=etag)
    unchanged = condition is not None and condition.status_code == 304
    return HttpResponse(status=304, headers=headers) if unchanged else Response(content, headers=headers)


def read_only(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """GET, HEAD and OPTIONS; anything else is 405, whoever asks. Nothing of the answer may be kept by anybody but the caller."""

    @wraps(view)
    def asked(request: HttpRequest, **path: str) -> HttpResponseBase:
        if request.method in ("GET", "HEAD"):
            response = view(request, **path)
        elif request.method == "OPTIONS":
            response = HttpResponse(status=204)
        else:
            response = JsonResponse({"detail": f"Only {ALLOWED} are answered here."}, status=405)
        response["Allow"] = ALLOWED
        response["Cache-Control"] = "private, no-store"
        patch_vary_headers(response, ["Accept-Language", "Cookie", "Origin"])
        return response

    return asked
