"""What manage.py does around Django's own command line: embedded servers first, and sentences instead of tracebacks."""

import errno
import os
import sys

UNREAD = 141  # the exit code of what SIGPIPE ends
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NEEDS_NO_SERVER = {"help", "--help", "-h", "--version", "version", "makemigrations", "collectstatic", "startapp", "spectacular"}


def execute(argv: list[str]) -> int:
    """Run one management command; a fault of configuration, of a server or of what was typed is one sentence on standard error, exit code 2."""
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db.utils import Error, ProgrammingError

    from calm_console.embedded import EmbeddedError
    from calm_console.faults import is_away

    replace_closed_streams()
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
    except Error as error:
        if not (isinstance(error, ProgrammingError) or is_away(error)):
            raise
        return refuse(console_fault(error))
    except KeyboardInterrupt:
        return refuse("Stopped by the keyboard; what was committed is kept, and running the command again goes on.", code=130)
    except OSError as error:
        return unwritten(error)
    return 0


def replace_closed_streams() -> None:
    """Where a stream was closed (`>&-`) Python has none, and what writes to it would break: what is said there goes nowhere."""
    for name, how in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), how))


def unwritten(error: OSError) -> int:
    """Whoever read the output has gone, as `head` does, or what it goes to is full; any other error is raised.

    What Python still keeps for it goes nowhere, or its exit would fail once more.
    """
    is_unread = isinstance(error, BrokenPipeError)
    if not is_unread and error.errno not in FULL:
        raise error
    why = "Nobody reads the output any more" if is_unread else f"The output cannot be written ({error.strerror})"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    try:
        refuse(f"{why}, so the command stopped there; what was committed is kept.")
        sys.stderr.flush()
    except OSError:
        os.dup2(nowhere, sys.stderr.fileno())
    return UNREAD if is_unread else 1


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
