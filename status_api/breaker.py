"""A circuit breaker: a system that does not answer is left alone for a while, so that waiting for it does not hold every thread."""

from collections.abc import Callable
from threading import Lock
from time import monotonic


class Breaker:
    """Opens after `failures` in a row, for `seconds`; then one call at a time may try, and its success closes it again."""

    def __init__(self, *, failures: int, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self.failures, self.seconds, self.clock = failures, seconds, clock
        self._lock = Lock()
        self.reset()

    def reset(self) -> None:
        """As if nothing had ever failed."""
        with self._lock:
            self._failed, self._retry_at = 0, 0.0

    def wait(self) -> float:
        """Seconds to leave the system alone; 0: call it now. Whoever gets the trial call after the pause makes the others wait on."""
        with self._lock:
            now = self.clock()
            if self._failed < self.failures:
                return 0.0
            if now < self._retry_at:
                return self._retry_at - now
            self._retry_at = now + self.seconds
            return 0.0

    def succeeded(self) -> None:
        self.reset()

    def failed(self) -> None:
        with self._lock:
            self._failed += 1
            self._retry_at = self.clock() + self.seconds
