"""Gate A: the CRM's login may SELECT on audits and users, and nothing else; writes are really tried, and must be refused.

Readings. What PUBLIC has by default is listed and fails nothing, but CREATE on a schema fails through PUBLIC too, though PostgreSQL 14 gave
it on schema public: whoever has it makes tables. USAGE on a schema and CONNECT on a database write and read nothing by themselves: listed.
SECURITY DEFINER functions of the CRM's own run with another role's rights: excess. Every predefined role (pg_read_all_data, …) and every
role with an elevated attribute is an elevated one, where it is only one SET ROLE away too. Rows that row security hides are no SELECT.

Facts: {"server": {"version", "in_recovery", "role", "database", "address"}, "attributes": [names], "memberships": [{"role", "ok"}],
"grants": [{"object_type", "object", "privilege", "through": role or "PUBLIC", "verdict": "needed", "excess" or "default"}], excess first, at
most MOST_GRANTS, without what is only listed of PostgreSQL's own objects, of extensions and of other databases, "grants_total",
"write_attempts": [{"statement", "refused", "answer"}]}.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from psycopg import sql

from gates.probes import Finding, Measurement
from gates.probes.addresses import database
from gates.probes.rights import Held, ReachedRole, elsewhere, held, reached, row_security
from migration.crm import Crm
from migration.models import Account
from migration.worlds import address

MOST_GRANTS = 200
MOST_MEMBERSHIPS = 200
MOST_SENTENCES = 20
NAMED = 3  # objects in one sentence
ATTRIBUTES = "SUPERUSER, CREATEDB, CREATEROLE, REPLICATION, BYPASSRLS"
NOT_WRITABLE = "55000"  # a view that nobody can write
REFUSED = {"42501", "25006", NOT_WRITABLE}  # no privilege; a standby
ORDER = ("excess", "needed", "default")


def configuration(account: Account | None) -> dict[str, str]:
    """The CRM's address and login."""
    return {"CRM_DATABASE_URL": database("CRM_DATABASE_URL")}


def measure(account: Account | None) -> Measurement:
    """Look at every privilege of the login, and try to write. Raises Outage and Misconfigured."""
    with closing(Crm()) as crm:
        server, roles = server_facts(crm), reached(crm)
        groups, attempts = held(crm, roles), [attempt(crm, statement) for statement in writes(crm)]
        findings = [
            server_finding(server),
            *attribute_findings(roles),
            *grant_findings(groups, roles),
            *row_security_findings(crm, server["role"]),
            *attempt_findings(attempts),
            *other_databases(crm, roles),
        ]
    grants = listed(groups)
    facts = {
        "server": server,
        "attributes": sorted({name for role in roles if role.own for name in role.attributes}),
        "memberships": [{"role": role.name, "ok": is_plain(role)} for role in roles if not role.own][:MOST_MEMBERSHIPS],
        "grants": grants[:MOST_GRANTS],
        "grants_total": sum(group.count for group in groups if shown(group)),
        "write_attempts": attempts,
    }
    return Measurement(findings, facts)


def server_facts(crm: Crm) -> dict[str, Any]:
    row = crm.rows("SELECT current_setting('server_version'), pg_is_in_recovery(), session_user::text, current_database()::text")[0]
    return dict(zip(("version", "in_recovery", "role", "database"), row, strict=True)) | {"address": address("CRM_DATABASE_URL")}


def server_finding(server: dict[str, Any]) -> Finding:
    what = (
        "a replica in recovery: nobody can write there"
        if server["in_recovery"]
        else "no replica (not in recovery): only the login's rights keep it from being written"
    )
    return Finding(None, f"The CRM at {server['address']} is PostgreSQL {server['version']}, {what}.")


def attribute_findings(roles: list[ReachedRole]) -> Iterator[Finding]:
    """Of the login, and of every role that it can become."""
    login = roles[0].name
    own = [role for role in roles if role.own and role.attributes]
    for role in own:
        cure = " ".join(f"NO{name}" for name in role.attributes)
        yield Finding(False, f"Role {role.name} has {', '.join(role.attributes)}: ALTER ROLE {quoted(role.name)} {cure}.")
    others = [role for role in roles if not role.own]
    elevated = [role for role in others if not is_plain(role)]
    for role in elevated[:MOST_SENTENCES]:
        yield Finding(
            False, f"Role {login} can become {role.name}, {elevation(role)}: take it out of that role (REVOKE {quoted(role.name)} …)."
        )
    if len(elevated) > MOST_SENTENCES:
        yield Finding(False, f"Role {login} can become {len(elevated) - MOST_SENTENCES} more elevated roles.")
    if not own and not elevated:
        plain = f" (in {len(others)} roles of no elevation: {some([role.name for role in others], len(others))})" if others else ""
        yield Finding(True, f"Role {login} has none of {ATTRIBUTES}, and can become no role that has{plain}.")


def is_plain(role: ReachedRole) -> bool:
    """Whether membership in it gives nothing but what its own grants say."""
    return not (role.predefined or role.attributes or role.administers)


def elevation(role: ReachedRole) -> str:
    if role.attributes:
        return f"which has {', '.join(role.attributes)}"
    return "one of PostgreSQL's own elevated roles" if role.predefined else "and may let others in (ADMIN OPTION)"


def grant_findings(groups: list[Held], roles: list[ReachedRole]) -> Iterator[Finding]:
    """What is excess, each with its cure; then what is needed, and what is only listed."""
    login, own = roles[0].name, {role.name for role in roles if role.own}
    excess = [group for group in groups if group.verdict == "excess"]
    for group in excess[:MOST_SENTENCES]:
        through = "" if group.through in own else f" (through {group.through})"
        yield Finding(False, f"Role {login} {holding(group)}{through}: {cure(group, login, own)}.")
    if len(excess) > MOST_SENTENCES:
        yield Finding(
            False, f"Role {login} has {len(excess) - MOST_SENTENCES} more kinds of privileges that it does not need: see the grants."
        )
    if not excess:
        yield Finding(True, f"Role {login} has SELECT on audits and users, and no other privilege to read a table or to write anything.")
    yield Finding(None, f"Listed, as every role has it by default or it neither writes nor reads a table by itself: {in_short(groups)}.")


def holding(group: Held) -> str:
    """`has SELECT on table public.a`, or `has SELECT on 5 tables: public.a, public.b, public.c and 2 more`."""
    if group.kind == "default privilege":
        return f"will have {group.privilege} on what is made from now on ({some(group.objects, group.count)})"
    if group.count == 1:
        return f"has {group.privilege} on {group.kind} {group.objects[0]}"
    return f"has {group.privilege} on {group.count} {group.kind}s: {some(group.objects, group.count)}"


def some(names: list[str], count: int) -> str:
    return ", ".join(names[:NAMED]) + (f" and {count - NAMED} more" if count > NAMED else "")


def cure(group: Held, login: str, own: set[str]) -> str:
    """The statement that takes the privilege away; on a replica it is run on the primary."""
    if group.through not in own and group.through != "PUBLIC":
        return f"take {login} out of role {group.through}, or take the privilege from that"
    whom = "PUBLIC" if group.through == "PUBLIC" else quoted(group.through)
    first, further = group.addresses[0], ", and so for the others" if group.count > 1 else ""
    if group.privilege == "OWNER":
        return f"give it to another owner (ALTER{first.removeprefix(' ON')} OWNER TO …{further})"
    if group.kind == "default privilege":
        target, _, what = first.rpartition(" ON ")
        return f"ALTER DEFAULT PRIVILEGES {target} REVOKE {group.privilege} ON {what} FROM {whom}{further}"
    needed = group.ours and group.privilege == "SELECT WITH GRANT OPTION"
    privilege = group.privilege.removesuffix(" WITH GRANT OPTION")
    return f"REVOKE {'GRANT OPTION FOR ' if needed else ''}{privilege}{first} FROM {whom}{further}"


def in_short(groups: Iterable[Held]) -> str:
    """CONNECT on 2 databases, EXECUTE on 3214 functions, …"""
    counts: dict[tuple[str, str], int] = {}
    for group in groups:
        if group.verdict == "default":
            counts[group.privilege, group.kind] = counts.get((group.privilege, group.kind), 0) + group.count
    return ", ".join(f"{privilege} on {n} {kind}{'' if n == 1 else 's'}" for (privilege, kind), n in sorted(counts.items()))


def shown(group: Held) -> bool:
    """What every role may do with PostgreSQL's own objects is counted in words only: thousands of functions."""
    return not (group.system and group.verdict == "default")


def listed(groups: list[Held]) -> list[dict[str, str]]:
    """One row for each grant, excess first."""
    ordered = sorted(filter(shown, groups), key=lambda group: ORDER.index(group.verdict))
    return [
        {"object_type": g.kind, "object": name, "privilege": g.privilege, "through": g.through, "verdict": g.verdict}
        for g in ordered
        for name in g.objects
    ]


def row_security_findings(crm: Crm, role: str) -> Iterator[Finding]:
    for table, shows_all in row_security(crm):
        if shows_all:
            yield Finding(True, f"Table {table} is under row security, and a policy shows role {role} every row.")
        else:
            yield Finding(
                False,
                f"Table {table} is under row security, which may hide rows from role {role}, and so history: "
                f"CREATE POLICY calm_console ON {table} FOR SELECT TO {quoted(role)} USING (true).",
            )


def writes(crm: Crm) -> list[sql.Composed]:
    """Statements that would write, each to no row at all: harmless even where they are allowed."""
    query = """SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.oid IN (to_regclass('audits'), to_regclass('users')) ORDER BY c.relname = 'users', 1"""
    tables = [sql.Identifier(*row) for row in crm.rows(query)]
    found = []
    for table, column in zip(tables, (sql.Identifier("action"), sql.Identifier("email")), strict=True):
        for text in (
            "INSERT INTO {table} ({column}) SELECT {column} FROM {table} WHERE false",
            "UPDATE {table} SET {column} = {column} WHERE false",
            "DELETE FROM {table} WHERE false",
        ):
            found.append(sql.SQL(text).format(table=table, column=column))
    schema = crm.rows("SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('audits')")[0][0]
    return [*found, sql.SQL("CREATE TABLE {}.calm_console_probe ()").format(sql.SQL(schema))]


def attempt(crm: Crm, statement: sql.Composed) -> dict[str, Any]:
    state, answer = crm.refusal(statement)
    return {"statement": statement.as_string(crm.connection), "refused": state in REFUSED, "answer": answer}


def attempt_findings(attempts: list[dict[str, Any]]) -> Iterator[Finding]:
    through = [each for each in attempts if not each["refused"]]
    for each in through:
        yield Finding(False, f"A write was not refused ({each['statement']}: {each['answer']}); it concerned no row and was taken back.")
    if not through:
        yield Finding(True, f"{len(attempts)} writes were tried outside the session's own read-only setting, and the server refused each.")


def other_databases(crm: Crm, roles: list[ReachedRole]) -> Iterator[Finding]:
    grants, owned = elsewhere(crm, roles)
    if grants or owned:
        yield Finding(
            None,
            f"In other databases of this server, where the probe cannot look, {grants} access lists name role {roles[0].name} or a role "
            f"that it can become, and they own {owned} objects.",
        )


def quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
