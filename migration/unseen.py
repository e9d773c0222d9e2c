"""Characters that a reader would not see, and what stands for them: a name may turn the line round that it stands in, or command a terminal."""

import unicodedata

JOINERS = "\u200c\u200d"  # they hide nothing, and Persian words and emoji need them


def unseen(character: str) -> bool:
    """Control, format (bidirectional ones too), surrogate, private and unassigned characters, line and paragraph separators."""
    return not (character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs")


def mark(character: str) -> str:
    """What stands for it: ⟨U+202E⟩."""
    return f"⟨U+{ord(character):04X}⟩"


def for_terminal(text: str) -> str:
    """Text of any origin for a terminal; its lines stay lines."""
    return "".join(mark(each) if unseen(each) and each not in "\n\t" else each for each in text)
