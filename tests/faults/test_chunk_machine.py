"""Claim, work, expire, reap, thaw, commit, in any order: the queue and the CDP's fence held to a model of what they promise."""

from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from migration import chunks, fences, runs
from migration.cdp import Cdp
from migration.chunks import MOST_ATTEMPTS, LeaseLost
from migration.models import Chunk, Run
from migration.pipeline.load import Target, load
from migration.pipeline.problems import Fenced
from migration.states import ChunkState, RunState
from tests import factories
from tests.migration.conftest import now

CHUNKS = 3
LONG_AGO = "2020-01-01T00:00Z"
ENDED = (ChunkState.DONE, ChunkState.SPLIT, ChunkState.FAILED)


@dataclass
class Told:
    """What the model knows of a chunk."""

    token: int = 0
    attempts: int = 0
    generation: int = 1
    holder: Chunk | None = None  # as it was claimed; None where nobody's lease would be honoured
    expired: bool = False
    committed: list[int] = field(default_factory=list)  # tokens under which a receipt was committed in the CDP in this generation
    ends: int = 0
