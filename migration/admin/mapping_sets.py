"""Id-sets of single accounts as rows: organisation, which set, its ids. A row without ids says that the account has none."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from migration.admin import typed
from migration.admin.mapping_fields import BLANK, ROWS, Field, Row, Sink, rows_sent
from migration.mapping import ID_SET_OF_ROLE
from migration.mapping_checks import shown as shown_key

NAME = "account_id_sets"
SETS = tuple(ID_SET_OF_ROLE.values())


@dataclass(frozen=True)
class AccountSets:
    """`account_id_sets`; where there are many, ROWS at a time."""

    label: str = "Sets of single accounts"
    about: str = "Such a set replaces the one above for this account; without ids it is empty."
    csv: str = ""
    template = "admin/migration/mappingdraft/table.html"

    @property
    def name(self) -> str:
        return NAME

    def size(self, document: Mapping[str, Any]) -> int:
        return len(list(triples(document)))

    def shown(self, document: Mapping[str, Any], start: int) -> list[Row]:
        entries = list(triples(document))
        first = start if len(entries) > ROWS else 0
        here = enumerate(entries[first : first + ROWS])
        rows = [row(n, first + n + 1, (account, name, typed.lines_field(ids))) for n, (account, name, ids) in here]
        return rows + [row(len(rows) + n, 0, ("", "", "")) for n in range(BLANK)]

    def posted(self, old: Mapping[str, Any], new: dict[str, Any], data: Mapping[str, str], start: int) -> list[Row]:
        rows = []
        for n in range(rows_sent(NAME, data, ROWS + BLANK)):
            texts = tuple(data.get(f"{NAME}.{n}.{key}", "") for key in ("account", "set", "ids"))
            rows.append(row(n, 0, texts, bool(data.get(f"{NAME}.{n}.remove"))))
        entries = list(triples(old))
        first = start if len(entries) > ROWS else 0
        found: dict[str, dict[str, list[Any]]] = {}
        for account, name, ids in [*entries[:first], *entries[first + ROWS :]]:
            found.setdefault(account, {})[name] = ids
        for each in rows:
            if not each.removed and not each.is_blank:
                take(each, found)
        new[NAME] = found
        return rows

    def sinks(self, rows: list[Row]) -> dict[str, Sink]:
        """A problem names the organisation and the set: it is shown at the first row that has them."""
        found: dict[str, Sink] = {}
        for at, each in enumerate(rows):
            if each.removed or each.is_blank:
                continue
            place = f"{NAME}.{shown_key(each.fields[0].text.strip())}"
            found.setdefault(place, each.fields[0])
            found.setdefault(f"{place}.{each.fields[1].text}", each.fields[2])
            found[f"row {at}"] = each  # problems that were found before the mapping's own check
            found |= {f"row {at}, field {n}": made for n, made in enumerate(each.fields)}
        return found


def triples(document: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    for account, sets in document.get(NAME, {}).items():
        for name, ids in sets.items():
            yield account, name, ids


def row(n: int, number: int, texts: tuple[str, ...], removed: bool = False) -> Row:
    name = f"{NAME}.{n}"
    account, chosen, ids = texts
    return Row(
        fields=[
            Field(name=f"{name}.account", label="Organisation id", text=account),
            Field(name=f"{name}.set", label="Set", text=chosen, kind="choice", choices=SETS),
            Field(name=f"{name}.ids", label="Ids, one a line", text=ids, kind="lines"),
        ],
        name=name,
        number=number,
        removed=removed,
    )


def take(each: Row, found: dict[str, dict[str, list[Any]]]) -> None:
    """Add what the row says, or the reason why it says nothing."""
    account, chosen, ids = each.fields
    key = account.text.strip()
    if not key or chosen.text not in SETS:
        each.problems.append("needs an organisation id and a set")
    elif chosen.text in found.get(key, {}):
        each.problems.append(f"there is another row for {chosen.text} of this organisation; put the ids into one")
    else:
        found.setdefault(key, {})[chosen.text] = ids.read(typed.read_lines) or []
