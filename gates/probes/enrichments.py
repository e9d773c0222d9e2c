"""What the enricher makes of some contacts' activities, name by name, compared with what the records' audits say by themselves."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gates.probes import rival_names
from gates.probes.rival_names import Telling
from migration import copytext
from migration.crm import Crm
from migration.mapping import ENTITY_OF_ROLE, Mapping, Role
from migration.models import Account, NameCollision
from migration.pipeline.associations import MatchKey, Names, ends, enrich_associations
from migration.pipeline.extract import extract
from migration.pipeline.lookups import namings
from migration.pipeline.queries import Selection
from migration.pipeline.records import Candidate, Links

NEVER = dict.fromkeys(ENTITY_OF_ROLE.values(), datetime(9999, 1, 1, tzinfo=UTC))  # a watermark that nothing is beyond
VERDICTS = ("resolved", "ambiguous", "decided", "not used")  # the gravest first
MOST_NAMES, LONGEST_NAME = 10, 200
CollisionKey = tuple[int, Role, int, str, int | None]  # CRM organisation id, role, record, class, version


@dataclass
class Tally:
    """What has been found so far: enrichments counted by what the enricher says, and each match key with more than one name."""

    counts: Counter[str] = field(default_factory=Counter)  # certain, absent, ambiguous, decided
    keys: dict[CollisionKey, tuple[list[str | None], str]] = field(default_factory=dict)  # -> names, verdict
    untold: list[str] = field(default_factory=list)  # names that no audit gives

    def mark(self, key: CollisionKey, names: list[str | None], verdict: str) -> None:
        """A key has the gravest verdict of its enrichments."""
        _, known = self.keys.get(key, (names, verdict))
        self.keys[key] = names, min(known, verdict, key=VERDICTS.index)

    def listed(self) -> list[dict[str, Any]]:
        """As the evidence has them, the gravest first."""
        return [
            {
                "account": account,
                "role": role.value,
                "record_id": record,
                "class": class_name,
                "version": version,
                "candidates": [name and name[:LONGEST_NAME] for name in names[:MOST_NAMES]],
                "verdict": verdict,
            }
            for (account, role, record, class_name, version), (names, verdict) in sorted(
                self.keys.items(), key=lambda each: (VERDICTS.index(each[1][1]), each[0][:4], each[0][4] or 0)
            )
        ]

    def of(self, verdict: str) -> list[dict[str, Any]]:
        return [each for each in self.listed() if each["verdict"] == verdict]


@dataclass(frozen=True)
class Records:
    """What the audits of one account's deals and companies tell, and what staff decided of them."""

    account: Account
    decisions: dict[tuple[Role, int, str, int | None], str]  # as associations.Names has them
    told: dict[MatchKey, list[Telling]]
    contested: dict[MatchKey, dict[tuple[str, int | None], list[str | None]]]

    def full(self, key: MatchKey, which: tuple[str, int | None]) -> CollisionKey:
        return self.account.crm_organization_id, *key, *which


def look(mapping: Mapping, crm: Crm, account: Account, links: Links, tally: Tally) -> None:
    """Have the enricher name everything that these links lead to, in one snapshot, and add it to the tally."""
    decisions = decisions_of(account)
    with crm.snapshot() as connection:
        names = Names(namings(connection, crm.shape, mapping, links), decisions)
        told = rival_names.tellings(connection, crm.shape, mapping, links)
        records = Records(account, decisions, told, {key: rival_names.contested(several) for key, several in told.items()})
        for key, versions in records.contested.items():
            for which, several in versions.items():
                tally.mark(records.full(key, which), several, "decided" if (*key, *which) in decisions else "not used")
        # No person: only what their links lead to is enriched.
        with closing(extract(connection, crm.shape, mapping, Selection([]), links, NEVER)) as extracted:
            for candidate in enrich_associations(extracted, names):
                if not candidate.passed_over:
                    for label, key in ends(candidate):
                        compare(candidate, label, key, records, tally)


def decisions_of(account: Account) -> dict[tuple[Role, int, str, int | None], str]:
    found = NameCollision.objects.filter(account=account, decided_name__isnull=False)
    return {(Role(each.role), each.record_id, each.class_name, each.version): each.decided_name or "" for each in found}


def compare(candidate: Candidate, label: str, key: MatchKey, records: Records, tally: Tally) -> None:
    """What the enricher said of one end, against the audits."""
    collisions = [each for each in candidate.collisions or () if (each.role, each.record_id) == key]
    for each in collisions:
        several = list(dict.fromkeys(name for _, name in each.candidates))
        tally.mark(records.full(key, (each.class_name, each.version)), several, "ambiguous")
    if collisions:
        tally.counts["ambiguous"] += 1
        return
    name = (candidate.associations or {}).get(f"{label}_name")
    stood = rival_names.standing(records.told.get(key, []), candidate.audit_id, copytext.read(candidate.request))
    which = (stood.class_name, stood.version) if stood else ("", None)
    several = records.contested.get(key, {}).get(which, [])
    decided = records.decisions.get((*key, *which)) if several else None
    if several and decided is None:
        tally.mark(records.full(key, which), several, "resolved")
    elif name != (stood.name if stood and decided is None else decided or None):
        tally.untold.append(f"{key[0]} {key[1]} at audit {candidate.audit_id}")
    tally.counts["decided" if decided is not None else "absent" if name is None else "certain"] += 1
