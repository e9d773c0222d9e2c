"""Ruby YAML, form by form: what Psych reads, whoever wrote it, and what is refused."""

import re

import pytest

from migration.pipeline.problems import Unreadable
from migration.pipeline.ruby_yaml import UnreadableYaml, to_json

TWZ = "!ruby/object:ActiveSupport::TimeWithZone"
HWIA = "ActiveSupport::HashWithIndifferentAccess"
PARAMETERS = "!ruby/object:ActionController::Parameters"
IP = "!ruby/object:IPAddr"

# fmt: off
TRUE = ["yes", "YES", "True", "on", "On"]
FALSE = ["no", "No", "off", "FALSE"]
NULL = ["~", "null", "NULL", ".INF", "+.inf", "-.Inf", ".NaN"]
ALWAYS_TEXT = ["y", "n", "nulls", "yes please", "=", "a,b", "1-2", "1.2.3", "12:60", "0,9", "089", "0b2", "-a", "+62 812", ".", "._",
               "1.5e3", "2023-02-30", "2023-13-01", "2023-02-30 00:00:00 Z", "2023-01-01 25:00:00 Z", "2023-01-01 00:00:00 +530",
               "12-5-2023"]
# Some Psych of those years took these for text and so left them unquoted; no Psych writes a number or a date like this.
TEXT_TO_SOME_PSYCH = ["1e3", "344455e6", "0o17", "0X1F", "09:30", "0:05", "1.", "1,", "1_", "1__0", "7.e-002", "1:2:3:4", "10000-01-01"]
NUMBERS = [
    ("+1", "1"), ("-0", "0"), ("1_000", "1000"), ("1,000,000", "1000000"), ("-1_0", "-10"), ("017", "15"), ("-017", "-15"), ("0_7", "7"),
    ("0x1F", "31"), ("+0xff", "255"), ("0b101", "5"), ("1:30", "5400"), ("190:20:30", "685230"), ("190:20:30.15", "685230.15"),
    (".5", "0.5"), ("-.5", "-0.5"), ("+1.5", "1.5"), ("1_000.5", "1000.5"), ("007.50", "7.50"), ("1.5E-3", "1.5E-3"),
    ("1.0e+400", "1.0e+400"),
]
TIMES = [
    ("2023-1-5", "2023-01-05"), ("2023-01-05T01:02:03Z", "2023-01-05T01:02:03.000Z"),
    ("2023-1-5 1:02:03.5 +5", "2023-01-05T01:02:03.500+05:00"),
    ("2023-01-05 01:02:03 +0530", "2023-01-05T01:02:03.000+05:30"), ("2023-01-05 01:02:03 -00:30", "2023-01-05T01:02:03.000-00:30"),
    ("2023-01-05 01:02:03", "2023-01-05T01:02:03.000Z"), ("2023-01-05 01:02:03.1234567891 Z", "2023-01-05T01:02:03.123456789100Z"),
    ("!ruby/object:Date 2023-1-5", "2023-01-05"), ("!ruby/object:Time 2023-01-05 01:02:03 Z", "2023-01-05T01:02:03.000Z"),
    ("!!timestamp 2023-01-05", "2023-01-05"),
]
TAGGED = [
    (':"foo bar"', '"foo bar"'), (":'a'", '"a"'), ("! ':'", '":"'), ("! 'foo: bar'", '"foo: bar"'), ("! '12'", "12"),
    ("!ruby/sym foo", '"foo"'),
    ("!!str 12", '"12"'), ("!str 12", '"12"'), ("!ruby/string 12", '"12"'), ("!!int 12", "12"), ("!!float 1.5", "1.5"),
    ("!!bool yes", "true"),
    ("!!null ''", "null"), ("!!binary aGk=", '"hi"'), ("!ruby/range 1...5", '"1...5"'),
    ("!ruby/object:BigDecimal '18:0.125E2'", '"12.5"'), ("!ruby/object:BigDecimal 9:12", '"12.0"'),
    ("!!map {a: 1}", '{"a":1}'), ("!!seq [1]", "[1]"), ("!!set {a: , b: }", '{"a":null,"b":null}'),
    ("!!omap [{a: 1}, {b: 2}]", '{"a":1,"b":2}'),
    (f"!map:{HWIA} {{a: 1}}", '{"a":1}'), ("!ruby/hash:ActiveSupport::OrderedHash {a: 1}", '{"a":1}'),
    (f"!ruby/hash-with-ivars:{HWIA} {{elements: {{a: 1}}, ivars: {{'@x': !ruby/object:Foo {{}}}}}}", '{"a":1}'),
    (f"{PARAMETERS} {{parameters: !ruby/hash:{HWIA} {{a: 1}}, permitted: false}}", '{"a":1}'),
    ("!ruby/string:ActiveSupport::SafeBuffer {str: <b>, html_safe: true}", '"<b>"'), ("!ruby/object:ActiveSupport::SafeBuffer x", '"x"'),
    ("!ruby/struct:ActiveRecord::Point {x: 1.0, y: 2.0}", '{"x":1.0,"y":2.0}'),
    (f"{IP} {{family: 2, addr: 167772160, mask_addr: 4278190080}}", '"10.0.0.0/8"'), ("[]", "[]"), ("{}", "{}"),
    ("[[], {a: []}]", '[[],{"a":[]}]'),
]
ESCAPES = [
    ('"\\ud83d"', '"\\ud83d"'), ('"\\ud83d\\ude00"', '"\\ud83d\\ude00"'), ("'\\ud83d'", '"\\\\ud83d"'), ('"\\0"', '"\\u0000"'),
    ('"\\x85\\xC3\\_"', '"\x85\xc3\xa0"'), ('"\\L\\P"', '"\u2028\u2029"'), ('"\\U0001F600 <&>"', '"😀 <&>"'),
]
# fmt: on


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        *[(plain, "true") for plain in TRUE],
        *[(plain, "false") for plain in FALSE],
        *[(plain, "null") for plain in NULL],
        *[(plain, f'"{plain}"') for plain in ALWAYS_TEXT + TEXT_TO_SOME_PSYCH],
        *[(plain, f'"{iso}"') for plain, iso in TIMES],
        *NUMBERS,
        *TAGGED,
        *ESCAPES,
    ],
)
def test_what_psych_reads(plain: str, expected: str) -> None:
    assert to_json(f"v: {plain}") == f'{{"v":{expected}}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--- {}\n", "{}"),
        ("a: 1\nb: 2\na: 3", '{"a":3,"b":2}'),
        (":a: 1\na: 2", '{"a":2}'),
        ("~: 1", '{"":1}'),
        ("a: &x {p: 1, q: 2}\nb:\n  q: 0\n  <<: *x\n  p: 9", '{"a":{"p":1,"q":2},"b":{"q":2,"p":9}}'),
        ("a: &x {p: 1}\nb: &y {p: 2, q: 2}\nc:\n  <<: [*x, *y]", '{"a":{"p":1},"b":{"p":2,"q":2},"c":{"p":1,"q":2}}'),
        ("<<: 1", '{"<<":1}'),
        ("'<<': {a: 1}", '{"<<":{"a":1}}'),
        ("=: 1", '{"=":1}'),
        ("a: &1 x\nb: *1\nc: &1 y\nd: *1", '{"a":"x","b":"x","c":"y","d":"y"}'),
        (f"--- !ruby/hash:{HWIA}\na:\n- 1\n- 2\n", '{"a":[1,2]}'),
        ('{"a": 1, "b": [null, "\\u00e9\\/"]}', '{"a":1,"b":[null,"é/"]}'),
        ("# written by hand\na: 1 # one\n", '{"a":1}'),
    ],
)
def test_mappings(text: str, expected: str) -> None:
    assert to_json(text) == expected


SYNTAX = ["a: [1", "a: b: c", "\ta: 1", 'a: "\\q"', "a: \x07", "a: \ud800", 'a: "\\U00110000"', "a: 'x", "%YAML 9.9\n--- 1: 2", "a: -"]
NO_MAPPING = ["", "---", "--- 5", "--- []", "--- foo", "a: 1\n--- {}", "a: *x", "a: &x [*x]", "a: &x\n  b: *x"]
NO_KEY = ["[1]: 2", "{a: 1}: 2", "<<: [1]", "<<: !ruby/object:Set {hash: {}}"]
NO_OBJECT = ["a: !!omap [1]", "a: !ruby/object:Set {}", "a: !ruby/object:Set {hash: 1}", f"a: {TWZ} {{utc: 2023-01-01 00:00:00 Z}}"]
NO_VALUE = [
    f"{TWZ} {{utc: x, time: x, zone: {{name: UTC}}}}",
    f"{TWZ} {{utc: 2023-01-01 00:00:00 Z, time: 2023-01-02 00:00:00 Z, zone: {{name: UTC}}}}",
    f"{TWZ} {{utc: 2023-01-01 00:00:00 Z, time: 2023-01-01 00:00:00 +01:00, zone: {{name: UTC}}}}",
    *[f"!ruby/object:BigDecimal {text}" for text in ("x", "0.1e1", "18:0x1", "'18:'", "18:1_0", "''")],
    "!binary |\n  wyg=\n",
    "!binary 'x'",
    f"{IP} {{family: 10, addr: 1, mask_addr: {2**128 - 1}, zone_id: '%eth0'}}",
    "!ruby/object:DateTime yesterday",
    "!ruby/object:Date yesterday",
    "!ruby/regexp /(?i:x)/",
    "!ruby/range a..b",
    "!ruby/object:ActiveSupport::Duration {value: .inf}",
    *[
        f"{IP} {{family: {family}, addr: {address}, mask_addr: {mask}}}"
        for family, address, mask in ((1, 0, 0), (2, -1, 0), (2, 0, 5), (2, "x", 0))
    ],
]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *[(text, "syntax") for text in SYNTAX],
        *[(text, "shape") for text in NO_MAPPING + NO_KEY + NO_OBJECT],
        *[("a: " + text, "value") for text in NO_VALUE],
        ("a: !ruby/object:BigDecimal 9:0.1e999999999", "limit"),
    ],
)
def test_refusals(text: str, kind: str) -> None:
    with pytest.raises(UnreadableYaml) as caught:
        to_json(text)
    assert (caught.value.kind, isinstance(caught.value, Unreadable), str(caught.value)[:3]) == (kind, True, "it ")


@pytest.mark.parametrize("tag", ["!ruby/object:User", "!ruby/struct:Point", "!ruby/hash:Hashie::Mash", "!ruby/exception:Foo", "!Money"])
@pytest.mark.parametrize("value", ["{a: 1}", "[1]", "x"])
def test_a_class_that_is_not_on_the_lists_is_named(tag: str, value: str) -> None:
    with pytest.raises(UnreadableYaml, match=re.escape(tag)) as caught:
        to_json(f"a: {tag} {value}")
    assert caught.value.kind == "tag"


@pytest.mark.parametrize(
    "text", ["a: [s3cret", "a: !ruby/object:BigDecimal s3cret", "a: !binary s3cret", "a: *s3cret", "a: !ruby/range s3cret"]
)
def test_a_refusal_never_quotes_a_value(text: str) -> None:
    with pytest.raises(UnreadableYaml) as caught:
        to_json(text)
    assert "s3cret" not in str(caught.value)
