"""Who may ask the status endpoint: whoever has an IAG session. The console's own logins count nothing here."""

from hashlib import sha256

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from status_api.iag import COOKIE, Identity, Unavailable, gateway, session_of
from status_api.problems import Away


class IagSession(BaseAuthentication):
    """Reads one cookie and nothing else of the request: no other header, parameter or path can choose the account."""

    def authenticate(self, request: Request) -> tuple[Identity, None] | None:
        session = session_of(request.META.get("HTTP_COOKIE", ""))
        try:
            identity = gateway().identity(session) if session else None
        except Unavailable as error:
            raise Away("Who you are cannot be found out at the moment. Try again shortly.", error.retry_after) from error
        return (identity, None) if identity else None

    def authenticate_header(self, request: Request) -> str:
        return COOKIE


class HasSession(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.user, Identity)


class PerIdentity(SimpleRateThrottle):
    """STATUS_REQUESTS_PER_MINUTE for each user of an account, whatever number of sessions they have; counted by this process alone."""

    scope = "status"

    def get_rate(self) -> str:
        return f"{settings.STATUS_REQUESTS_PER_MINUTE}/min"

    def get_cache_key(self, request: Request, view: APIView) -> str:
        who = f"{request.user.account} {request.user.user_id}"
        return f"status-{sha256(who.encode()).hexdigest()}"


class IagSessionScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document calls it."""

    target_class = "status_api.authentication.IagSession"
    name = "iagSession"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "The browser's session at IAG."}
