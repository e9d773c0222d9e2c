"""Whom an audit concerns, asked about many contacts at once, against the rule asked audit by audit."""

from contextlib import closing

import pytest
from psycopg import sql

from migration import mapping as mappings
from migration.crm import Crm
from migration.pipeline.records import Links
from migration.planning import sources
from tests.conftest import rows
from tests.migration.conftest import mapping_document

# (class, record, associated class, associated record): who is asked about is 90001, 90002 and 90003, nobody else.
ODD = [
    ("Crm::Person", 90001, None, None),
    ("Contact", 90001, "Contact", 90002),  # about one of them, and hung on another: the first one's alone
    ("Crm::Person", 90009, "Crm::Person", 90003),  # about somebody else, hung on one of them: nobody's here
    ("Crm::Person", 90003, "Crm::Person", 90009),
    ("Crm::Note", 90001, "Crm::Person", 90002),  # a note whose own id is a person's
    ("Crm::Note", 90002, "Crm::Deal", 90001),
    ("Crm::Task", 7, "Contact", 90003),
    ("Crm::Deal", 90001, "Crm::Person", 90001),  # a deal is a contact's by its links alone
    ("Crm::Ticket", 8, None, 90001),
    ("Crm::Person", None, "Crm::Person", 90001),
]
ASKED = [90001, 90002, 90003]


@pytest.mark.parametrize("kind", ["bigint", "integer", "varchar"])
def test_each_audit_is_told_once_for_whom_it_concerns(systems, kind):
    insert = "INSERT INTO audits (auditable_type, auditable_id, associated_type, associated_id, action, audited_changes, version, created_at) VALUES "
    values = ", ".join(f"({', '.join(map(literal, each))}, 'update', '{{}}', 1, '2020-01-01')" for each in ODD)
    systems.change_crm(
        f"ALTER TABLE audits ALTER auditable_id TYPE {kind} USING auditable_id::{kind}, ALTER associated_id TYPE {kind} USING associated_id::{kind}",
        insert + values,
    )
    if kind == "varchar":  # an id that is no number must not be read as one, wherever it stands
        systems.change_crm(insert + "('Crm::Person', 'a-uuid', 'Crm::Person', '90001', 'update', '{}', 1, '2020-01-01')")
    mapping = mappings.parse(mapping_document())
    with closing(Crm()) as crm:
        [source] = sources(crm, mapping, ASKED, Links())
        found = source.rows(crm, sql.SQL("SELECT a.person, a.id FROM {} a").format(source.text))
    wanted = rows(
        systems.crm,
        """SELECT auditable_id::text, id FROM audits WHERE auditable_type IN ('Contact', 'Crm::Person') AND auditable_id::text = ANY(%(asked)s)
           UNION ALL
           SELECT associated_id::text, id FROM audits WHERE associated_type IN ('Contact', 'Crm::Person') AND associated_id::text = ANY(%(asked)s)
           AND auditable_type IN ('Crm::Note', 'Crm::Task', 'Crm::Ticket')""",
        {"asked": [str(person) for person in ASKED]},
    )
    assert sorted((str(person), audit) for person, audit in found) == sorted(wanted)
    assert len(wanted) == 5


def literal(value: object) -> str:
    return "NULL" if value is None else f"'{value}'"
