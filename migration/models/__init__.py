"""One file per noun. What SQL can hold (states, pairs, uniqueness) is a constraint there, not a rule in Python."""

from migration.models.account import Account
from migration.models.actor_answer import ActorAnswer
from migration.models.chunk import Chunk
from migration.models.event import Event
from migration.models.link_index import DealLink, JoinConcern, LinkIndex, LinkOddity
from migration.models.mapping_revision import MappingRevision
from migration.models.quarantine import QuarantinedCandidate
from migration.models.rival_claim import RivalClaim
from migration.models.run import Run

__all__ = [
    "Account",
    "ActorAnswer",
    "Chunk",
    "DealLink",
    "Event",
    "JoinConcern",
    "LinkIndex",
    "LinkOddity",
    "MappingRevision",
    "QuarantinedCandidate",
    "RivalClaim",
    "Run",
]
