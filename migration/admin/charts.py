"""The geometry of bars: shares in percent, ready for the attributes of an SVG. Widths come as text, so no locale touches them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST = 0.6  # percent of the width that a part gets so that one candidate in a million is still seen


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart; `width` is relative to the longest bar, `share` to the sum."""

    label: str
    count: int
    width: str
    share: str


def bars(counts: Mapping[str, int]) -> list[Bar]:
    """One bar for each count, the longest first."""
    longest, total = max(counts.values(), default=0), sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Bar(label, count, percent(count, longest), share(count, total)) for label, count in ordered]


@dataclass(frozen=True)
class Slice:
    """One part of a stacked bar, from `x`, `width` wide."""

    kind: str
    label: str
    count: int
    x: str
    width: str


def stacked(parts: Sequence[tuple[str, str, int]]) -> list[Slice]:
    """(kind, label, count) side by side over the whole width; empty parts are left out, tiny ones widened to be seen."""
    present = [part for part in parts if part[2] > 0]
    total = sum(count for *_, count in present)
    widths = [max(100 * count / total, LEAST) for *_, count in present]
    scale = 100 / sum(widths) if widths else 0
    slices, x = [], 0.0
    for (kind, label, count), width in zip(present, widths, strict=True):
        slices.append(Slice(kind, label, count, f"{x:.3f}%", f"{width * scale:.3f}%"))
        x += width * scale
    return slices


def percent(part: int, whole: int) -> str:
    """As the width of an SVG's rectangle."""
    return f"{min(100.0, 100 * part / whole):.3f}%" if whole else "0%"


def share(part: int, whole: int) -> str:
    """As people read it: never 0 % of something, never 100 % of less than all."""
    if not whole:
        return ""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    value = 100 * part / whole
    if value < 0.1:
        return "< 0.1 %"
    return f"{value:.1f} %" if value < 99.95 else "> 99.9 %"
