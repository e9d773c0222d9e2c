"""What planning, workers and verification ask of a built LinkIndex: the links and concerns of some persons."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection

from migration.models import LinkIndex
from migration.pipeline.records import Joined, Links

FOREVER = 2**63 - 1
LINKS_OF_PERSONS = (
    "SELECT deal_id, person_id, from_audit, to_audit FROM migration_deallink WHERE index_id = %s AND person_id = ANY(%s::bigint[])"
)
CONCERNS_OF_PERSONS = (
    "SELECT person_id, audit_id, moved, deal_id FROM migration_joinconcern WHERE index_id = %s AND person_id = ANY(%s::bigint[])"
)
# As link_history lists them: the deal that a row moved to comes first.
CONCERNS_OF_DEALS = """
    SELECT deal_id, audit_id, company_id FROM migration_joinconcern
    WHERE index_id = %s AND person_id IS NULL AND deal_id = ANY(%s::bigint[]) ORDER BY id"""


@dataclass(frozen=True)
class Reader:
    """What workers and planning ask of a built index."""

    index: LinkIndex | None

    def of(self, persons: Iterable[int]) -> Links:
        """What links tell of these persons."""
        if self.index is None:
            return Links()
        wanted = list(persons)
        by_deal = self.by_deal(wanted)
        by_audit: dict[int, dict[int, Joined]] = defaultdict(dict)
        for person, audit, moved, deal in self.kept(CONCERNS_OF_PERSONS, wanted):
            by_audit[audit][person] = Joined(person, moved or None, deal)
        for deal, audit, company in self.kept(CONCERNS_OF_DEALS, list(by_deal)):
            for person, start, end in by_deal[deal]:
                if start < audit < end:
                    by_audit[audit].setdefault(person, Joined(person, None, deal, company))
        return Links(by_deal, {audit: [found[person] for person in sorted(found)] for audit, found in sorted(by_audit.items())})

    def kept(self, query: str, ids: list[int]) -> list[tuple]:
        """The answer to one of the queries above. Ids go as one array: Django's `__in` took nine times as long."""
        with connection.cursor() as cursor:
            cursor.execute(query, (self.index.pk if self.index else None, "{" + ",".join(map(str, ids)) + "}"))
            return cursor.fetchall()

    def by_deal(self, persons: list[int]) -> dict[int, list[tuple[int, int, int]]]:
        """Deal -> (person, from audit, to audit), both exclusive.

        Two join rows can link one pair at a time: their intervals are merged, so that a contact reached twice counts once.
        """
        spans: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for deal, person, start, end in self.kept(LINKS_OF_PERSONS, persons):
            spans[deal, person].append((start, FOREVER if end is None else end))
        merged: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for (deal, person), found in sorted(spans.items()):
            merged[deal] += [(person, start, end) for start, end in union(found)]
        return dict(merged)


def union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans whose open intervals overlap, as one. Those that only touch stay two: the audit where they meet is a join row's own."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
