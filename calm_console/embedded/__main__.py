"""`python -m calm_console.embedded urls | start | stop | status | clean`."""

import argparse
import os
import shlex
import sys

from calm_console import embedded
from calm_console.commandline import replace_closed_streams, unwritten
from calm_console.embedded.state import SERVERS


def main() -> int:
    """Do the one thing asked for; exit code 2 with a sentence on standard error where a server cannot serve."""
    parser = argparse.ArgumentParser(prog="python -m calm_console.embedded", description="The embedded PostgreSQL, Redis and stand-ins.")
    parser.add_argument("command", choices=sorted(COMMANDS), help="urls prints NAME=value lines; clean stops and removes all data")
    replace_closed_streams()
    try:
        COMMANDS[parser.parse_args().command]()
        sys.stdout.flush()
    except embedded.EmbeddedError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        return unwritten(error)
    return 0


def urls() -> None:
    for name, value in embedded.environment(os.environ).items():
        _say(f"{name}={shlex.quote(value)}")


def start() -> None:
    embedded.start(os.environ)
    status()


def stop() -> None:
    stopped = embedded.stop()
    _say(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


def clean() -> None:
    for path in embedded.clean():
        _say(f"Removed {path}")


def status() -> None:
    found = embedded.running()
    for name in SERVERS:
        _say(f"{name}: process {found[name]['pid']}, port {found[name]['port']}" if name in found else f"{name}: not running")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


COMMANDS = {"urls": urls, "start": start, "stop": stop, "status": status, "clean": clean}

if __name__ == "__main__":
    sys.exit(main())
