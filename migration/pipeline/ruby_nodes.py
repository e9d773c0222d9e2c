"""YAML text -> one tree of nodes, by the parser that Psych itself uses, within limits; nothing is resolved or constructed here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from yaml import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    SafeLoader,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    YAMLError,
    __with_libyaml__,
)

from migration.pipeline.problems import Unreadable

if __with_libyaml__:
    from yaml import CSafeLoader as Parser  # libyaml, which is Psych's own parser
else:
    Parser = SafeLoader  # type: ignore[assignment, misc]


class UnreadableYaml(Unreadable):
    """YAML without a certain JSON form; `kind` is one of syntax, limit, shape, tag, value. The sentence never quotes a value."""

    def __init__(self, sentence: str, kind: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one audit may hold: bytes as read and after aliases are expanded, levels (below 150), values after expansion."""

    bytes: int = 8 * 1024 * 1024
    depth: int = 100
    nodes: int = 1_000_000


USUAL_LIMITS = Limits()


class Scalar(NamedTuple):
    """`is_plain`: its text is to be resolved. Psych writes symbols and nil keys that need quotes with the tag `!`, which is plain too."""

    text: str
    tag: str | None
    is_plain: bool


class Sequence(NamedTuple):
    """A list; the same node stands wherever an alias refers to it."""

    tag: str | None
    items: list["Node"]


class Mapping(NamedTuple):
    """Keys and values by turns in `items`."""

    tag: str | None
    items: list["Node"]

    def pairs(self) -> Iterator[tuple["Node", "Node"]]:
        """(key, value) in the order of the text."""
        return zip(self.items[::2], self.items[1::2], strict=True)


Node: TypeAlias = Scalar | Sequence | Mapping


def parse(text: str, limits: Limits) -> Node:
    """The one document in `text`. Raises UnreadableYaml: syntax, shape (no document, several, an alias to nothing or to itself), limit."""
    if len(text) > limits.bytes or len(text.encode(errors="replace")) > limits.bytes:
        raise UnreadableYaml(f"it is longer than {limits.bytes} bytes", "limit")
    try:
        return _Tree(limits).read(Parser(text))
    except UnreadableYaml:
        raise
    except _REFUSALS as error:
        # libyaml refuses half a surrogate pair, which JSON can hold; the parser in Python reads it.
        if len(text) < _LONGEST_FOR_PYTHON and _SURROGATE_ESCAPE.search(text):
            return _parse_in_python(text, limits)
        raise _syntax(error) from error


_REFUSALS = (YAMLError, ValueError, OverflowError)  # the latter two: characters beyond Unicode, half a surrogate pair in `text` itself
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST_FOR_PYTHON = 100_000  # characters; the parser in Python takes seconds beyond


def _parse_in_python(text: str, limits: Limits) -> Node:
    try:
        return _Tree(limits).read(SafeLoader(text))
    except UnreadableYaml:
        raise
    except _REFUSALS as error:
        raise _syntax(error) from error


def _syntax(error: Exception) -> UnreadableYaml:
    mark = getattr(error, "problem_mark", None)
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return UnreadableYaml(f"it is not YAML{place}", "syntax")


class _Anchored(NamedTuple):
    node: Node
    nodes: int
    characters: int
    height: int


@dataclass(slots=True)
class _Open:
    """A sequence or mapping whose end has not come yet, and the counts when it began."""

    node: Sequence | Mapping
    anchor: str | None
    nodes: int
    characters: int
    height: int = 1


class _Tree:
    """Builds the nodes of the one document; an alias is the same node again, counted as if it were written out."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.root: list[Node] = []
        self.open: list[_Open] = []
        self.anchors: dict[str, _Anchored] = {}
        self.nodes = self.characters = 0

    def read(self, parser: Any) -> Node:
        while type(event := parser.get_event()) is not StreamEndEvent:
            self._take(event)
        if len(self.root) != 1:
            raise UnreadableYaml(f"it holds {len(self.root)} YAML documents instead of one", "shape")
        return self.root[0]

    def _take(self, event: Any) -> None:
        kind = type(event)
        if kind is ScalarEvent:
            scalar = Scalar(event.value, event.tag, event.implicit[0])
            self._add(_Anchored(scalar, 1, len(event.value), 0), event.anchor)
        elif kind is MappingStartEvent:
            self._begin(Mapping(event.tag, []), event.anchor)
        elif kind is SequenceStartEvent:
            self._begin(Sequence(event.tag, []), event.anchor)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._end()
        elif kind is AliasEvent:
            self._add(self._known(event.anchor), None)

    def _add(self, found: _Anchored, anchor: str | None) -> None:
        self._count(found.nodes, found.characters, found.height)
        self._place(found, anchor)

    def _begin(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self.anchors.pop(anchor or "", None)
        self.open.append(_Open(node, anchor, self.nodes, self.characters))
        self._count(1, 0, 0)

    def _end(self) -> None:
        done = self.open.pop()
        found = _Anchored(done.node, self.nodes - done.nodes, self.characters - done.characters, done.height)
        self._place(found, done.anchor)

    def _place(self, found: _Anchored, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = found
        if self.open:
            parent = self.open[-1]
            parent.node.items.append(found.node)
            parent.height = max(parent.height, found.height + 1)
        else:
            self.root.append(found.node)

    def _known(self, anchor: str) -> _Anchored:
        if anchor not in self.anchors:
            raise UnreadableYaml("it refers to a value that is not there before, or holds itself", "shape")
        return self.anchors[anchor]

    def _count(self, nodes: int, characters: int, height: int) -> None:
        self.nodes += nodes
        self.characters += characters
        if len(self.open) + height > self.limits.depth:
            raise UnreadableYaml(f"it is nested deeper than {self.limits.depth} levels", "limit")
        if self.nodes > self.limits.nodes:
            raise UnreadableYaml(f"it holds more than {self.limits.nodes} values", "limit")
        if self.characters > self.limits.bytes:
            raise UnreadableYaml(f"it holds more than {self.limits.bytes} characters once its aliases are expanded", "limit")
