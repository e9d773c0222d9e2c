"""How many contacts planning counts at once follows from how long the CRM takes."""

import tracemalloc
from contextlib import closing

from migration import planning
from migration.cdp import Cdp
from migration.models import Account


def test_a_quick_crm_is_asked_for_more_and_a_slow_one_for_fewer():
    assert [planning.next_size(4000, seconds) for seconds in (0.1, 0.99, 1.0, 10.0, 10.1, 200.0)] == [8000, 8000, 4000, 4000, 2000, 2000]
    assert planning.next_size(planning.MOST_AT_ONCE, 0.1) == planning.MOST_AT_ONCE
    assert planning.next_size(planning.FEWEST_AT_ONCE, 100.0) == planning.FEWEST_AT_ONCE


def test_every_person_is_counted_once_whatever_the_pace(monkeypatch):
    """The slower the CRM, the smaller the batches, down to the last person."""
    clock = iter(range(0, 10_000_000, 100))
    monkeypatch.setattr(planning.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(planning, "sources", lambda crm, mapping, batch, links: asked.append(len(batch)) or ())
    asked, pulses = [], []

    class Links:
        def of(self, persons):
            return None

    persons = list(range(0, 20_001, 2))
    found = list(planning.count(None, None, {}, persons, Links(), lambda: pulses.append(1)))
    assert [each.person_id for each in found] == persons
    assert asked[:5] == [4000, 2000, 1000, 500, 500] and sum(asked) == len(persons) == 10_001
    assert len(pulses) == len(asked)


def test_a_large_accounts_persons_take_little_memory(console):
    """Ascending, each once, and about 8 bytes each: a worker's memory may not grow with the account."""
    account = Account.objects.get(crm_organization_id=1)
    console.change_cdp(
        f"""INSERT INTO contacts (id, account_id, source, source_id)
            SELECT gen_random_uuid(), '{account.cdp_id}', 'crm', 1000000 + n % 40000 FROM generate_series(79999, 0, -1) n"""
    )
    with closing(Cdp()) as cdp:
        known = len(cdp.persons(account.cdp_id)) - 40_000
        tracemalloc.start()
        try:
            persons = cdp.persons(account.cdp_id)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert list(persons[known:]) == list(range(1_000_000, 1_040_000))
    assert peak < 20 * len(persons)
