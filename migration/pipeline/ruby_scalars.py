r"""What one YAML scalar meant to the Ruby that wrote it, and the JSON text that ActiveSupport gives for it.

Source: Psych's `scalar_scanner.rb` and `yaml_tree.rb` from 1.2 (Ruby 1.9.3) to 5.x, ActiveSupport's `object/json.rb` from 4 to 7.
Psych writes numbers, times and symbols in one plain form each and quotes every text that it would itself read as one of them. So plain
text that some of those versions took for text (`1e3`, `0o17`, `09:30`, `1.`, `1:2:3:4`) was text when it was written, and stays text.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from datetime import date
from typing import NamedTuple, TypeAlias

from migration.pipeline.ruby_nodes import UnreadableYaml


class Number(str):
    """A number as its own JSON text, or Infinity, -Infinity, NaN, which JSON has not (null)."""

    __slots__ = ()


class Moment(NamedTuple):
    """A Ruby Time, TimeWithZone or DateTime: `day` 2023-11-05, `clock` 01:30:00, `fraction` its digits, `zone` Z or -04:00."""

    day: str
    clock: str
    fraction: str
    zone: str
    is_datetime: bool = False


Value: TypeAlias = bool | str | Number | Moment | None

_quote = json.JSONEncoder(ensure_ascii=False).encode


def as_json(value: Value) -> str:
    """JSON text as ActiveSupport's `as_json` has it, but times keep what is finer than milliseconds."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Moment):
        return f'"{_iso8601(value)}"'
    if isinstance(value, Number):
        return "null" if value[-1] in "yN" else value
    return _quote(value)


def _iso8601(moment: Moment) -> str:
    digits = moment.fraction.rstrip("0")
    return f"{moment.day}T{moment.clock}.{digits.ljust(max(3, -(-len(digits) // 3) * 3), '0')}{moment.zone}"


def as_text(value: Value) -> str:
    """Ruby's `to_s`, which is what a hash key or the end of a range becomes."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Moment):
        if value.is_datetime:
            return f"{value.day}T{value.clock}{value.zone}"
        return f"{value.day} {value.clock} {'UTC' if value.zone == 'Z' else value.zone.replace(':', '')}"
    return str(value)


def read(text: str, tag: str | None, is_plain: bool) -> Value:
    """The value of one scalar. Raises UnreadableYaml for a tag whose class has no certain JSON form, or a text its class never writes."""
    if tag is None:
        return resolve(text) if is_plain else text
    reader = _TAGGED.get(tag)
    if reader is None:
        raise unknown_tag(tag)
    return reader(text)


def unknown_tag(tag: str) -> UnreadableYaml:
    """The refusal for a class that is not on the lists; it names the tag without what could not be part of one."""
    name = re.sub(r"[^\w!:/.,-]", "?", tag, flags=re.ASCII)[:100]
    return UnreadableYaml(f"it holds {name}, whose JSON form is not known for certain: waive it, or teach the reader that class", "tag")


_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None} | dict.fromkeys(("yes", "true", "on"), True)
_WORDS |= dict.fromkeys(("no", "false", "off"), False)
_NOT_FINITE = {".inf": Number("Infinity"), "+.inf": Number("Infinity"), "-.inf": Number("-Infinity"), ".nan": Number("NaN")}
_SYMBOL = re.compile(r""":(["'])(.*)\1""")


def resolve(text: str) -> Value:
    """A plain scalar as Psych's ScalarScanner takes it."""
    first = text[:1]
    if not first or first not in "0123456789+-.:":
        return _WORDS.get(text.lower(), text) if len(text) <= 5 else text
    if text.isdigit() and text.isascii() and (first != "0" or text == "0"):
        return Number(text)
    if first == ":" and len(text) > 1:
        quoted = _SYMBOL.fullmatch(text)
        return quoted[2].removeprefix(":") if quoted else text[1:]
    return _NOT_FINITE.get(text.lower()) or moment(text, _TIME) or _day(text) or _number(text) or text


_CLOCK = r"(?:[Tt]|[ \t]+)(\d{1,2}):(\d\d):(\d\d)(?:\.(\d+))?[ \t]*(?:Z|([-+])(\d{1,2}+):?(\d\d)?)?"
_TIME = re.compile(r"(-?\d{4})-(\d{1,2})-(\d{1,2})" + _CLOCK, re.ASCII)
_FAR_TIME = re.compile(r"(-?\d{4,7})-(\d{1,2})-(\d{1,2})" + _CLOCK, re.ASCII)  # PostgreSQL's timestamps go to the year 294276
_DAY = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)


def moment(text: str, form: re.Pattern[str] = _FAR_TIME) -> Moment | None:
    """The time that `text` is in the given form, or None. One without a zone is known as an instant only, so it is given in UTC."""
    match = form.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, sign, zone_hour, zone_minute = match.groups()
    if not _exists(year, month, day) or max(int(hour), int(zone_hour or 0)) > 23 or max(minute, second, zone_minute or "") > "59":
        return None
    zone = f"{sign}{zone_hour:0>2}:{zone_minute or '00'}" if sign else "Z"
    return Moment(f"{year}-{month:0>2}-{day:0>2}", f"{hour:0>2}:{minute}:{second}", fraction or "", zone)


def seconds(day: str, clock: str) -> int:
    """Seconds of the wall clock from a fixed point; any year, as Python's own dates end at 1 and 9999."""
    year, month, day_of_month = day.rsplit("-", 2)
    hour, minute, second = clock.split(":")
    cycles, rest = divmod(int(year), 400)
    days = date(2000 + rest, int(month), int(day_of_month)).toordinal() + cycles * 146_097
    return ((days * 24 + int(hour)) * 60 + int(minute)) * 60 + int(second)


def _exists(year: str, month: str, day: str) -> bool:
    try:
        date(2000 + int(year) % 400, int(month), int(day))
    except ValueError:
        return False
    return True


def _day(text: str) -> str | None:
    match = _DAY.fullmatch(text)
    if not match or not _exists(*match.groups()):
        return None
    return f"{match[1]}-{match[2]:0>2}-{match[3]:0>2}"


_INTEGER = re.compile(r"([-+]?)(0|[1-9][0-9]*(?:[,_][0-9]+)*)")
_BASED = re.compile(r"([-+]?)0(?:b([01_,]{1,1000})|x([0-9a-fA-F_,]{1,1000})|([0-7_,]{1,1000}))")
_FLOAT = re.compile(r"([-+]?)([0-9][0-9_,]*)?(\.[0-9]+(?:[eE][-+][0-9]+)?)")
_SIXTIES = re.compile(r"[-+]?(?:[1-9][0-9_]{0,30}(?::[0-5]?[0-9]){1,2}|[0-9][0-9_]{0,30}(?::[0-5]?[0-9]){1,2}\.[0-9]{1,30})")
_SEPARATORS = str.maketrans("", "", ",_")


def _number(text: str) -> Number | None:
    if match := _INTEGER.fullmatch(text):
        digits = match[2].translate(_SEPARATORS)
        return Number(digits if match[1] != "-" or digits == "0" else "-" + digits)
    if match := _FLOAT.fullmatch(text):
        whole = (match[2] or "").translate(_SEPARATORS).lstrip("0") or "0"
        return Number(("-" if match[1] == "-" else "") + whole + match[3])
    if match := _BASED.fullmatch(text):
        return _based(match)
    return _sixties(text) if _SIXTIES.fullmatch(text) else None


def _based(match: re.Match[str]) -> Number | None:
    base = 2 if match[2] else 16 if match[3] else 8
    digits = (match[2] or match[3] or match[4]).translate(_SEPARATORS)
    if not digits and base != 8:
        return None
    return Number(int(match[1] + (digits or "0"), base))


def _sixties(text: str) -> Number:
    """Base 60 as Psych reckons it: the first part always counts 3600, even where only two are given."""
    kind = float if "." in text else int
    return Number(sum(kind(part.replace("_", "")) * 60 ** abs(place - 2) for place, part in enumerate(text.split(":"))))


_DECIMAL = re.compile(r"\d+:(?:([-+]?)(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d{1,9}))?|([-+]?Infinity|NaN))", re.ASCII)
_MOST_ZEROS = 1_000  # that an exponent may add: a few bytes must not become gigabytes


def _decimal(text: str) -> Value:
    """BigDecimal's dump `36:0.15e7` as its `to_s("F")`, "1500000.0"; the number before the colon is internal."""
    match = _DECIMAL.fullmatch(text)
    if not match:
        raise UnreadableYaml("it holds a BigDecimal in a form that Ruby does not write", "value")
    sign, whole, part, exponent, not_finite = match.groups()
    if not_finite:
        return Number(not_finite.removeprefix("+"))
    point, digits = len(whole) + int(exponent or 0), whole + (part or "")
    if not -_MOST_ZEROS <= point <= len(digits) + _MOST_ZEROS:
        raise UnreadableYaml(f"it holds a BigDecimal with more than {_MOST_ZEROS} zeros", "limit")
    before, after = (digits[:point].ljust(point, "0"), digits[point:]) if point > 0 else ("", "0" * -point + digits)
    return ("-" if sign == "-" else "") + (before.lstrip("0") or "0") + "." + (after.rstrip("0") or "0")


def _time(text: str) -> Moment:
    found = moment(text)
    if found is None:
        raise UnreadableYaml("it holds a time in a form that Ruby does not write", "value")
    return found


def _datetime(text: str) -> Moment:
    found = _time(text)
    return found._replace(zone=found.zone.replace("Z", "+00:00"), is_datetime=True)


def _date(text: str) -> str:
    found = _day(text)
    if found is None:
        raise UnreadableYaml("it holds a date in a form that Ruby does not write", "value")
    return found


def _binary(text: str) -> str:
    """Old Psych also wrote texts with many letters beyond ASCII as binary; what is not UTF-8 the gem cannot write as JSON."""
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise UnreadableYaml("it holds a binary value that is no UTF-8 text, which JSON cannot carry", "value") from error


_REGEXP = re.compile(r"/(?!\(\?)(.*)/([mix]*)", re.DOTALL)


def _regexp(text: str) -> str:
    match = _REGEXP.fullmatch(text)
    if not match or not match[1].isprintable() or not match[1].isascii():
        raise UnreadableYaml("it holds a regular expression whose JSON form is not known for certain", "value")
    on, off = ("".join(flag for flag in "mix" if (flag in match[2]) is wanted) for wanted in (True, False))
    return f"(?{on}{'-' + off if off else ''}:{match[1]})"


def _range(text: str) -> str:
    if not re.fullmatch(r"-?\d+\.{2,3}-?\d+", text, re.ASCII):
        raise UnreadableYaml("it holds a range whose JSON form is not known for certain", "value")
    return text


_STANDARD = "tag:yaml.org,2002:"
_TEXTS = ("!str", _STANDARD + "str", "!ruby/string", "!ruby/string:ActiveSupport::SafeBuffer", "!ruby/object:ActiveSupport::SafeBuffer")
_SYMBOLS = ("!ruby/sym", "!ruby/symbol", "!ruby/string:ActiveSupport::StringInquirer")
_RESOLVED = ("!", *(_STANDARD + name for name in ("null", "bool", "int", "float", "timestamp")))
_TAGGED: dict[str, Callable[[str], Value]] = {
    **dict.fromkeys(_TEXTS + _SYMBOLS, str),
    **dict.fromkeys(_RESOLVED, resolve),
    **dict.fromkeys(("!binary", _STANDARD + "binary"), _binary),
    "!ruby/object:BigDecimal": _decimal,
    "!ruby/object:Date": _date,
    "!ruby/object:DateTime": _datetime,
    "!ruby/object:Time": _time,
    "!ruby/regexp": _regexp,
    "!ruby/range": _range,
}
