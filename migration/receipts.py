"""What the receipts in the CDP tell that the console does not know: so it is once the console's database was restored from an older copy."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from migration import fences
from migration.cdp import Cdp
from migration.models import Account, Chunk, Run
from migration.states import COMPLETE, ChunkState, RunMode

RUNS = """
    SELECT run_id, account_id, max(committed_at), bool_or(token = %s), coalesce(sum((receipt ->> 'written')::bigint), 0)::bigint
    FROM calm.receipts GROUP BY run_id, account_id ORDER BY max(committed_at), run_id"""

CHUNKS = "SELECT chunk, generation FROM calm.receipts WHERE run_id = %s AND committed_at > %s"


@dataclass(frozen=True)
class Difference:
    """One run of which the CDP knows more than the console."""

    run: UUID
    number: int | None  # the run's own, here
    account: str
    sentence: str

    def as_json(self) -> dict[str, object]:
        return {"run": self.run, "number": self.number, "account": self.account, "difference": self.sentence}


def differences(cdp: Cdp) -> Iterator[Difference]:
    """Oldest first; none where the console is as new as the CDP, or has caught up with it."""
    known = {run.uuid: run for run in Run.objects.select_related("account")}
    accounts = {account.cdp_id: account for account in Account.objects.all()}
    for uuid, account_id, last, withdrawn, written in cdp.rows(RUNS, (fences.NO_TOKEN_IS_HIGHER,)):
        run, account = known.get(uuid), accounts.get(account_id)
        number, name = run.pk if run else None, str(account or f"CDP account {account_id}")
        if sentence := of_known(cdp, run, withdrawn) if run else of_unknown(account, last, written):
            yield Difference(uuid, number, name, sentence)


def of_known(cdp: Cdp, run: Run, withdrawn: bool) -> str:
    if withdrawn and run.withdrawal is None:
        return f"It was withdrawn; here it is {run.state}. Withdraw it again: manage.py withdraw_run {run.pk}."
    if not withdrawn and (newer := number_of_newer(cdp, run)):
        return f"{newer} of its chunks were done since; here it is {run.state}. Go on with it, or run the account again: {command(run.account)}."
    return ""


def number_of_newer(cdp: Cdp, run: Run) -> int:
    """Chunks with a receipt in the CDP, younger than the run's end, of which the console has none, or one of an earlier generation."""
    done = dict(Chunk.objects.filter(run=run, state=ChunkState.DONE).values_list("uuid", "generation"))
    committed = cdp.rows(CHUNKS, (run.uuid, run.finished_at or run.planned_at))
    return sum(done.get(chunk, 0) < generation for chunk, generation in committed)


def of_unknown(account: Account | None, last: datetime | None, written: int) -> str:
    """Nothing to say where a later run has seen to its rows, or where it committed none."""
    later = Run.objects.filter(account=account, mode=RunMode.PRODUCTION, state__in=COMPLETE, started_at__gt=last) if last else None
    if later is None or later.exists():
        return ""
    again = f": {command(account)}" if account else ""
    return f"It is unknown here; it wrote {written:,} rows, lately at {last:%Y-%m-%d %H:%M:%S} UTC. Run the account again{again}."


def command(account: Account) -> str:
    return f"manage.py run_account {account.crm_organization_id} --mode production"
