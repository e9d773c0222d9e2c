"""What lists ask of related tables, as part of their one query."""

from django.db.models import JSONField, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, JSONObject

from migration.models import Chunk, Run
from migration.states import ChunkState, RunMode


def with_progress(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Runs with `done` and `total`: audits by the counts of the planning, as progress.of counts them for one run."""
    chunks = Chunk.objects.filter(run=OuterRef("pk")).order_by().values("run")
    done = chunks.annotate(sum=Sum("expected", filter=Q(state=ChunkState.DONE), default=0))
    return runs.annotate(done=Subquery(done.values("sum")), total=Subquery(chunks.annotate(sum=Sum("expected")).values("sum")))


def last_run(mode: RunMode) -> Subquery:
    """Of an account: its newest run of that mode as `{"pk", "state", "at", "done", "total"}`, `at` in ISO 8601; null without one."""
    runs = with_progress(Run.objects.filter(account=OuterRef("pk"), mode=mode).order_by("-pk"))
    shown = JSONObject(pk="pk", state="state", at=Coalesce("finished_at", "planned_at"), done="done", total="total")
    return Subquery(runs.values(shown=shown)[:1], output_field=JSONField())
