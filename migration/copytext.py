r"""PostgreSQL's COPY text format, one field at a time: `\N` is NULL, a backslash escapes tab, newline, return and itself.

Source: PostgreSQL documentation, COPY, "Text Format". The hot path carries fields through unread; these are for those it must read.
"""

import re

NULL = b"\\N"
SPACE = rb"(?:\s|\\[nrt])*"  # a pattern: a line break is a backslash and a letter
_UNESCAPE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPE = str.maketrans({"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"})


def read(field: bytes) -> str | None:
    """The text of one field, or None for NULL."""
    if field == NULL:
        return None
    return unescape(field).decode()


def unescape(field: bytes) -> bytes:
    """The field's bytes with COPY's escapes undone; NULL is the caller's to look for."""
    if b"\\" not in field:
        return field
    return re.sub(rb"\\(.)", lambda match: _UNESCAPE.get(match[1], match[1]), field, flags=re.DOTALL)


def write(text: str | None) -> bytes:
    """One field for COPY FROM STDIN, as the server itself would write it."""
    if text is None:
        return NULL
    return text.translate(_ESCAPE).encode()
