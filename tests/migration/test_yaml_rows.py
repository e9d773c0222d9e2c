"""Production from a CRM whose `audited_changes` is Ruby YAML, against the oracle fed with Ruby's own reading of every row."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from migration.states import RunState
from tests.migration.against_oracle import numbers, numbers_of, written
from tests.migration.conftest import run_account
from tests.migration.oracle import expected
from tests.migration.oracle_sample import Sample, read_json, read_sample

CHANGES = 8  # where a row has them


@pytest.fixture
def known(console) -> Sample:
    """The YAML sample, every person of it a contact of the account of its organisation, and nothing live yet."""
    known = read_sample("crm_sample_yaml")
    contacts: list[dict[str, str | None]] = [
        {
            "id": f"00000000-0000-4000-8000-{person:012}",
            "account_id": known.accounts[organisation],
            "source": "crm",
            "source_id": str(person),
        }
        for person, organisation in sorted(persons(known).items())
    ]
    values = ", ".join(str(tuple(contact.values())) for contact in contacts)
    console.change_cdp(
        "TRUNCATE contact_activity_logs, contacts", f"INSERT INTO contacts (id, account_id, source, source_id) VALUES {values}"
    )
    return replace(known, contacts=contacts, live=[])


def persons(known: Sample) -> dict[int, int]:
    """CRM person -> organisation, as Ruby knew."""
    owner = {audit: int(one) for one in ("1", "2") for audit in known.truth["organisations"][one]["audit_ids"]}
    return {audit.auditable_id: owner[audit.id] for audit in known.audits if audit.auditable_type == "Crm::Person"}


@pytest.mark.parametrize("systems", ["crm_sample_yaml"], indirect=True)
@pytest.mark.parametrize("chunk_size", [None, 20])
def test_every_row_of_a_yaml_source_is_the_oracles(console, known, chunk_size):
    for organisation in (1, 2):
        run = run_account(organisation, chunk_size=chunk_size)
        wanted = expected(known, organisation)
        rows = written(console, run)
        assert len(rows) > 100
        assert [(*row[:CHANGES], *row[CHANGES + 1 :]) for row in rows] == [(*row[:CHANGES], *row[CHANGES + 1 :]) for row in wanted.rows()]
        for row, right in zip(rows, wanted.rows(), strict=True):
            assert same(read_json(row[CHANGES]), read_json(str(right[CHANGES]))), (row[CHANGES], right[CHANGES])
        assert numbers(run) == numbers_of(wanted)
        assert run.verification and run.verification["agrees"] and run.state == RunState.SUCCEEDED


def same(found: Any, told: Any) -> bool:
    """Whether a value is what Ruby told of it; AUDITED_FACTS section 9 says how it writes what JSON has no word for."""
    if isinstance(told, list):
        return isinstance(found, list) and len(found) == len(told) and all(map(same, found, told))
    if not isinstance(told, dict):
        return type(found) is type(told) and found == told
    if "$time" in told:
        return same_moment(found, told)
    if "$sha256" in told:
        return sha256(found.encode()).hexdigest() == told["$sha256"]
    if told.keys() & {"$decimal", "$date"}:
        return found == next(iter(told.values()))
    return isinstance(found, dict) and found.keys() == told.keys() and all(same(found[key], told[key]) for key in told)


def same_moment(found: str, told: dict[str, str]) -> bool:
    """The instant to the microsecond, and the offset of the zone that the request had."""
    moment = datetime.fromisoformat(found)
    instant = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return instant == told["$time"] and moment.utcoffset() == moment.astimezone(ZoneInfo(told["$zone"])).utcoffset()
