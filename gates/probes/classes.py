"""Gate E: which classes, attributes and ids of the mapping occur in the audits, and which of the audits' own are in no role or id-set.

Fails: a role none of whose classes occurs; an id-set none of whose ids occurs (an account's own set counts by itself); a join class's role
whose audits never hold one of its attributes, since no link would be found. A role without classes and a set without ids are for the
signers to judge: so a CRM without tickets says that it has none.

Facts: {"roles": [{"role", "class", "rows", "counted_all"}], "attributes": [{"class", "attribute", "rows"}],
"id_sets": [{"set", "account": null or CRM organisation id, "id", "rows"}], "unnamed_statuses": [{"role", "value", "rows"}],
"unroled_classes": [{"class", "rows", "counted_all"}], "looked_at": {"classes", "all_classes", "audits": [{"class", "looked_at", "all_of_it"}]}}.
Rows of roles and classes are of the whole table, counted up to a bound; those of attributes, ids and statuses are of the audits looked at.
"""

import time
from contextlib import closing
from typing import Any

from gates.probes import Finding, Measurement, by_index, census
from gates.probes.addresses import database
from gates.probes.class_findings import Census, by_number, expected, findings, named_ids, unnamed, unroled
from migration import mapping as mappings
from migration import revisions
from migration.crm import Crm
from migration.mapping import ID_SET_OF_ROLE, Mapping, Role
from migration.models import Account

STATEMENT_SECONDS = 10
LOOK_SECONDS = 30  # for all classes together
MOST_FACTS = 500
NO_MAPPING = "No mapping is published, so there is nothing to confirm: run `manage.py publish_mapping --file mapping.json`."


def configuration(account: Account | None) -> dict[str, str]:
    """The CRM, and the whole mapping: another revision is another thing that was signed."""
    revision = revisions.current()
    return {"CRM_DATABASE_URL": database("CRM_DATABASE_URL"), "mapping revision": revision.digest[:12] if revision else "none"}


def measure(account: Account | None) -> Measurement:
    """Look at the audits. Raises Outage and Misconfigured."""
    revision = revisions.current()
    if revision is None:
        return Measurement([Finding(False, NO_MAPPING)])
    mapping = mappings.parse(revision.document)
    try:
        found = taken(mapping)
    except by_index.NoIndex as error:
        return Measurement([Finding(False, no_index(error))])
    return Measurement(list(findings(mapping, found)), facts(mapping, found))


def taken(mapping: Mapping) -> Census:
    found = Census()
    with closing(Crm()) as crm:
        by_index.prepare(crm, STATEMENT_SECONDS)
        found.classes = census.class_names(crm)
        for name in [*mapping.role_of, *unroled(mapping, found)]:
            found.rows[name] = census.count(crm, name)
        looked = {name: expected(mapping, name) for name in mapping.role_of if expected(mapping, name) and found.occurs(name)}
        for name, keys in looked.items():
            status, wanted = status_of(mapping, name)
            until = time.monotonic() + LOOK_SECONDS / len(looked)
            found.seen[name] = census.look(crm, name, keys, status, wanted, until=until)
    return found


def status_of(mapping: Mapping, name: str) -> tuple[str, set[str]]:
    """The class's status attribute ("" for none), and every id that a set, global or an account's, names for it."""
    role = mapping.role_of[name]
    return mapping.status_attributes.get(role, ""), named_ids(mapping, role)


def no_index(error: by_index.NoIndex) -> str:
    return (
        f"The CRM has no index that leads from a class to its audits ({error}), and without one the whole table would be read: "
        "see gate B for the index that is missing."
    )


def facts(mapping: Mapping, found: Census) -> dict[str, Any]:
    return {
        "roles": [
            {"role": role, "class": name, "rows": found.rows[name][0], "counted_all": found.rows[name][1]}
            for role in Role
            for name in mapping.classes(role)
        ],
        "attributes": [
            {"class": name, "attribute": each, "rows": seen.attributes[each]}
            for name, seen in found.seen.items()
            for each in expected(mapping, name)
        ],
        "id_sets": id_rows(mapping, found)[:MOST_FACTS],
        "unnamed_statuses": [
            {"role": role, "value": value, "rows": rows} for role in ID_SET_OF_ROLE for value, rows in unnamed(mapping, found, role)
        ][:MOST_FACTS],
        "unroled_classes": [
            {"class": name, "rows": found.rows[name][0], "counted_all": found.rows[name][1]} for name in unroled(mapping, found)
        ],
        "looked_at": {
            "classes": min(len(found.classes), census.MOST_CLASSES),
            "all_classes": len(found.classes) <= census.MOST_CLASSES,
            "audits": [
                {"class": name, "looked_at": seen.audits, "all_of_it": found.rows[name] == (seen.audits, True)}
                for name, seen in found.seen.items()
            ],
        },
    }


def id_rows(mapping: Mapping, found: Census) -> list[dict[str, Any]]:
    """Every id of every set with the audits that hold it; those that none holds first."""
    held = {name: found.ids(mapping, role) for role, name in ID_SET_OF_ROLE.items()}
    rows = [
        {"set": name, "account": account, "id": each, "rows": held[name][each]}
        for (account, name), ids in mapping.id_sets.items()
        for each in sorted(ids, key=by_number)
    ]
    return sorted(rows, key=lambda row: row["rows"] > 0)
