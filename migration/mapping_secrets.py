r"""The secrets list as regular expressions: one for a key, one for a quick look at raw JSON that is not parsed.

A glob knows `*` (any characters, or none) and `?` (one character); everything else is itself, and ASCII letters are without case.
All of them take time linear in the text, since texts of 400 kB occur and globs are whatever staff write.
"""

import re
from collections.abc import Sequence

from migration import copytext

_NEVER = "(?!)"
_INSIDE = rb'[^"\\]'  # a byte of a key that is written without escapes
_ESCAPED_KEY = rb'\\.[^"\\]*+"'  # from the last escape of a key to its end
_NO_OTHER_ESCAPE = re.compile(r'[^"\\/\x00-\x1f]+')
_COLON = copytext.SPACE + b":"

ESCAPED_KEY = re.compile(
    _ESCAPED_KEY + _COLON, re.DOTALL
)  # in raw JSON; begins with a letter of its own, so that most texts are passed over quickly


def key_pattern(globs: Sequence[str]) -> re.Pattern[str]:
    """A pattern whose fullmatch tells a secret key."""
    return re.compile("|".join(map(_whole_key, globs)) or _NEVER, re.IGNORECASE | re.ASCII | re.DOTALL)


def raw_key_pattern(globs: Sequence[str]) -> re.Pattern[bytes]:
    r"""A pattern that finds every secret key, and some others, in the bytes of a JSON text, or of its field in COPY's text format.

    `json` columns keep escapes such as `"\u0065ncrypted_password"`, so every key with a backslash is found.
    """
    if not globs:
        return re.compile(_NEVER.encode())
    alternatives = b"|".join([*map(_end_of_key, globs), _ESCAPED_KEY])
    return re.compile(b"(?:" + alternatives + b")" + _COLON, re.IGNORECASE | re.DOTALL)


def raw_literals(globs: Sequence[str]) -> tuple[bytes, ...] | None:
    """In lower case, a piece of each glob's last part: raw JSON without any of them, and without a key that holds `\\u`, holds no secret key.

    None where a glob has no such piece, or one with a character that JSON may write as another escape.
    """
    pieces = [max(next((part for part in reversed(glob.split("*")) if part), "").split("?"), key=len) for glob in globs]
    return tuple(piece.encode().lower() for piece in pieces) if all(map(_NO_OTHER_ESCAPE.fullmatch, pieces)) else None


def _whole_key(glob: str) -> str:
    """The first match of each part between stars is the right one, so a part once found (an atomic group) is never looked for again."""
    first, *others = ("".join("." if character == "?" else re.escape(character) for character in part) for part in glob.split("*"))
    if not others:
        return first
    return first + "".join(f"(?>.*?{part})" for part in others[:-1] if part) + ".*" + others[-1]


def _end_of_key(glob: str) -> bytes:
    """What a raw key that fits the glob ends with, up to its closing quote: only the glob's last part is looked for."""
    parts = glob.split("*")
    last = _raw(next((part for part in reversed(parts) if part), ""))
    if len(parts) == 1:
        return b'"' + last + b'"'
    if parts[-1] or not last:
        return last + b'"'
    if not any(parts[1:]):
        return b'"' + last + _INSIDE + b'*+"'
    return last + b"(?:(?!" + last + b")" + _INSIDE + b')*+"'


def _raw(part: str) -> bytes:
    """A part of a glob in UTF-8, where one character takes up to four bytes."""
    return b"".join(_INSIDE + b"{1,4}" if character == "?" else re.escape(character.encode()) for character in part)
