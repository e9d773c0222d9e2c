"""Where a probe would measure, as the sign-off shows it: never a password."""

from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from migration.doors import Misconfigured
from migration.worlds import address


def database(variable: str) -> str:
    """`host:port/database as user` of a database URL's variable. Raises Misconfigured where it cannot be read."""
    return described(variable, getattr(settings, variable))


@lru_cache(maxsize=16)  # the readiness board asks once for each account
def described(variable: str, url: str) -> str:
    return f"{address(variable)} as {conninfo_to_dict(url).get('user') or 'the default user'}"


def service(variable: str) -> str:
    """Scheme, host, port and path of a service's URL. Raises Misconfigured where it is not set or cannot be read."""
    url = getattr(settings, variable)
    if not url:
        raise Misconfigured(f"{variable} is not set: set it to the service's base URL, for example http://usman.internal:8080.")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Misconfigured(f"{variable} cannot be read as a URL: write http://host:port or https://host:port.") from error
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
