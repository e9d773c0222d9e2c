"""The USMAN and IAG stand-ins as daemons (what they do is in calm_console/demo/stand_ins.py)."""

import sys
from functools import partial
from http.client import HTTPConnection, HTTPException

from calm_console.embedded.process import Server
from calm_console.embedded.state import Home, State


def server(home: Home, state: State, name: str) -> Server:
    """The stand-in `name`, "usman" or "iag"."""
    port = state.ports[name]
    arguments = ["-m", "calm_console.demo.stand_ins", name, "--port", str(port)]
    return Server(name, home.path, port, (" ".join(arguments),), lambda: [sys.executable, *arguments], partial(_answers, port))


def url(state: State, name: str) -> str:
    return f"http://127.0.0.1:{state.ports[name]}"


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        response.read()
        return response.status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
