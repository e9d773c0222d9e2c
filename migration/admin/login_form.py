from typing import Any

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone

from migration import logins


class LoginForm(AdminAuthenticationForm):
    """The admin's own, which looks at no password where too many were wrong."""

    def clean(self) -> dict[str, Any]:
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not (username and password):
            return dict(super().clean() or {})
        address = address_of(self.request)
        try:
            attempt = logins.begin(username, address, now=timezone.now())
            cleaned = super().clean()
        except logins.TooMany as error:
            raise ValidationError(str(error), code="too_many") from error
        except ValidationError:
            logins.failed(username, address)
            raise
        logins.succeeded(attempt)
        return dict(cleaned or {})


def address_of(request: HttpRequest | None) -> str:
    return logins.address_of(request.META if request else {}, settings.PROXIES)
