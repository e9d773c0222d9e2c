"""One file per noun. What SQL can hold (states, pairs, uniqueness) is a constraint there, not a rule in Python."""

from migration.models.account import Account
from migration.models.actor_answer import ActorAnswer
from migration.models.batch import Batch, BatchItem
from migration.models.chunk import Chunk
from migration.models.event import Event
from migration.models.link_index import DealLink, JoinConcern, LinkIndex, LinkOddity
from migration.models.login_attempt import LoginAttempt
from migration.models.mapping_draft import MappingDraft
from migration.models.mapping_revision import MappingRevision
from migration.models.name_collision import NameCollision
from migration.models.notification import Notification
from migration.models.quarantine import QuarantinedCandidate
from migration.models.read_budget import ReadBudget
from migration.models.rival_claim import RivalClaim
from migration.models.run import Run
from migration.models.set_watermark import SetWatermark
from migration.models.stale_row import StaleRow
from migration.models.summary import Summary
from migration.models.tally import Tally
from migration.models.tick import Tick
from migration.models.waiver import Waiver

__all__ = [
    "Account",
    "ActorAnswer",
    "Batch",
    "BatchItem",
    "Chunk",
    "DealLink",
    "Event",
    "JoinConcern",
    "LinkIndex",
    "LinkOddity",
    "LoginAttempt",
    "MappingDraft",
    "MappingRevision",
    "NameCollision",
    "Notification",
    "QuarantinedCandidate",
    "ReadBudget",
    "RivalClaim",
    "Run",
    "SetWatermark",
    "StaleRow",
    "Summary",
    "Tally",
    "Tick",
    "Waiver",
]
