"""Two mapping documents compared by what they mean, line by line."""

import difflib
import json
from typing import Any

from migration.mapping import MappingError, canonical


def lines(document: Any) -> list[str]:
    """The document as indented JSON; every override on its own lines."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def changes(before: Any, after: Any) -> list[tuple[str, str]]:
    """What the later one adds ("+"), drops ("-") and leaves around them (" "), line by line; "@" where lines are left out."""
    compared = list(difflib.unified_diff(lines(meaning(before)), lines(meaning(after)), lineterm="", n=3))[2:]
    return [(line[0], line[1:] if line[0] != "@" else "") for line in compared]


def meaning(document: Any) -> Any:
    """The document in its normal form, in which order and ways of writing make no difference; as it is where it has none."""
    try:
        return json.loads(canonical(document))
    except MappingError:
        return document
