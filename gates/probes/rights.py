"""What a role of a PostgreSQL server may do, read off the catalogs: itself, through every role that it can become, and through PUBLIC.

By the access lists themselves, not by has_table_privilege, so that it is known through whom; grouped and counted by the server, so that
fifty thousand grants are answered as quickly as ten. Every catalog used here can be read by every role of PostgreSQL 14 to 18.
"""

from dataclasses import dataclass

from psycopg import sql

from migration.crm import VARIABLE, Crm
from migration.doors import translated
from migration.tables import hides_rows

MOST_OBJECTS = 200  # of each group, by name; the rest is counted
FIRST_NORMAL = 16384  # PostgreSQL's own objects have lower oids
PARAMETER_LISTS_SINCE = 150000

REACHED = """
    WITH RECURSIVE reached(oid) AS (
        SELECT oid FROM pg_roles WHERE rolname IN (session_user, current_user)
        UNION
        SELECT m.roleid FROM pg_auth_members m JOIN reached r ON m.member = r.oid)
    SELECT r.oid::bigint, r.rolname, r.rolname IN (session_user, current_user), r.oid < 16384 AND r.rolname LIKE 'pg\\_%',
           EXISTS (SELECT FROM pg_auth_members m JOIN reached x ON m.member = x.oid WHERE m.roleid = r.oid AND m.admin_option),
           array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
               CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
               CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END], NULL)
    FROM reached JOIN pg_roles r USING (oid) ORDER BY r.rolname = session_user DESC, 3 DESC, 2"""

# Each part: kind, name, how a REVOKE names it, class, oid, owner, access list, acldefault's type, schema, column number.
RELATIONS = """
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
               ELSE 'table' END AS kind,
           format('%I.%I', n.nspname, c.relname) AS object,
           format(' ON %s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname) AS address,
           'pg_class'::regclass::oid AS class, c.oid, c.relowner AS owner, c.relacl AS acl,
           (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char" AS type, n.oid AS schema, 0 AS sub
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"""
OTHER_PARTS = (
    """SELECT 'column', format('%I.%I(%I)', n.nspname, c.relname, a.attname), format(' (%I) ON TABLE %I.%I', a.attname, n.nspname, c.relname),
              'pg_class'::regclass::oid, c.oid, c.relowner, a.attacl, 'c'::"char", n.oid, a.attnum
       FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE a.attacl IS NOT NULL AND NOT a.attisdropped""",
    """SELECT 'schema', quote_ident(nspname), ' ON SCHEMA ' || quote_ident(nspname), 'pg_namespace'::regclass::oid, oid, nspowner, nspacl,
              'n'::"char", oid, 0 FROM pg_namespace""",
    """SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, f.name, ' ON ROUTINE ' || f.name, 'pg_proc'::regclass::oid, p.oid,
              p.proowner, p.proacl, 'f'::"char", n.oid, 0
       FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace CROSS JOIN LATERAL (
           SELECT format('%I.%I(%s)', n.nspname, p.proname, left(pg_get_function_identity_arguments(p.oid), 200)) AS name) f""",
    """SELECT 'database', quote_ident(datname), ' ON DATABASE ' || quote_ident(datname), 'pg_database'::regclass::oid, oid, datdba, datacl,
              'd'::"char", NULL, 0 FROM pg_database""",
    """SELECT 'tablespace', quote_ident(spcname), ' ON TABLESPACE ' || quote_ident(spcname), 'pg_tablespace'::regclass::oid, oid, spcowner,
              spcacl, 't'::"char", NULL, 0 FROM pg_tablespace""",
    """SELECT 'foreign data wrapper', quote_ident(fdwname), ' ON FOREIGN DATA WRAPPER ' || quote_ident(fdwname),
              'pg_foreign_data_wrapper'::regclass::oid, oid, fdwowner, fdwacl, 'F'::"char", NULL, 0 FROM pg_foreign_data_wrapper""",
    """SELECT 'foreign server', quote_ident(srvname), ' ON FOREIGN SERVER ' || quote_ident(srvname), 'pg_foreign_server'::regclass::oid, oid,
              srvowner, srvacl, 'S'::"char", NULL, 0 FROM pg_foreign_server""",
    """SELECT 'large object', oid::text, ' ON LARGE OBJECT ' || oid, 'pg_largeobject'::regclass::oid, oid, lomowner, lomacl, 'L'::"char",
              NULL, 0 FROM pg_largeobject_metadata""",
    """SELECT 'default privilege', f.name, f.name, 'pg_default_acl'::regclass::oid, d.oid, d.defaclrole, d.defaclacl, 'r'::"char", NULL, 0
       FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace CROSS JOIN LATERAL (
           SELECT 'FOR ROLE ' || quote_ident(pg_get_userbyid(d.defaclrole)) || coalesce(' IN SCHEMA ' || quote_ident(n.nspname), '') || ' ON '
                  || CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' ELSE 'SCHEMAS' END AS name) f
       WHERE d.defaclobjtype IN ('r', 'S', 'n')""",
)
PARAMETERS = """SELECT 'parameter', parname, ' ON PARAMETER ' || parname, 'pg_parameter_acl'::regclass::oid, oid, 10::oid, paracl, 'p'::"char",
                       NULL, 0 FROM pg_parameter_acl"""

# audits and users as the search_path finds them, and their partitions: the same rows.
HELD = """
    WITH RECURSIVE ours(oid) AS (
        SELECT oid FROM pg_class WHERE oid IN (to_regclass('audits'), to_regclass('users'))
        UNION
        SELECT i.inhrelid FROM pg_inherits i JOIN ours ON i.inhparent = ours.oid),
    schemas AS MATERIALIZED (
        SELECT n.oid, n.nspname, n.nspname IN ('pg_catalog', 'information_schema') AS system,
               EXISTS (SELECT FROM unnest({roles}) r(oid) WHERE has_schema_privilege(r.oid, n.oid, 'USAGE')) AS reachable,
               n.oid IN (SELECT relnamespace FROM pg_class WHERE oid IN (to_regclass('audits'), to_regclass('users'))) AS needed
        FROM pg_namespace n),
    objects AS ({parts}),
    held AS (
        SELECT o.*, a.grantee, a.privilege_type AS privilege, a.is_grantable AS grantable
        FROM objects o CROSS JOIN LATERAL aclexplode(coalesce(o.acl, acldefault(o.type, o.owner))) a
        WHERE (a.grantee = 0 OR a.grantee = ANY({roles})) AND a.grantee <> o.owner
        UNION ALL
        SELECT o.*, o.owner, 'OWNER', false FROM objects o
        WHERE o.owner = ANY({roles}) AND o.kind NOT IN ('column', 'default privilege', 'parameter') AND o.oid >= {first_normal}),
    judged AS (
        SELECT h.*, s.reachable, s.needed AS needed_schema,
               coalesce(s.system, false) OR (h.kind = 'database' AND h.object <> quote_ident(current_database())) OR EXISTS (
                   SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.deptype) = (h.class, h.oid, 'e')) AS system,
               (h.kind = 'column' OR h.class = 'pg_class'::regclass) AND h.oid IN (SELECT oid FROM ours) AS is_ours,
               h.class = 'pg_proc'::regclass AND EXISTS (SELECT FROM pg_proc p WHERE p.oid = h.oid AND p.prosecdef
                   AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)) AS as_owner,
               h.grantee = 0 OR EXISTS (SELECT FROM aclexplode(coalesce(h.acl, acldefault(h.type, h.owner))) p
                   WHERE p.grantee = 0 AND p.privilege_type = h.privilege) AS public_has,
               EXISTS (SELECT FROM aclexplode(coalesce(
                       (SELECT i.initprivs FROM pg_init_privs i WHERE (i.objoid, i.classoid, i.objsubid) = (h.oid, h.class, h.sub)),
                       acldefault(h.type, h.owner))) d
                   WHERE d.grantee = 0 AND d.privilege_type = h.privilege AND h.kind <> 'default privilege')
                   OR (s.nspname = 'information_schema' AND h.grantee = 0 AND h.privilege = 'SELECT') AS by_default
        FROM held h LEFT JOIN schemas s ON s.oid = h.schema),
    graded AS (
        SELECT kind, object, address, privilege, grantable, grantee, system, is_ours, CASE
            WHEN grantable OR privilege = 'OWNER' THEN 'excess'
            WHEN is_ours AND kind <> 'sequence' AND privilege = 'SELECT' THEN 'needed'
            WHEN kind = 'database' AND privilege = 'CONNECT' THEN CASE WHEN object = quote_ident(current_database()) THEN 'needed' ELSE 'default' END
            WHEN kind = 'schema' THEN CASE WHEN privilege <> 'USAGE' THEN 'excess' WHEN needed_schema THEN 'needed' ELSE 'default' END
            WHEN as_owner AND reachable AND NOT system THEN 'excess'
            WHEN by_default AND public_has THEN 'default'
            WHEN grantee = 0 AND NOT reachable THEN 'default'
            ELSE 'excess' END AS verdict
        FROM judged)
    SELECT kind, privilege || CASE WHEN grantable THEN ' WITH GRANT OPTION' ELSE '' END,
           CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, verdict, system, count(*),
           (array_agg(object ORDER BY object COLLATE "C"))[1:{most}], (array_agg(address ORDER BY object COLLATE "C"))[1:3], is_ours
    FROM graded GROUP BY 1, 2, 3, 4, 5, 9"""


@dataclass(frozen=True)
class ReachedRole:
    """A role that the login is, inherits from, or can become by SET ROLE."""

    oid: int
    name: str
    own: bool  # the login itself
    predefined: bool  # one of PostgreSQL's own: pg_read_all_data, …
    administers: bool  # it may grant membership in it
    attributes: list[str]


@dataclass(frozen=True)
class Held:
    """One privilege through one role (or PUBLIC) on objects of one kind.

    `verdict`: needed; default (every role has it by default, or it neither writes nor reads a table by itself); or excess, all else.
    """

    kind: str
    privilege: str
    through: str
    verdict: str
    system: bool  # PostgreSQL's own objects, an extension's, other databases
    count: int
    objects: list[str]  # the first MOST_OBJECTS
    addresses: list[str]  # of the first few, as a REVOKE names them
    ours: bool  # audits, users and their partitions


def reached(crm: Crm) -> list[ReachedRole]:
    """The login first, then by name."""
    return [ReachedRole(*row) for row in crm.rows(REACHED)]


def held(crm: Crm, roles: list[ReachedRole]) -> list[Held]:
    """Every privilege that these roles and PUBLIC have in this database and on the server's shared objects, grouped."""
    parts = [RELATIONS, *OTHER_PARTS] + ([PARAMETERS] if crm.connection.info.server_version >= PARAMETER_LISTS_SINCE else [])
    statement = sql.SQL(HELD).format(
        roles=sql.SQL("{}::oid[]").format(sql.Literal([role.oid for role in roles])),
        parts=sql.SQL(" UNION ALL ").join(map(sql.SQL, parts)),
        first_normal=sql.Literal(FIRST_NORMAL),
        most=sql.Literal(MOST_OBJECTS),
    )
    return sorted(
        (Held(*row) for row in crm.rows(statement)), key=lambda each: (each.kind, each.privilege, each.through, each.system, each.ours)
    )


def elsewhere(crm: Crm, roles: list[ReachedRole]) -> tuple[int, int]:
    """How often the roles are named in access lists, and how much they own, in the server's other databases, where nobody can look."""
    query = """
        SELECT count(*) FILTER (WHERE deptype = 'a'), count(*) FILTER (WHERE deptype = 'o') FROM pg_shdepend
        WHERE refclassid = 'pg_authid'::regclass AND refobjid = ANY(%s::oid[])
          AND dbid NOT IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"""
    return crm.rows(query, ([role.oid for role in roles],))[0]


def row_security(crm: Crm) -> list[tuple[str, bool]]:
    """Of audits and users those under row security for this session, and whether a policy shows it every row all the same."""
    with translated(VARIABLE):
        return [(table, shows_all) for table, _, shows_all in hides_rows(crm.connection, ["audits", "users"])]
