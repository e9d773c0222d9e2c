"""AssociationLogEnricher: the display names of the deal and the company as of an audit, from those records' own audits.

The match key is (class role, record id). It never guesses: where two audits of one class and version give different names, nobody can
say which was written last, and the activity says "ambiguous" until staff decide.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from migration import copytext
from migration.mapping import Role
from migration.pipeline.problems import failure
from migration.pipeline.records import Candidate, Collision, Naming

ENRICHED = (Role.DEAL, Role.DEAL_CONTACT_JOIN, Role.DEAL_COMPANY_JOIN)
MatchKey = tuple[Role, int]


@dataclass
class Names:
    """Every naming audit of the records that a chunk's activities are about, and what staff decided of collisions."""

    namings: dict[MatchKey, list[Naming]]  # by audit id
    decisions: dict[tuple[Role, int, str, int | None], str] = field(default_factory=dict)  # role, record, class, version -> name
    by_version: dict[MatchKey, dict[tuple[str, int | None], list[Naming]]] = field(default_factory=dict, init=False)

    def as_of(self, key: MatchKey, audit_id: int, request: str | None) -> tuple[str | None, Collision | None]:
        """The name just then: of the highest audit up to this one that tells it, else of the first after it in the same request."""
        namings = self.namings.get(key, [])
        before = bisect_right(namings, audit_id, key=lambda n: n.audit_id)
        chosen = namings[before - 1] if before else None
        if chosen is None and request is not None:
            chosen = next((n for n in namings if n.audit_id > audit_id and n.request == request), None)
        if chosen is None:
            return None, None
        twins = self.twins(key, chosen)
        if chosen.version is None or len({n.name for n in twins}) == 1:
            return chosen.name, None
        decided = self.decisions.get((*key, chosen.class_name, chosen.version))
        if decided is not None:
            return decided or None, None  # '': staff say that it had no name then
        return None, Collision(key[0], key[1], chosen.class_name, chosen.version, [(n.audit_id, n.name) for n in twins])

    def twins(self, key: MatchKey, chosen: Naming) -> list[Naming]:
        """The namings of the record that share class and version with this one. A record renamed each day for years is gone through once."""
        if key not in self.by_version:
            self.by_version[key] = {}
            for naming in self.namings[key]:
                self.by_version[key].setdefault((naming.class_name, naming.version), []).append(naming)
        return self.by_version[key][chosen.class_name, chosen.version]


def enrich_associations(candidates: Iterable[Candidate], names: Names | None) -> Iterator[Candidate]:
    """Set `associations` of link, move and deal activities; without names (gate F not open) nothing is set."""
    for candidate in candidates:
        if names is not None and candidate.role in ENRICHED and candidate.becomes_row:
            try:
                candidate.associations = found(candidate, names)
            except Exception as error:  # noqa: BLE001 - one poisoned row is put aside, the chunk goes on
                candidate.problem = failure(error)
        yield candidate


def found(candidate: Candidate, names: Names) -> dict[str, object]:
    """What goes into the context: ids and names of the other ends, or that a name is ambiguous."""
    request = copytext.read(candidate.request)
    result: dict[str, object] = {}
    for label, key in ends(candidate):
        name, collision = names.as_of(key, candidate.audit_id, request)
        result[f"{label}_id"] = key[1]
        if collision:
            result["association"] = "ambiguous"
            candidate.collisions = [*(candidate.collisions or []), collision]
        elif name is not None:
            result[f"{label}_name"] = name
    return result


def ends(candidate: Candidate) -> Iterator[tuple[str, MatchKey]]:
    """The records whose names belong to the activity."""
    deal = int(candidate.record_id) if candidate.role == Role.DEAL else candidate.deal_id
    if deal is not None:
        yield "deal", (Role.DEAL, deal)
    if candidate.role == Role.DEAL_COMPANY_JOIN and candidate.company_id is not None:
        yield "company", (Role.COMPANY, candidate.company_id)
