"""Reconciler, chunk by chunk: reads back what was committed and compares count and digests with those of what was mapped."""

from migration.cdp import Cdp
from migration.pipeline.load import Target
from migration.pipeline.problems import RowsDisagree
from migration.pipeline.records import Receipt
from migration.pipeline.rows import DIGEST_SQL
from migration.pipeline.staging import IN_SPANS, OUTCOME, STAGED, STANDING

LOADED = f"{OUTCOME} IN ('written', 'corrected', 'unchanged', 'own')"

# Number and digest, whatever the order, of what stands in the spans of the staged ids: read as it lies, with no look by key.
COMMITTED = f"""
    SELECT count(*), coalesce(bit_xor(uuid_hash_extended({DIGEST_SQL}, 0)), 0)
    FROM {IN_SPANS} WHERE t.account_id = %s AND t.origin = 'crm_migration' AND t.run_id IS NOT NULL"""  # noqa: S608 - constants only

# The same row by row: where rows of ours lie between that are candidates no more, or where something is wrong.
READ_BACK = f"""
    SELECT count(*), count(*) FILTER (WHERE t.id IS NULL OR t.run_id IS NULL OR s.digest <> {DIGEST_SQL})
    FROM {STAGED} {STANDING} WHERE {LOADED}"""  # noqa: S608 - constants only


def verify(receipt: Receipt, cdp: Cdp, target: Target) -> Receipt:
    """Compare count and digests; raises RowsDisagree. Reads committed rows, not the transaction's."""
    loaded = receipt.written + receipt.corrected + receipt.unchanged
    if cdp.rows(COMMITTED, (target.account,))[0] == (loaded, receipt.digest):
        return receipt
    number, different = cdp.rows(READ_BACK)[0]
    if different or number != loaded:
        raise RowsDisagree(f"{different} of {number} rows read back from the CDP are not what was mapped ({loaded} were loaded)")
    return receipt
