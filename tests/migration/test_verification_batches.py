"""How verification cuts an account: everybody in it once, and no more audits at once than memory is meant for."""

import pytest

from migration import reconcile
from migration.ours import HIGHEST_PERSON
from migration.reconcile import batches, heavy_ends
from migration.states import RunMode
from tests import factories


class Contacts:
    """A CDP of which only the contacts are asked."""

    def __init__(self, persons: list[int]) -> None:
        self.people = persons

    def persons(self, account: object) -> list[int]:
        return self.people

    def contacts(self, account: object, first: int, last: int) -> dict[int, list[str]]:
        return {person: ["contact"] for person in self.people if first <= person <= last}


class World:
    account_id = None

    def __init__(self, persons: list[int]) -> None:
        self.cdp = Contacts(persons)


def cut(persons: list[int], ends: list[int]) -> list[tuple[int, int, list[int]]]:
    return [(batch.first, batch.last, list(batch.claims)) for batch in batches(World(persons), ends)]


@pytest.mark.parametrize(
    ("persons", "ends", "wanted"),
    [
        ([], [], []),
        ([], [7], []),
        ([5, 7], [], [(0, 7, [5, 7])]),
        ([5, 7, 9, 11, 13], [], [(0, 7, [5, 7]), (8, 11, [9, 11]), (12, 13, [13])]),
        ([5, 7, 9, 11], [], [(0, 7, [5, 7]), (8, 11, [9, 11])]),
        ([5, 7, 9, 11, 13], [5, 9, 2**63 - 1], [(0, 5, [5]), (6, 9, [7, 9]), (10, 13, [11, 13])]),
        ([5, 7, 9, 11, 13], [6, 12], [(0, 6, [5]), (7, 9, [7, 9]), (10, 12, [11]), (13, 13, [13])]),
        ([5, HIGHEST_PERSON + 9], [], [(0, HIGHEST_PERSON + 9, [5, HIGHEST_PERSON + 9])]),
    ],
)
def test_batches_leave_no_gap_and_end_where_they_are_told(monkeypatch, persons, ends, wanted):
    monkeypatch.setattr(reconcile, "PERSONS_AT_FIRST", 2)
    monkeypatch.setattr(reconcile, "PERSONS_AT_ONCE", 2)
    assert cut(persons, ends) == wanted


def test_batches_grow_where_the_servers_are_quick_and_shrink_where_they_are_not(monkeypatch):
    seconds = iter([0.1, 0.1, 0.1, 11.0, 11.0, 11.0, 5.0, 5.0, 5.0])
    clock = [0.0]
    monkeypatch.setattr(reconcile.time, "monotonic", lambda: clock[0])
    sizes = []
    for batch in batches(World(list(range(20_001)))):
        sizes.append(len(batch.claims))
        clock[0] += next(seconds)
    assert sizes == [2000, 4000, 5000, 5000, 2500, 1250, 251]


@pytest.mark.django_db
def test_a_batch_ends_where_its_audits_become_many(monkeypatch):
    monkeypatch.setattr(reconcile, "AUDITS_AT_ONCE", 100)
    run = factories.run(mode=RunMode.PRODUCTION)
    for person, expected in ((10, 60), (20, 50), (30, 99), (40, 1), (50, 5)):
        factories.chunk(run, person_from=person, person_to=person, expected=expected)
    assert heavy_ends(run) == [20, 40]
