"""What an error looks like from outside: a status and one sentence, nothing of what lies inside."""

import logging
from typing import Any

from django.db import InterfaceError, OperationalError
from rest_framework.exceptions import APIException
from rest_framework.response import Response
from rest_framework.views import exception_handler

log = logging.getLogger(__name__)
RETRY_AFTER = 5


class Away(APIException):
    """Something that the answer needs is away; `wait` becomes Retry-After, in seconds."""

    status_code = 503

    def __init__(self, sentence: str, wait: int = RETRY_AFTER) -> None:
        super().__init__(sentence)
        self.wait = wait


def answer(error: Exception, context: dict[str, Any]) -> Response:
    """The response to an error that a view raised; what nobody foresaw goes to the log and is a bare 500."""
    if isinstance(error, OperationalError | InterfaceError):
        log.warning("DATABASE_URL: the console's database does not answer (%s)", type(error).__name__)
        error = Away("The figures cannot be read at the moment. Try again shortly.")
    found: Response | None = exception_handler(error, context)
    if found is None:
        log.error("an error while answering %s", context["request"].path, exc_info=error)
        return Response({"detail": "Something went wrong here."}, status=500)
    return found
