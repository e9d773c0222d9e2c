"""Ruby YAML in a text column, read as the JSON that the gem would have written for the same change.

Source: what Psych writes for the objects that ActiveRecord 4 to 7 puts into `audited_changes`, and what ActiveSupport's `as_json`
makes of each. Nothing is ever constructed from a tag: events of the parser become nodes, and nodes become JSON text by the lists
below. A class that is not on them is refused. What amends the gem's JSON: times finer than milliseconds keep their digits, a number
keeps its own text, and a network keeps its prefix (`10.0.0.0/8`, as ActiveSupport has it since 8.1).
"""

import ipaddress
import math
import re
from collections.abc import Callable
from typing import Any

from migration.pipeline.ruby_nodes import USUAL_LIMITS, Limits, Mapping, Node, Scalar, Sequence, UnreadableYaml, parse
from migration.pipeline.ruby_scalars import Moment, Number, Value, as_json, as_text, moment, read, seconds, unknown_tag

__all__ = ["Limits", "UnreadableYaml", "to_json"]


def to_json(text: str, limits: Limits = USUAL_LIMITS) -> str:
    r"""The JSON object that the gem would have written for the change in `text`, compact, with letters beyond ASCII as they are.

    NUL and lone surrogates become `\u0000` and `\ud83d`: it is for the caller to find that jsonb refuses them.
    Raises UnreadableYaml (an Unreadable) for what is no single YAML mapping, is beyond `limits`, or has no certain JSON form.
    """
    found = _json(parse(text, limits))
    if found[0] != "{":
        raise UnreadableYaml("it is YAML, but no mapping", "shape")
    return found if found.isascii() else _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", found)


_SURROGATE = re.compile("[\ud800-\udfff]")


def _json(node: Node) -> str:
    if isinstance(node, Scalar):
        return as_json(read(*node))
    writer = (_MAPPINGS if isinstance(node, Mapping) else _SEQUENCES).get(node.tag)
    if writer is None:
        raise unknown_tag(node.tag or "!")
    return writer(node)


def _array(node: Sequence) -> str:
    return "[" + ",".join([_json(item) for item in node.items]) + "]"


def _object(node: Mapping) -> str:
    return "{" + ",".join([f"{as_json(key)}:{text}" for key, text in _members(node).items()]) + "}"


_MERGE = Scalar("<<", None, True)  # Psych quotes or tags the text "<<", so that a plain one is always meant to merge


def _members(node: Mapping) -> dict[str, str]:
    """Key -> JSON text. As in a Ruby Hash, a key that comes again keeps its place and takes the new value."""
    members: dict[str, str] = {}
    for key, value in node.pairs():
        if key == _MERGE and isinstance(value, Mapping | Sequence):
            for part in _merged(value):
                members |= _members(part)
        else:
            members[as_text(_value(key))] = _json(value)
    return members


def _merged(value: Mapping | Sequence) -> list[Mapping]:
    """The mappings that `<<` brings in, the one that counts most last."""
    parts = [value] if isinstance(value, Mapping) else value.items[::-1]
    mappings = [part for part in parts if isinstance(part, Mapping) and part.tag is None]
    if len(mappings) != len(parts):
        raise UnreadableYaml("it merges something that is no plain mapping", "shape")
    return mappings


def _value(node: Node) -> Value:
    """What has a `to_s` known for certain: a scalar, or a time with zone."""
    if isinstance(node, Scalar):
        return read(*node)
    if node.tag == _TIME_WITH_ZONE and isinstance(node, Mapping):
        return _zoned(node)
    raise UnreadableYaml("it has a key, or an end of a range, that is neither text nor number nor time", "shape")


def _fields(node: Node, *names: str) -> list[Node]:
    """The values of an object's instance variables, in the order of `names`."""
    found = {key.text: value for key, value in node.pairs() if isinstance(key, Scalar)} if isinstance(node, Mapping) else {}
    missing = [name for name in names if name not in found]
    if missing:
        raise UnreadableYaml(f"it holds an object without its {missing[0]}, which Ruby always writes", "shape")
    return [found[name] for name in names]


_TIME_WITH_ZONE = "!ruby/object:ActiveSupport::TimeWithZone"
_UTC = frozenset(prefix + name for prefix in ("", "Etc/") for name in ("UTC", "UCT", "Universal", "Zulu"))  # written as Z; London is +00:00


def _zoned(node: Mapping) -> Moment:
    """`utc` is the instant; `time` is the wall clock in the zone, although it ends in Z; their difference is the offset."""
    utc_node, zone_node, local_node = _fields(node, "utc", "zone", "time")
    (name,) = _fields(zone_node, "name")
    utc, local = _instant(utc_node), _instant(local_node)
    offset = seconds(local.day, local.clock) - seconds(utc.day, utc.clock)
    if utc.zone not in ("Z", "+00:00") or local.zone not in ("Z", "+00:00") or abs(offset) >= 86_400:
        raise UnreadableYaml("it holds a time with zone whose utc and time do not go together", "value")
    minutes = abs(offset) // 60  # ActiveSupport drops the seconds of old local times
    zone = f"{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
    is_utc = offset == 0 and isinstance(name, Scalar) and name.text in _UTC
    return Moment(local.day, local.clock, utc.fraction, "Z" if is_utc else zone)


def _instant(node: Node) -> Moment:
    found = moment(node.text) if isinstance(node, Scalar) else None
    if found is None:
        raise UnreadableYaml("it holds a time with zone in a form that Ruby does not write", "value")
    return found


def _range(node: Mapping) -> str:
    first, last, exclusive = (_value(field) for field in _fields(node, "begin", "end", "excl"))
    return as_json(f"{as_text(first)}{'...' if exclusive is True else '..'}{as_text(last)}")


def _set(node: Mapping) -> str:
    (members,) = _fields(node, "hash")
    if not isinstance(members, Mapping):
        raise UnreadableYaml("it holds a Set in a form that Ruby does not write", "shape")
    return "[" + ",".join([_json(key) for key, _ in members.pairs()]) + "]"


def _ordered(node: Sequence) -> str:
    """An ordered hash as a list of mappings with one pair each."""
    parts = [item for item in node.items if isinstance(item, Mapping) and item.tag is None]
    if len(parts) != len(node.items):
        raise UnreadableYaml("it holds an ordered hash in a form that Ruby does not write", "shape")
    return _object(Mapping(None, [node for part in parts for node in part.items]))


def _duration(node: Mapping) -> str:
    """ActiveSupport writes whole seconds."""
    value = _value(_fields(node, "value")[0])
    if not isinstance(value, Number) or not math.isfinite(float(value)):
        raise UnreadableYaml("it holds a duration whose JSON form is not known for certain", "value")
    return str(int(float(value))) if "." in value else value


_IPV6_TAIL = re.compile(r"::(ffff:)?[0-9a-f]{1,4}:[0-9a-f]{1,4}")


def _address(node: Mapping) -> str:
    """IPAddr; its family is the operating system's number: 2 for IPv4, and for IPv6 10, 23, 28 or 30."""
    family, address, mask = (_integer(field) for field in _fields(node, "family", "addr", "mask_addr"))
    zones = [_value(value) for key, value in node.pairs() if isinstance(key, Scalar) and key.text == "zone_id"]
    bits = {2: 32, 10: 128, 23: 128, 28: 128, 30: 128}.get(family, 0)
    hosts = mask ^ ((1 << bits) - 1)
    if not bits or not 0 <= min(address, mask) <= max(address, mask) < 1 << bits or hosts & (hosts + 1) or any(zones):
        raise UnreadableYaml("it holds an IP address that is none", "value")
    text = str(ipaddress.IPv4Address(address) if bits == 32 else ipaddress.IPv6Address(address))
    if tail := _IPV6_TAIL.fullmatch(text):
        text = f"::{tail[1] or ''}{ipaddress.IPv4Address(address & 0xFFFFFFFF)}"
    return as_json(f"{text}/{bits - hosts.bit_length()}" if hosts else text)


def _integer(node: Node) -> int:
    value = _value(node)
    if not isinstance(value, Number) or not re.fullmatch(r"-?\d{1,50}", value, re.ASCII):
        raise UnreadableYaml("it holds an IP address that is none", "value")
    return int(value)


def _only(name: str) -> Callable[[Any], str]:
    """A writer for objects whose JSON form is that of one of their instance variables."""
    return lambda node: _json(_fields(node, name)[0])


_STANDARD = "tag:yaml.org,2002:"
_HASHES: tuple[str, ...] = ("ActiveSupport::HashWithIndifferentAccess", "HashWithIndifferentAccess", "ActiveSupport::OrderedHash")
_HASHES += ("ActionController::Parameters",)  # before Rails 5
_MAPPINGS: dict[str | None, Callable[[Any], str]] = {
    **dict.fromkeys((None, "!", _STANDARD + "map", "!ruby/object:Hash", "!ruby/struct", "!ruby/struct:ActiveRecord::Point"), _object),
    **dict.fromkeys(("!set", _STANDARD + "set", "!omap", _STANDARD + "omap"), _object),
    **dict.fromkeys((form + name for form in ("!ruby/hash:", "!map:") for name in _HASHES), _object),
    **dict.fromkeys(("!ruby/hash-with-ivars", *("!ruby/hash-with-ivars:" + name for name in _HASHES)), _only("elements")),
    **dict.fromkeys(("!str", "!ruby/string", "!ruby/string:ActiveSupport::SafeBuffer"), _only("str")),
    "!ruby/object:ActionController::Parameters": _only("parameters"),
    "!ruby/object:ActiveSupport::Duration": _duration,
    "!ruby/object:IPAddr": _address,
    "!ruby/object:Pathname": _only("path"),
    "!ruby/object:Set": _set,
    "!ruby/range": _range,
    _TIME_WITH_ZONE: lambda node: as_json(_zoned(node)),
}
_SEQUENCES: dict[str | None, Callable[[Any], str]] = {
    **dict.fromkeys((None, "!", _STANDARD + "seq"), _array),
    **dict.fromkeys(("!omap", _STANDARD + "omap"), _ordered),
}
