"""The reader of Ruby YAML against rows that the real gem wrote, pairs of YAML and JSON that Ruby wrote of one value, and anything else."""

import gzip
import hashlib
import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migration.pipeline import ruby_nodes
from migration.pipeline.ruby_yaml import Limits, UnreadableYaml, to_json

DATA = Path(__file__).parents[2] / "calm_console" / "demo" / "data"
CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
TWZ = "!ruby/object:ActiveSupport::TimeWithZone"
ZONE = "!ruby/object:ActiveSupport::TimeZone"
HWIA = "ActiveSupport::HashWithIndifferentAccess"
IP = "!ruby/object:IPAddr"
FULL_MASK = 2**128 - 1


def read(text: str) -> Any:
    """The value of `v`, numbers as text."""
    return json.loads(to_json(text), parse_int=str, parse_float=str)["v"]


# --- rows that the real gem wrote -------------------------------------------------------------------------------------------------------


@cache
def sample() -> dict[str, str]:
    """Audit id -> audited_changes of the sample with a text column."""
    dump = gzip.decompress((DATA / "crm_sample_yaml.sql.gz").read_bytes()).decode()
    match = re.search(r"^COPY public\.audits \((.*?)\) FROM stdin;\n(.*?)^\\\.$", dump, re.MULTILINE | re.DOTALL)
    if match is None:
        raise LookupError("the dump has no COPY of public.audits")
    columns = match[1].split(", ")
    rows = (dict(zip(columns, line.split("\t"), strict=True)) for line in match[2].splitlines() if line)
    return {row["id"]: re.sub(r"\\(.)", lambda escape: CONTROLS.get(escape[1], escape[1]), row["audited_changes"]) for row in rows}


@cache
def truth() -> dict[str, Any]:
    content = json.loads(gzip.decompress((DATA / "crm_sample_yaml.truth.json.gz").read_bytes()), parse_int=str, parse_float=str)
    decoded: dict[str, Any] = content["decoded_changes"]
    return decoded


def agrees(found: Any, told: Any) -> bool:
    if isinstance(told, dict) and any(key.startswith("$") for key in told):
        return agrees_specially(found, told)
    if isinstance(told, dict):
        return isinstance(found, dict) and list(found) == list(told) and all(agrees(found[key], told[key]) for key in told)
    if isinstance(told, list):
        return isinstance(found, list) and len(found) == len(told) and all(agrees(*pair) for pair in zip(found, told, strict=True))
    return type(found) is type(told) and found == told


def agrees_specially(found: str, told: dict[str, str]) -> bool:
    if "$decimal" in told:
        return found == told["$decimal"]
    if "$date" in told:
        return found == told["$date"]
    if "$sha256" in told:
        content = found.encode()
        return (len(content), hashlib.sha256(content).hexdigest()) == (int(told["$bytes"]), told["$sha256"])
    moment = datetime.fromisoformat(found)
    instant = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return instant == told["$time"] and moment.utcoffset() == moment.astimezone(ZoneInfo(told["$zone"])).utcoffset()


def test_every_sample_row_is_read_as_ruby_read_it() -> None:
    assert len(sample()) == 500
    wrong = [key for key, text in sample().items() if not agrees(json.loads(to_json(text), parse_int=str, parse_float=str), truth()[key])]
    assert wrong == []


def test_the_parser_in_python_reads_the_sample_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for text in sample().values() if len(text) < 5_000][::3] + [text for text, _ in WRITTEN]
    by_libyaml = [to_json(text) for text in texts]
    monkeypatch.setattr(ruby_nodes, "Parser", yaml.SafeLoader)
    assert [to_json(text) for text in texts] == by_libyaml


# --- one value, as Psych's YAML and as ActiveSupport's JSON (Ruby 3.1.7, Psych 4.0.4, libyaml 0.2.5, ActiveSupport 6.1.7.10) ------------

# fmt: off
WRITTEN = [(f"---\nv: {text}\n", value) for text, value in [
    (":foo", "foo"), (":foo bar", "foo bar"), ("! ':foo: bar'", "foo: bar"), ("! ':a\n\n  b'", "a\nb"), (":12", "12"), ("!ruby/symbol", ""),
    ('"="', "="), ("'yes'", "yes"), ('"y"', "y"), ("'null'", "null"), ('"~"', "~"), ("''", ""), ('" "', " "), ('"\\t"', "\t"),
    ('"\\n"', "\n"),
    ("'a\n\n  '", "a\n"), ("|+\n  a\n  b\n\n...", "a\nb\n\n"), ("|2-\n    a\n   b", "  a\n b"), ("'a: b'", "a: b"), ("a:b", "a:b"),
    ('"a\\0b"', "a\0b"), ('"a\\U0001F600"', "a😀"), ('"a\\Nb"', "a\x85b"), ("'a\u2028  b'", "a\u2028b"), ('"\\uFEFFx"', "\ufeffx"),
    ('"\\e[1m"', "\x1b[1m"), ('"\\x7F"', "\x7f"), ('"a\\rb"', "a\rb"), ("é", "é"), ("'Ключ: значение'", "Ключ: значение"), ('"- a"', "- a"),
    ("'12'", "12"), ("'1.5'", "1.5"), ("1e3", "1e3"), ("0o17", "0o17"), ("'017'", "017"), ("'01:30'", "01:30"), ("1,", "1,"),
    ("'089'", "089"),
    ("1:2:3:4", "1:2:3:4"), ("'2025-05-01'", "2025-05-01"), ("'2023-01-01 00:00:00.000000000 Z'", "2023-01-01 00:00:00.000000000 Z"),
    ("50%", "50%"), ("it's", "it's"), ('he said "hi"', 'he said "hi"'), ('"+62 812"', "+62 812"), ("! ''", None), ("", None),
    (".inf", None), ("-.inf", None), (".nan", None), ("2025-05-01", "2025-05-01"),
    ("!ruby/object:BigDecimal 18:0.0", "0.0"), ("!ruby/object:BigDecimal 18:-0.0", "-0.0"),
    ("!ruby/object:BigDecimal 18:0.15e7", "1500000.0"),
    ("!ruby/object:BigDecimal 27:0.1e-9", "0.0000000001"),
    ("!ruby/object:BigDecimal 27:0.999999999999999999e16", "9999999999999999.99"),
    ("!ruby/object:BigDecimal 18:0.1e31", "1000000000000000000000000000000.0"), ("!ruby/object:BigDecimal 18:-0.125e2", "-12.5"),
    ("!ruby/object:BigDecimal 9:NaN", None), ("!ruby/object:BigDecimal 9:-Infinity", None),
    ("!ruby/object:DateTime 2023-01-01 02:03:04.000000000 Z", "2023-01-01T02:03:04.000+00:00"),
    ("!ruby/object:DateTime 2023-01-01 02:03:04.500000000 +05:30", "2023-01-01T02:03:04.500+05:30"),
    ("2023-11-05 06:30:00.123000000 Z", "2023-11-05T06:30:00.123Z"),
    ("2023-11-05 01:30:00.000000000 -04:00", "2023-11-05T01:30:00.000-04:00"),
    ("2023-01-01 00:00:00.000000000 +00:00", "2023-01-01T00:00:00.000+00:00"),
    ("!ruby/object:Set\n  hash:\n    1: true\n    a: true\n    :b: true\n    ! '': true\n    1.5: true", ["1", "a", "b", None, "1.5"]),
    (f"!ruby/hash:{HWIA}\n  a: !ruby/hash:{HWIA}\n    b: x", {"a": {"b": "x"}}),
    ("!omap\n- :a: x\n- b: z", {"a": "x", "b": "z"}), ("!ruby/struct\n  x: y\n  y: z", {"x": "y", "y": "z"}),
    (f"{IP}\n  mask_addr: 4294967295\n  family: 2\n  addr: 167838211\n  zone_id:", "10.1.2.3"),
    (f"{IP}\n  mask_addr: {FULL_MASK}\n  family: 10\n  addr: 42540766411282592856903984951653826561\n  zone_id:", "2001:db8::1"),
    (f"{IP}\n  mask_addr: {FULL_MASK}\n  family: 10\n  addr: 281470698652420\n  zone_id:", "::ffff:1.2.3.4"),
    (f"{IP}\n  mask_addr: {FULL_MASK}\n  family: 10\n  addr: 65536\n  zone_id:", "::0.1.0.0"),
    (f"{IP}\n  mask_addr: {FULL_MASK}\n  family: 10\n  addr: 0\n  zone_id:", "::"),
    (f"{IP}\n  mask_addr: {FULL_MASK}\n  family: 10\n  addr: 5192296860952734609117897189359623", "1:0:2:3:4:5:6:7"),
    ("!ruby/object:ActiveSupport::Duration\n  value: 10800\n  parts:\n    :hours: 3", "10800"),
    ("!ruby/object:ActiveSupport::Duration\n  value: 5400.0\n  parts:\n    :hours: 1.5", "5400"),
    ("!ruby/regexp /a\\/b(?:c)/i", "(?i-mx:a\\/b(?:c))"), ("!ruby/regexp /x/mx", "(?mx-i:x)"), ("!ruby/regexp /x/mix", "(?mix:x)"),
    ("!ruby/range\n  begin: 1\n  end: 5\n  excl: false", "1..5"),
    ("!ruby/range\n  begin: 2025-01-01\n  end: .inf\n  excl: true", "2025-01-01...Infinity"),
    ("!ruby/range\n  begin:\n  end: 1\n  excl: false", "..1"),
    ("!ruby/range\n  begin: !ruby/object:BigDecimal 18:0.15e1\n  end: !ruby/object:BigDecimal 18:0.2e1\n  excl: false", "1.5..2.0"),
    ("!ruby/range\n  begin: 2023-01-01 00:00:00.000000000 Z\n  end: 2023-01-01 00:00:00.000000000 -04:00\n  excl: false",
     "2023-01-01 00:00:00 UTC..2023-01-01 00:00:00 -0400"),
    ("!ruby/string:ActiveSupport::StringInquirer prod", "prod"), ("!binary |-\n  w6k=", "é"),
    ('!ruby/object:Pathname\n  path: "/a/b"', "/a/b"),
    ("\n  ! '': a\n  1: b\n  1.5: c\n"
     "  true: d\n  :s: e\n  2025-01-01: f\n  a b: g\n  '': h\n  !ruby/object:BigDecimal 18:0.15e1: i\n"
     "  2023-01-01 00:00:00.000000000 Z: j\n  'on': k\n"
     "  .inf: l\n  .nan: m\n  !!str '<<': n\n  ? |-\n    multi\n    line\n  : o\n  1.0e+20: p",
     {"": "h", "1": "b", "1.5": "i", "true": "d", "s": "e", "2025-01-01": "f", "a b": "g", "2023-01-01 00:00:00 UTC": "j", "on": "k",
      "Infinity": "l", "NaN": "m", "<<": "n", "multi\nline": "o", "1.0e+20": "p"}),
]]
# fmt: on


@pytest.mark.parametrize(("text", "value"), WRITTEN)
def test_what_ruby_writes(text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    "text", ["0", "-5", "12345678901234567890123", "0.1", "1.0e+20", "1.0e-05", "-0.0", "0.1234567890123456789", "9" * 5000, "true"]
)
def test_what_is_json_already_is_carried_as_its_own_text(text: str) -> None:
    assert to_json(f"v: {text}") == f'{{"v":{text}}}'


def zoned(utc: str, name: str, time: str, stamp: str = " Z") -> str:
    return f"v: {TWZ}\n  utc: {utc}{stamp}\n  zone: {ZONE}\n    name: {name}\n  time: {time}{stamp}\n"


@pytest.mark.parametrize(
    ("utc", "name", "time", "expected"),
    [
        ("2023-11-05 05:30:00.000000000", "America/New_York", "2023-11-05 01:30:00.000000000", "2023-11-05T01:30:00.000-04:00"),
        ("2023-11-05 06:30:00.000000000", "America/New_York", "2023-11-05 01:30:00.000000000", "2023-11-05T01:30:00.000-05:00"),
        ("2023-11-05 06:30:00.000000000", "Etc/UTC", "2023-11-05 06:30:00.000000000", "2023-11-05T06:30:00.000Z"),
        ("2023-01-05 06:30:00.000000000", "Europe/London", "2023-01-05 06:30:00.000000000", "2023-01-05T06:30:00.000+00:00"),
        ("2023-01-01 00:00:00.000000000", "Asia/Kolkata", "2023-01-01 05:30:00.000000000", "2023-01-01T05:30:00.000+05:30"),
        ("1850-01-01 00:00:00.000000000", "America/New_York", "1849-12-31 19:03:58.000000000", "1849-12-31T19:03:58.000-04:56"),
        ("12023-01-01 00:00:00.000000000", "America/New_York", "12022-12-31 19:00:00.000000000", "12022-12-31T19:00:00.000-05:00"),
        ("-0044-03-15 00:00:00.000000000", "America/New_York", "-0044-03-14 19:03:58.000000000", "-0044-03-14T19:03:58.000-04:56"),
        ("2023-01-01 00:00:00.123456000", "Asia/Jakarta", "2023-01-01 07:00:00.123456000", "2023-01-01T07:00:00.123456+07:00"),
        ("2023-01-01 00:00:00.000000001", "Asia/Jakarta", "2023-01-01 07:00:00.000000001", "2023-01-01T07:00:00.000000001+07:00"),
        ("2023-01-01 00:00:00.120000000", "Asia/Jakarta", "2023-01-01 07:00:00.120000000", "2023-01-01T07:00:00.120+07:00"),
    ],
)
def test_a_time_with_zone_has_the_offset_between_its_time_and_utc(utc: str, name: str, time: str, expected: str) -> None:
    assert read(zoned(utc, name, time)) == expected
    assert read(zoned(utc, name, time, stamp="Z")) == expected


def test_zones_may_be_aliases_and_times_may_be_keys() -> None:
    zone = f"zone: &1 {ZONE}\n      name: America/New_York"
    one = f"{TWZ}\n    utc: 2023-11-05 06:30:00.000000000 Z\n    {zone}\n    time: 2023-11-05 01:30:00.000000000 Z\n"
    two = f"{TWZ}\n    utc: &2 2023-03-12 07:30:00.000000000 Z\n    zone: *1\n    time: 2023-03-12 03:30:00.000000000 Z\n"
    assert read(f"v:\n  - {one}  - {two}") == ["2023-11-05T01:30:00.000-05:00", "2023-03-12T03:30:00.000-04:00"]
    assert read(f"v:\n  ? {one}  : x\n") == {"2023-11-05 01:30:00 -0500": "x"}


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("a: " + "x" * 100, Limits(bytes=102)),
        ("a: " + "é" * 60, Limits(bytes=122)),
        ("a: &a " + "x" * 50 + "\nb: [*a, *a, *a]", Limits(bytes=150)),
        ("a: " + "[" * 10 + "]" * 10, Limits(depth=10)),
        ("a: &a [[[[1]]]]\nb: [[[[[[*a]]]]]]", Limits(depth=10)),
        ("a: [1, 2, 3]", Limits(nodes=5)),
        ("a: " + "[" * 100_000, Limits()),
        ("\n".join(" " * level + "a:" for level in range(1_000)), Limits()),
        ("a: &a [x, x]\n" + "\n".join(f"b{n}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]" for n in range(25)), Limits()),
    ],
)
def test_limits(text: str, limits: Limits) -> None:
    with pytest.raises(UnreadableYaml) as caught:
        to_json(text, limits)
    assert caught.value.kind == "limit"


def test_just_within_limits() -> None:
    assert to_json("a: " + "x" * 97, Limits(bytes=100)) == '{"a":"' + "x" * 97 + '"}'
    assert to_json("a: " + "[" * 9 + "]" * 9, Limits(depth=10)) == '{"a":' + "[" * 9 + "]" * 9 + "}"
    assert to_json("a: [1, 2, 3]", Limits(nodes=6)) == '{"a":[1,2,3]}'
    assert to_json("a: " + "[" * 99 + "]" * 99) == '{"a":' + "[" * 99 + "]" * 99 + "}"


# --- anything else ------------------------------------------------------------------------------------------------------------------------


def emit(value: Any, indent: str = "") -> str:
    """`value` as Psych lays it out, from behind its `key:` or `-` on."""
    if isinstance(value, dict) and value:
        return "\n" + "".join(f"{indent}{scalar(key, indent)}:{emit(item, indent + '  ')}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "\n" + "".join(f"{indent}-{emit(item, indent + '  ')}" for item in value)
    return " " + scalar(value, indent) + "\n"


class Key(str):
    """A text that stands before a colon: never in a block."""

    __slots__ = ()


def scalar(value: Any, indent: str) -> str:
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else json.dumps(value)
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[A-Za-z]{6,}(?: [a-z]+)*", value):
        return value
    if not isinstance(value, Key) and "\n" in value and re.fullmatch(r"(?:[!-~][ -~]*\n{1,3})+", value):
        return "|+\n" + "".join((indent or "  ") + line + "\n" if line else "\n" for line in value[:-1].split("\n")).removesuffix("\n")
    return quoted(value)


def quoted(value: str) -> str:
    return '"' + "".join(char if " " <= char <= "~" and char not in '"\\' else f"\\U{ord(char):08X}" for char in value) + '"'


awkward = ["plain text", "Andi Kusuma", "yes", "1.5", "a\nb\n", "x\n\ny\n\n", " lead", "trail ", "2023-01-01", "'", ": "]
texts = st.text(max_size=12) | st.sampled_from(awkward)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(0.0001, 1e15).map(lambda number: round(number, 3)) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts.map(Key), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(texts.map(Key), values, max_size=5))
@settings(deadline=None)
def test_what_is_laid_out_as_psych_does_comes_back(changes: dict[str, Any]) -> None:
    text = "---" + emit(changes)
    found = json.loads(to_json(text))
    assert found == changes
    assert list(found) == list(changes)


def outcome(text: str) -> str:
    try:
        found = to_json(text)
    except UnreadableYaml as error:
        return error.kind
    assert isinstance(json.loads(found), dict)
    return "read"


@given(st.text(st.characters() | st.sampled_from("!&*:-?|>'\"{}[],#%<=\n  aZ0179.e+_/")))
@settings(deadline=None, max_examples=400)
def test_any_text_is_read_or_refused(text: str) -> None:
    assert outcome(text) in ("read", "syntax", "limit", "shape", "tag", "value")


def damaged(text: str) -> st.SearchStrategy[str]:
    pieces = [*"!:'\"|{}[]~<.9\\\n\x00\ud800é%", "!!", "&1 ", "*1", "- ", "  ", "<<: ", "!ruby/"]
    return st.builds(
        lambda at, drop, piece: text[:at] + piece + text[at + drop :], st.integers(0, len(text)), st.integers(0, 9), st.sampled_from(pieces)
    )


@given(st.data())
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_row_is_read_or_refused(data: st.DataObject) -> None:
    rows = [text for text in sample().values() if 10 < len(text) < 2_000] + [text for text, _ in WRITTEN]
    assert outcome(data.draw(st.sampled_from(rows).flatmap(damaged))) in ("read", "syntax", "limit", "shape", "tag", "value")
