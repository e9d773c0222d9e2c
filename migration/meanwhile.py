"""Two servers asked at once: one question in a thread of its own, while this thread asks the other."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Meanwhile(Generic[Answer]):
    """Begins to ask at once. Whoever does not fetch the result leaves the thread to end by itself, at the latest when its session is closed."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._found: list[Answer] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(ask,), name="meanwhile", daemon=True)
        self._thread.start()

    def _run(self, ask: Callable[[], Answer]) -> None:
        try:
            self._found.append(ask())
        except BaseException as error:  # noqa: BLE001 - `result` raises it where it belongs
            self._error = error

    def result(self) -> Answer:
        """The answer, once it is there; raises what asking raised."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._found[0]
