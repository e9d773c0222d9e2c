"""Who is at work: questions to the leases of chunks and runs. They read only; times are the database's."""

from django.db.models import Q
from django.db.models.functions import Now

from migration.models import Chunk, Run
from migration.states import ChunkState, RunState

ALIVE = Q(lease_expires_at__gte=Now())  # by the database's clock whenever it is asked


def available(run: Run) -> bool:
    """Whether `chunks.claim` would find a chunk."""
    ready = Q(state=ChunkState.PENDING) & (Q(not_before__isnull=True) | Q(not_before__lte=Now()))
    return run.chunks.filter(ready | Q(state=ChunkState.LEASED, lease_expires_at__lt=Now())).exists()


def waiting(run: Run) -> int:
    """Chunks that are not done."""
    return run.chunks.filter(state__in=(ChunkState.PENDING, ChunkState.LEASED)).count()


def count(run: Run) -> int:
    """Chunks of the run that workers hold right now."""
    return run.chunks.filter(ALIVE, state=ChunkState.LEASED).count()


def workers(run: Run) -> int:
    """Workers at the run's chunks right now, each with one or two."""
    return run.chunks.filter(ALIVE, state=ChunkState.LEASED).order_by().values("lease_owner").distinct().count()


def reading(*, besides: str = "") -> int:
    """Workers that read from the CRM now, `besides` one: at chunks, of which each reads one at a time, or counting or verifying a run."""
    at_runs = Run.objects.filter(ALIVE, state__in=(RunState.PLANNED, RunState.VERIFYING)).values_list("lease_owner", flat=True)
    at_chunks = Chunk.objects.filter(ALIVE, state=ChunkState.LEASED).values_list("lease_owner", flat=True)
    return len({*at_runs, *at_chunks} - {besides})


def is_held(run: Run) -> bool:
    """Whether any worker holds an unexpired lease on the run or one of its chunks."""
    return run.chunks.filter(ALIVE, state=ChunkState.LEASED).exists() or Run.objects.filter(ALIVE, pk=run.pk).exists()
