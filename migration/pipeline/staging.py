"""The loader's SQL in the CDP: the temporary tables of a chunk, each staged row's outcome, the upsert, the fence."""

from migration.pipeline.rows import DIGEST_SQL

# Large changes are compressed where they stay, not here too, in a table that is emptied within seconds.
STAGING = """
    CREATE TEMP TABLE IF NOT EXISTS calm_staging (
        id uuid NOT NULL, contact_id uuid NOT NULL, category text NOT NULL, actor_kind text NOT NULL, actor_id text, actor_name text,
        occurred_at timestamptz NOT NULL, source_audit_id bigint NOT NULL, digest uuid NOT NULL, changes jsonb NOT NULL, context jsonb NOT NULL,
        live_category text);
    ALTER TABLE calm_staging ALTER changes SET STORAGE EXTERNAL"""

# Only of rows that are not simply new: most of a first load are, and need no line here. `former`: the row whose place this one takes, `since`: since
# when that one stood there.
VERDICT = "CREATE TEMP TABLE IF NOT EXISTS calm_verdict (id uuid NOT NULL, old_category text, outcome text NOT NULL, former uuid, since timestamptz)"
STAGED = "calm_staging s LEFT JOIN calm_verdict v USING (id)"
OUTCOME = "coalesce(v.outcome, 'written')"

# Whether the row in the CDP (t) is what was mapped (s). `*=` compares the stored bytes: 0.50 is not 0.5, and no text is made of either. The
# revision's number alone is no difference: it would make every row one. A row without its run is one: no withdrawal would find it.
SAME = """(t.account_id, t.contact_id, t.category, t.actor_kind, t.occurred_at, t.source_audit_id)
        = (%(account)s, s.contact_id, s.category, s.actor_kind, s.occurred_at, s.source_audit_id)
     AND ROW(t.actor_id::text, t.actor_name::text, t.changes::jsonb)::record *= ROW(s.actor_id, s.actor_name, s.changes)::record
     AND (ROW(t.context::jsonb)::record *= ROW(s.context)::record OR t.context - 'mapping_revision' = s.context - 'mapping_revision')
     AND t.run_id IS NOT NULL"""

# The row that stands under a staged row's id. OFFSET 0 keeps the planner to one look by primary key for each, at any size of the table and
# whatever its statistics say: they lag behind while a table is being filled.
STANDING = "LEFT JOIN LATERAL (SELECT * FROM contact_activity_logs WHERE id = s.id OFFSET 0) t ON true"

# For each contact, and so for each person, the lowest and the highest staged id: what lies between the ids of two persons is mostly other
# accounts'.
SPANS = "CREATE TEMP TABLE IF NOT EXISTS calm_spans (contact_id uuid NOT NULL, low uuid NOT NULL, high uuid NOT NULL)"
FILL_SPANS = """
    INSERT INTO calm_spans SELECT contact_id, min(id::text COLLATE "C")::uuid, max(id::text COLLATE "C")::uuid FROM calm_staging GROUP BY 1"""
IN_SPANS = (
    "calm_spans CROSS JOIN LATERAL (SELECT * FROM contact_activity_logs WHERE id BETWEEN calm_spans.low AND calm_spans.high OFFSET 0) t"
)

# Whether any row stands where staged ones belong: in a first load none does, and no row need be looked for.
OCCUPIED = f"SELECT EXISTS (SELECT FROM {IN_SPANS})"  # noqa: S608 - constants only
NOTHING = "CROSS JOIN (SELECT NULL::uuid AS id, NULL::text AS category) t"

# max_audits has combined the audit with older ones since its row was loaded, and says so: what the finer row tells stays, whatever became of the
# audit; only whose it is may still be corrected.
COMBINED = "{}.context ->> 'comment' LIKE '%%This audit is the result of multiple audits being combined.'"
KEEP_FINER = f"""
    UPDATE calm_staging s
    SET category = t.category, actor_kind = t.actor_kind, actor_id = t.actor_id, actor_name = t.actor_name, occurred_at = t.occurred_at,
        changes = t.changes, context = t.context, digest = {DIGEST_SQL}
    FROM (SELECT c.id, %(account)s::uuid AS account_id, c.contact_id, l.category, l.actor_kind, l.actor_id, l.actor_name, l.occurred_at, l.changes,
                 l.context, c.source_audit_id, l.origin
          FROM {{standing}} CROSS JOIN LATERAL (SELECT * FROM contact_activity_logs WHERE id = {{row}} AND origin = 'crm_migration' OFFSET 0) l
          WHERE {COMBINED.format("c")} AND ({COMBINED.format("l")}) IS NOT TRUE) t
    WHERE s.id = t.id
    RETURNING CASE jsonb_typeof(s.changes) WHEN 'object' THEN ARRAY(SELECT jsonb_object_keys(s.changes)) ELSE '{{{{}}}}' END"""  # noqa: S608 - constants only
KEEP_FINER_STANDING = KEEP_FINER.format(standing="calm_staging c", row="c.id")
KEEP_FINER_FORMER = KEEP_FINER.format(standing="calm_staging c JOIN calm_verdict v USING (id)", row="v.former")
# A key that was put on the secrets list since the finer row was loaded goes all the same.
TAKE_OUT = "UPDATE calm_staging SET changes = changes - %(secrets)s::text[] WHERE changes ?| %(secrets)s::text[]"

# The other rows that may matter: live ones, and ours under another person's id, whom the contact was of before. All of the chunk's contacts,
# read contact by contact for the same reason.
OTHERS_OF_CONTACTS = """
        SELECT l.* FROM calm_spans c CROSS JOIN LATERAL (
            SELECT contact_id, category, occurred_at, source_audit_id, origin, id FROM contact_activity_logs
            WHERE contact_id = c.contact_id AND (origin = 'live' OR id NOT BETWEEN c.low AND c.high) OFFSET 0) l"""
# The same where the chunk is but a part of a contact's audits: to read all that stands there for each part would cost the more the more parts
# are done. Those that name an audit are looked for one by one, those that name none by time.
OTHERS_OF_ROWS = """
        SELECT l.* FROM calm_staging s CROSS JOIN LATERAL (
            SELECT contact_id, category, occurred_at, source_audit_id, origin, id FROM contact_activity_logs
            WHERE source_audit_id = s.source_audit_id AND contact_id = s.contact_id AND (origin = 'live' OR id <> s.id) OFFSET 0) l
        UNION ALL
        SELECT l.* FROM (SELECT contact_id, min(occurred_at) AS first, max(occurred_at) + %(lag)s AS last FROM calm_staging GROUP BY 1) c
        CROSS JOIN LATERAL (
            SELECT contact_id, category, occurred_at, source_audit_id, origin, id FROM contact_activity_logs
            WHERE contact_id = c.contact_id AND occurred_at BETWEEN c.first AND c.last AND origin = 'live' AND source_audit_id IS NULL OFFSET 0) l"""

# A live row that names no audit and is so close behind a staged one that it may be the same. `live_category` is what live sync may call it already,
# where it is the generic one here only because gate E is not signed.
OVERLAPPING = """
        SELECT s.id FROM calm_staging s JOIN others l ON l.contact_id = s.contact_id AND l.category = s.{category}
        WHERE l.origin = 'live' AND l.source_audit_id IS NULL AND l.occurred_at BETWEEN s.occurred_at AND s.occurred_at + %(lag)s"""

# The outcome of each staged row that is not simply new. A live row holds the audit; or one without an audit id is so close behind that it
# may be the same; or a row of ours holds it, from when the contact was another person's: its id then ends as the staged one does.
CLASSIFY = """
    INSERT INTO calm_verdict (id, old_category, outcome, former)
    WITH others AS MATERIALIZED ({others}),
    overlapping AS MATERIALIZED ({overlapping})
    SELECT id, old_category, outcome, CASE outcome WHEN 'corrected' THEN former END FROM (
        SELECT s.id, coalesce(t.category, held.category) AS old_category, held.id AS former,
               CASE WHEN held.origin = 'live' THEN 'already_live'
                    WHEN s.id IN (SELECT id FROM overlapping) THEN 'probable_overlap'
                    WHEN held.origin = 'crm_migration' THEN 'corrected'
                    {standing} END AS outcome
        FROM calm_staging s {t}
        LEFT JOIN others held ON held.source_audit_id = s.source_audit_id AND held.contact_id = s.contact_id
            AND (held.origin = 'live' OR substring(uuid_send(held.id) FROM 9) = substring(uuid_send(s.id) FROM 9))) decided
    WHERE outcome IS NOT NULL"""
NEW = {"t": NOTHING, "standing": ""}
STANDING_ROWS = {
    "t": STANDING,
    "standing": f"""
                    WHEN t.id IS NULL THEN NULL
                    WHEN ({SAME}) IS NOT TRUE THEN 'corrected'
                    WHEN t.run_id = %(run)s THEN 'own'
                    ELSE 'unchanged'""",
}


def classifying(*, occupied: bool, part_of_contact: bool) -> str:
    """The statement, by whether any row stands where staged ones belong, and whether the chunk is but a part of a contact's audits."""
    return CLASSIFY.format(
        others=OTHERS_OF_ROWS if part_of_contact else OTHERS_OF_CONTACTS,
        overlapping=" UNION ALL ".join(OVERLAPPING.format(category=name) for name in ("category", "live_category")),
        **(STANDING_ROWS if occupied else NEW),
    )


# The rows whose places are taken: their contact is another person's now, and a contact has one row of an audit. What takes a place has stood there
# for as long: the preview of a withdrawal goes by that.
GIVE_WAY = """
    WITH gone AS (
        DELETE FROM contact_activity_logs t USING calm_verdict v WHERE t.id = v.former AND t.origin = 'crm_migration' RETURNING v.id, t.inserted_at)
    UPDATE calm_verdict v SET since = gone.inserted_at FROM gone WHERE v.id = gone.id"""
KEEP_AGE = "UPDATE contact_activity_logs t SET inserted_at = v.since FROM calm_verdict v WHERE t.id = v.id AND v.since < t.inserted_at"

# Where no row stands between the staged ids: a conflict would be somebody else's row that came meanwhile, and the transaction ends with it.
INSERT = f"""
    INSERT INTO contact_activity_logs AS t (id, account_id, contact_id, category, actor_kind, actor_id, actor_name, occurred_at, changes, context,
                                            origin, source_audit_id, run_id)
    SELECT s.id, %(account)s, s.contact_id, s.category, s.actor_kind, s.actor_id, s.actor_name, s.occurred_at, s.changes, s.context,
           'crm_migration', s.source_audit_id, %(run)s
    FROM {STAGED} WHERE {OUTCOME} IN ('written', 'corrected') ORDER BY s.id"""  # noqa: S608 - constants only
UPSERT = f"""{INSERT}
    ON CONFLICT (id) DO UPDATE SET
        account_id = excluded.account_id, contact_id = excluded.contact_id, category = excluded.category, actor_kind = excluded.actor_kind,
        actor_id = excluded.actor_id, actor_name = excluded.actor_name, occurred_at = excluded.occurred_at, changes = excluded.changes,
        context = excluded.context, source_audit_id = excluded.source_audit_id, run_id = excluded.run_id
    WHERE t.origin = 'crm_migration'"""

# `first` is the same in every group: of all rows that stay or come, before `probable_overlap` is put aside.
COUNT = f"""
    SELECT {OUTCOME}, s.category, s.actor_kind, v.old_category, count(*), bit_xor(uuid_hash_extended(s.digest, 0)),
           (min(min(s.occurred_at)) FILTER (WHERE {OUTCOME} <> 'probable_overlap') OVER ())::text, count(v.former)
    FROM {STAGED} GROUP BY 1, 2, 3, 4"""  # noqa: S608 - constants only

# A row of this run that was inserted after the account's run before it had committed its last. All times are the CDP's.
INSERTED = """
    SELECT count(*) FROM calm_verdict v JOIN contact_activity_logs t USING (id)
    WHERE v.outcome = 'own' AND t.inserted_at > (
        SELECT coalesce(max(committed_at), '-infinity') FROM calm.receipts WHERE account_id = %(account)s AND committed_at < (
            SELECT coalesce(min(committed_at), 'infinity') FROM calm.receipts WHERE run_id = %(run)s))"""

FENCE = """
    INSERT INTO calm.receipts AS r (chunk, run_id, account_id, token, generation) VALUES (%(chunk)s, %(run)s, %(account)s, %(token)s, %(generation)s)
    ON CONFLICT (chunk) DO UPDATE SET token = excluded.token WHERE r.token <= excluded.token
    RETURNING generation, receipt"""
