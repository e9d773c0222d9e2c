"""What manage.py does around Django's own command line: embedded servers first, and sentences instead of tracebacks."""

import os
import sys
from contextlib import suppress

UNREAD = 141  # the exit code of what SIGPIPE ends
NEEDS_NO_SERVER = {"help", "--help", "-h", "--version", "version", "makemigrations", "collectstatic", "startapp", "spectacular"}


def execute(argv: list[str]) -> int:
    """Run one management command; a fault of configuration, of a server or of what was typed is one sentence on standard error, exit code 2."""
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db.utils import OperationalError, ProgrammingError

    from calm_console.embedded import EmbeddedError

    if foreign := next(filter(is_no_utf8, argv), None):
        as_bytes = foreign.encode(errors="surrogateescape").decode(errors="backslashreplace")
        return refuse(
            f"The argument '{as_bytes[:60]}' is not UTF-8: write it in UTF-8, and give a file another name where its name is meant."
        )
    try:
        if len(argv) > 1 and argv[1] not in NEEDS_NO_SERVER and "--help" not in argv:
            start_embedded()
        try:
            execute_from_command_line(argv)
        finally:
            print(end="", flush=True)  # while somebody can still say what became of it
    except (ImproperlyConfigured, EmbeddedError) as error:
        return refuse(str(error))
    except (OperationalError, ProgrammingError) as error:
        return refuse(console_fault(error))
    except KeyboardInterrupt:
        return refuse("Stopped by the keyboard; what was committed is kept, and running the command again goes on.", code=130)
    except BrokenPipeError:
        return unread()
    return 0


def unread() -> int:
    """Whoever read the output has gone, as `head` does. What Python still keeps for it goes nowhere, or its exit would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    with suppress(BrokenPipeError):
        refuse("Nobody reads the output any more, so the command stopped there; what was committed is kept.")
        sys.stderr.flush()
        return UNREAD
    os.dup2(nowhere, sys.stderr.fileno())
    return UNREAD


def is_no_utf8(argument: str) -> bool:
    """Whether it came as other bytes: Python keeps each of them as half a surrogate pair."""
    return any("\ud800" <= character <= "\udfff" for character in argument)


def start_embedded() -> None:
    """Start the servers for which no URL is set. Settings come first: they read .env, which may set one."""
    from django.conf import settings

    from calm_console import embedded

    if settings.configured or settings.DATABASE_URL:
        embedded.start(os.environ)


def refuse(sentence: str, code: int = 2) -> int:
    sys.stderr.write(sentence.strip() + "\n")
    return code


def console_fault(error: Exception) -> str:
    """The sentence for a fault of the console's own database."""
    from calm_console.faults import sentence

    return sentence("DATABASE_URL", error, schema_cure="run `manage.py migrate` with the same DATABASE_URL")
