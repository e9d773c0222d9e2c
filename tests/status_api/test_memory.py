"""The store that forgets, and the circuit breaker; time is handed to both."""

from status_api.breaker import Breaker
from status_api.memory import Memory


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_too_old_is_forgotten():
    clock = Clock()
    memory: Memory[str] = Memory(most=2, seconds=30, clock=clock)
    memory.put("a", "A")
    clock.now += 29.9
    assert memory.get("a") == "A"
    clock.now += 0.1  # reading it has not made it younger
    assert memory.get("a") is None
    assert len(memory) == 0


def test_what_was_longest_unused_makes_way():
    memory: Memory[str] = Memory(most=2)
    memory.put("a", "A")
    memory.put("b", "B")
    assert memory.get("a") == "A"
    memory.put("c", "C")
    assert [memory.get(key) for key in "abc"] == ["A", None, "C"]


def test_the_breaker_opens_lets_one_try_and_closes():
    clock = Clock()
    breaker = Breaker(failures=2, seconds=10, clock=clock)
    waits = [breaker.wait()]
    breaker.failed()
    waits.append(breaker.wait())
    breaker.failed()
    waits.append(breaker.wait())
    clock.now += 4
    waits.append(breaker.wait())
    clock.now += 6
    waits += [breaker.wait(), breaker.wait()]  # the first may try, the second waits for it
    breaker.failed()
    waits.append(breaker.wait())
    clock.now += 10
    waits.append(breaker.wait())
    breaker.succeeded()
    waits += [breaker.wait(), breaker.wait()]
    assert waits == [0, 0, 10, 6, 0, 10, 10, 0, 0, 0]


def test_failures_that_are_not_in_a_row_do_not_open_it():
    breaker = Breaker(failures=2, seconds=10, clock=Clock())
    for _ in range(3):
        breaker.failed()
        breaker.succeeded()
    breaker.failed()
    assert breaker.wait() == 0
