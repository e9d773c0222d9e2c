"""Two mapping documents compared by what they mean, line by line."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from migration.mapping import MappingError, canonical
from migration.mapping_json import json_text

AROUND = 3  # lines that stay, before and after one that changes
MOST_LINES = 2_000  # on a page: of thousands of overrides it would be megabytes
MISSING = object()

Line = tuple[str, str]


def lines(document: Any) -> list[str]:
    """The document as indented JSON; every override on its own lines."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def changes(before: Any, after: Any) -> list[Line]:
    """What the later one adds ("+"), drops ("-") and leaves around them (" "), line by line; "@" where lines are left out."""
    found = near_changes(list(compared(meaning(before), meaning(after))))
    left = len(found) - MOST_LINES
    return found if left <= 0 else [*found[:MOST_LINES], ("@", f" and {left:,} more lines")]


def compared(old: Any, new: Any, depth: int = 0, name: str = "", commas: tuple[str, str] = ("", "")) -> Iterator[Line]:
    """All lines of the two. In their normal form lists are sets: an entry is in both or in one. Of thousands difflib takes half a minute."""
    if both(object, old, new) and json_text(old) == json_text(new):
        yield from signed(" ", new, depth, name, commas[1])
    elif both(dict, old, new):
        yield " ", f"{'  ' * depth}{name}{{"
        yield from compared_entries(old, new, depth + 1, lambda key: f"{json.dumps(key, ensure_ascii=False)}: ")
        yield " ", f"{'  ' * depth}}}{commas[1]}"
    elif both(list, old, new):
        yield " ", f"{'  ' * depth}{name}["
        yield from compared_entries(
            {json_text(each): each for each in old}, {json_text(each): each for each in new}, depth + 1, lambda _: ""
        )
        yield " ", f"{'  ' * depth}]{commas[1]}"
    else:
        yield from signed("-", old, depth, name, commas[0])
        yield from signed("+", new, depth, name, commas[1])


def compared_entries(old: dict[str, Any], new: dict[str, Any], depth: int, name: Callable[[str], str]) -> Iterator[Line]:
    last = max(old, default=""), max(new, default="")
    for key in sorted({*old, *new}):
        commas = "," * (key != last[0]), "," * (key != last[1])
        yield from compared(old.get(key, MISSING), new.get(key, MISSING), depth, name(key), commas)


def both(kind: type, old: Any, new: Any) -> bool:
    return MISSING not in (old, new) and isinstance(old, kind) and isinstance(new, kind)


def signed(sign: str, value: Any, depth: int, name: str, comma: str) -> list[Line]:
    """The lines of a value that is on one side, or the same on both; none where it is missing."""
    if value is MISSING:
        return []
    first, *others = lines(value)
    texts = [name + first, *others]
    texts[-1] += comma
    return [(sign, "  " * depth + text) for text in texts]


def near_changes(whole: list[Line]) -> list[Line]:
    """The lines that change, with those around them."""
    changed = [place for place, (sign, _) in enumerate(whole) if sign != " "]
    kept = sorted({near for place in changed for near in range(place - AROUND, place + AROUND + 1) if 0 <= near < len(whole)})
    found, last = [], -1
    for place in kept:
        found += [("@", "")] * (place > last + 1) + [whole[place]]
        last = place
    return [*found, ("@", "")] if kept and last < len(whole) - 1 else found


def meaning(document: Any) -> Any:
    """The document in its normal form, in which order and ways of writing make no difference; as it is where it has none."""
    try:
        return json.loads(canonical(document))
    except MappingError:
        return document
