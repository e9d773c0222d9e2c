"""What browsers are told about every page of ours. docs/security.md says which threat each header answers."""

from collections.abc import Callable
from typing import Any

from csp.constants import NONE, SELF
from django.http import HttpRequest, HttpResponse

LOCAL_HOSTS = {"localhost", ".localhost", "127.0.0.1", "[::1]"}
YEAR = 365 * 24 * 3600  # seconds
# Everything comes from this server; an exception stands at its view (csp_update), never here.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}
# Features that a page could ask a browser for; ours ask for none, and nothing that slipped into one may.
FEATURES = (
    "accelerometer",
    "autoplay",
    "camera",
    "display-capture",
    "encrypted-media",
    "fullscreen",
    "geolocation",
    "gyroscope",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "picture-in-picture",
    "publickey-credentials-get",
    "screen-wake-lock",
    "usb",
    "xr-spatial-tracking",
)
PERMISSIONS_POLICY = ", ".join(f"{feature}=()" for feature in FEATURES)


def settings(behind_tls: bool) -> dict[str, Any]:
    """Django's settings for headers and cookies; `behind_tls`: a proxy ends TLS before the console, and says so in X-Forwarded-Proto."""
    return {
        "CONTENT_SECURITY_POLICY": CONTENT_SECURITY_POLICY,
        "SECURE_CONTENT_TYPE_NOSNIFF": True,
        "SECURE_REFERRER_POLICY": "same-origin",
        "SECURE_CROSS_ORIGIN_OPENER_POLICY": "same-origin",
        "X_FRAME_OPTIONS": "DENY",
        "SESSION_COOKIE_AGE": 12 * 3600,  # seconds: a working day
        **dict.fromkeys(("SESSION_COOKIE_HTTPONLY", "CSRF_COOKIE_HTTPONLY"), True),
        **dict.fromkeys(("SESSION_COOKIE_SAMESITE", "CSRF_COOKIE_SAMESITE"), "Lax"),
        **dict.fromkeys(("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT"), behind_tls),
        "SECURE_REDIRECT_EXEMPT": [r"^healthz$", r"^readyz$", r"^metrics$"],  # asked from within, past the proxy
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https") if behind_tls else None,
        "SECURE_HSTS_SECONDS": YEAR if behind_tls else 0,
        # HSTS for other hosts of the domain, and for the lists in browsers: that is the domain's owner to say, not the console.
        "SILENCED_SYSTEM_CHECKS": ["security.W005", "security.W021"],
    }


def permissions_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware that sends Permissions-Policy with every answer; Django has no setting for it."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        return response

    return answer
