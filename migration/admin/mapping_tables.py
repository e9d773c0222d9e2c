"""The tables of a mapping document: joins and overrides, column by column."""

from migration.admin import typed
from migration.admin.mapping_fields import Column, Table
from migration.mapping import ACTIONS, ActorKind

ACCOUNT = Column("account", "Organisation id (empty: all)", read=typed.read_whole)

DEAL_CONTACT_JOINS = Table(
    ("class_roles", "deal_contact_join"),
    "Joins of deals and contacts",
    (Column("class", "Class"), Column("deal", "Attribute of the deal's id"), Column("contact", "Attribute of the contact's id")),
)
DEAL_COMPANY_JOINS = Table(
    ("class_roles", "deal_company_join"),
    "Joins of deals and companies",
    (Column("class", "Class"), Column("deal", "Attribute of the deal's id"), Column("company", "Attribute of the company's id")),
)
CATEGORY_OVERRIDES = Table(
    ("category_overrides",),
    "Overrides",
    (
        ACCOUNT,
        Column("class", "Class"),
        Column("action", "Action", choices=ACTIONS),
        Column("attribute", "Attribute (empty: any)"),
        Column("to", "New value, as JSON (empty: any)", show=typed.value_field, read=typed.read_value, left_out=True),
        Column("category", "Category"),
        Column("priority", "Priority", read=typed.read_whole),
    ),
    about='A new value is written as JSON: text in quotation marks ("lost"); numbers, true, false and null without.',
    csv="category_overrides",
)
ACTOR_OVERRIDES = Table(
    ("actor_overrides",),
    "Overrides",
    (
        ACCOUNT,
        Column("crm_user_id", "CRM user id"),
        Column("label", "or label"),
        Column("kind", "Kind", choices=tuple(str(kind) for kind in ActorKind)),
        Column("actor_id", "Actor's id"),
        Column("actor_name", "Actor's name"),
    ),
    about="Each row names either a CRM user or a label.",
    csv="actor_overrides",
)
