"""Reconciler, chunk by chunk: reads back what was committed and compares each row's digest with the one of what was mapped."""

from migration.cdp import Cdp
from migration.pipeline.load import STANDING, Target
from migration.pipeline.problems import RowsDisagree
from migration.pipeline.records import Receipt
from migration.pipeline.rows import DIGEST_SQL

READ_BACK = f"""
    SELECT count(*), count(*) FILTER (WHERE t.id IS NULL OR t.run_id IS NULL OR s.digest <> {DIGEST_SQL})
    FROM calm_verdict v JOIN calm_staging s USING (id) {STANDING}
    WHERE v.outcome IN ('written', 'corrected', 'unchanged', 'own')"""  # noqa: S608 - constants only


def verify(receipt: Receipt, cdp: Cdp, target: Target) -> Receipt:
    """Compare the count, and each committed row's digest with the mapped one's; raises RowsDisagree. Reads committed rows, not the transaction's."""
    number, different = cdp.rows(READ_BACK)[0]
    loaded = receipt.written + receipt.corrected + receipt.unchanged
    if different or number != loaded:
        raise RowsDisagree(f"{different} of {number} rows read back from the CDP are not what was mapped ({loaded} were loaded)")
    return receipt
