"""The parts of a mapping document as fields for people: shown from the document, read back from what was posted, problems in their places."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from migration.admin.mapping_fields import Field, Lines, One, Sink, Table, for_people
from migration.admin.mapping_sets import AccountSets
from migration.admin.mapping_tables import ACTOR_OVERRIDES, CATEGORY_OVERRIDES, DEAL_COMPANY_JOINS, DEAL_CONTACT_JOINS

Piece = Lines | One | Table | AccountSets


@dataclass(frozen=True)
class Part:
    """What one page edits."""

    name: str
    title: str
    about: str
    pieces: tuple[Piece, ...]


PARTS = {
    part.name: part
    for part in (
        Part(
            "classes",
            "Classes",
            "Which class of the CRM plays which role, one class a line. A class has one role.",
            (
                Lines(("class_roles", "contact"), "Contact", "Crm::Person, and the names it had before."),
                Lines(("class_roles", "company"), "Company"),
                Lines(("class_roles", "deal"), "Deal"),
                Lines(("class_roles", "task"), "Task"),
                Lines(("class_roles", "ticket"), "Ticket"),
                Lines(("class_roles", "note"), "Note"),
                DEAL_CONTACT_JOINS,
                DEAL_COMPANY_JOINS,
            ),
        ),
        Part(
            "attributes",
            "Attributes and secrets",
            "The attributes of the CRM's records that tell a status or a name, and those that are never copied.",
            (
                One(("status_attributes", "deal"), "A deal's status is in"),
                One(("status_attributes", "task"), "A task's status is in"),
                One(("status_attributes", "ticket"), "A ticket's status is in"),
                One(("name_attributes", "deal"), "A deal's name is in"),
                One(("name_attributes", "company"), "A company's name is in"),
                Lines(("secrets",), "Secrets", "One attribute a line; * stands for any characters, ? for one."),
            ),
        ),
        Part(
            "ids",
            "Won, done, resolved",
            "Which ids (or enum names) of stages and statuses mean that something is finished, one a line.",
            (
                Lines(("id_sets", "won"), "Won", "Ids of deal stages."),
                Lines(("id_sets", "done"), "Done", "Ids of task statuses."),
                Lines(("id_sets", "resolved"), "Resolved", "Ids of ticket statuses."),
                AccountSets(),
            ),
        ),
        Part(
            "category_overrides",
            "Category overrides",
            "They come before the rules; of several that fit an audit, the highest priority wins, and an account's own before one for all.",
            (CATEGORY_OVERRIDES,),
        ),
        Part(
            "actor_overrides",
            "Actor overrides",
            "Who acted, for a CRM user id or for a label; they come before the rules.",
            (ACTOR_OVERRIDES,),
        ),
    )
}


@dataclass
class Form:
    """One part's pieces with what they show: (piece, its fields or rows). `problems` are those that have no place on this page."""

    part: Part
    shown: list[tuple[Piece, Any]]
    start: int
    problems: list[str] = field(default_factory=list)
    sinks: dict[str, Sink] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    wrong: bool = False

    def place(self, problems: Iterable[str]) -> None:
        """Put each of MappingError's sentences beside what it is about: the longest place that it begins with."""
        for problem in problems:
            self.wrong = True
            fits = [at for at in self.sinks if problem.startswith(at) and problem[len(at) : len(at) + 1] in (":", ".", "[")]
            if fits:
                at = max(fits, key=len)
                if at not in self.unread:  # what cannot be read has its reason already
                    self.sinks[at].take(problem[len(at) :])
            else:
                self.problems.append(for_people(problem))


def shown(part: Part, document: Mapping[str, Any], start: int = 0) -> Form:
    """The form as the document fills it; `start` is the first row of a long table."""
    return Form(part, [(piece, piece.shown(document, start)) for piece in part.pieces], start)


def posted(part: Part, document: Mapping[str, Any], data: Mapping[str, str], start: int) -> tuple[Form, dict[str, Any]]:
    """The form as it was sent, and the document with what it says. The form is `wrong` where a field cannot be read at all."""
    new = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    form = Form(part, [], start)
    for piece in part.pieces:
        fields: Any = piece.posted(document, new, data, start)
        form.shown.append((piece, fields))
        form.sinks |= piece.sinks(fields)
    form.unread = {place for place, sink in form.sinks.items() if sink.problems}
    form.wrong = bool(form.unread)
    return form, new


__all__ = ["PARTS", "Field", "Form", "Part", "posted", "shown"]
