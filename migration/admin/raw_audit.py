"""An audit's columns for a page: escaped, what cannot be seen made visible, secrets masked, long texts folded."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from migration import mapping as mappings
from migration import revisions
from migration.admin.display import MOST_CHARACTERS, NOTHING, visible
from migration.admin.samples import Number, as_json
from migration.models import QuarantinedCandidate
from migration.pipeline import changes, ruby_yaml
from migration.pipeline.problems import Unreadable
from migration.raw_audits import RawAudit, audit

MASK = "•••••• on the secrets list, not shown"
SHORT = 300  # characters that are shown without a fold
MOST_SHOWN = 20_000
KEY = re.compile(r"([\w@.$-]+)[\"']?\s*(?::|=>)")  # what may be a key, in YAML, JSON or Ruby

Secret = Callable[[str], bool]


@dataclass(frozen=True)
class Shown:
    """One column or attribute."""

    name: str
    text: SafeString | str


def of(candidate: QuarantinedCandidate) -> dict[str, Any]:
    """`{"trouble", "columns", "changes", "note"}` for the candidate's page."""
    raw = audit(candidate.audit_id)
    if raw.trouble:
        return {"trouble": raw.trouble}
    secret = secret_key(candidate)
    columns = [Shown(name, folded(value)) for name, value in raw.columns.items() if name != "audited_changes"]
    found, note = attributes(raw, secret)
    return {"trouble": "", "columns": columns, "changes": found, "note": note}


def secret_key(candidate: QuarantinedCandidate) -> Secret | None:
    """What is secret by the run's mapping or by the current one; None where either cannot be read."""
    current = revisions.current()
    try:
        known = [mappings.parse(each.document) for each in (candidate.run.mapping_revision, current) if each]
    except mappings.MappingError:
        return None
    return lambda key: any(mapping.is_secret(key) for mapping in known)


def attributes(raw: RawAudit, secret: Secret | None) -> tuple[list[Shown], str]:
    """audited_changes attribute by attribute, and what there is to say of it."""
    text = raw.columns.get("audited_changes")
    if text is None:
        return [], "audited_changes is null."
    if secret is None:
        return [], "audited_changes is not shown: the mapping cannot be read, so nobody knows what is secret in it."
    try:
        as_json_text = ruby_yaml.to_json(text) if raw.is_yaml else text
        return [Shown(key, folded(member(key, value, secret))) for key, value in members(as_json_text)], ""
    except (Unreadable, ValueError, RecursionError, IndexError):
        return [Shown("as it is", folded(without_secrets(text, secret)))], "audited_changes cannot be read as the gem writes it."


def members(text: str) -> Iterator[tuple[str, Any]]:
    """The top-level attributes, duplicates too, with numbers as they are written."""
    for key, whole in changes.members(text):
        (value,) = json.loads("{" + whole + "}", parse_int=Number, parse_float=Number, strict=False).values()
        yield key, value


def member(key: str, value: Any, secret: Secret) -> str:
    return MASK if secret(key) else as_json(masked(value, secret))


def masked(value: Any, secret: Secret) -> Any:
    """The value with what is secret inside it masked."""
    if isinstance(value, dict):
        return {key: MASK if secret(key) else masked(inner, secret) for key, inner in value.items()}
    return [masked(inner, secret) for inner in value] if isinstance(value, list) else value


def without_secrets(text: str, secret: Secret) -> str:
    """Text of unknown form up to the first thing in it that may be a secret's key: where its value ends, nobody can tell."""
    at = next((found.start() for found in KEY.finditer(text) if secret(found[1])), None)
    return text if at is None else f"{text[:at]}{MASK}, nor is what follows"


def folded(value: str | None) -> SafeString | str:
    """A text as HTML: short ones as they are, long ones behind a fold."""
    if value is None:
        return format_html('<span class="quiet">{}</span>', NOTHING)
    if len(value) <= SHORT:
        return visible(value)
    pieces = range(0, min(len(value), MOST_SHOWN), MOST_CHARACTERS)
    whole = format_html_join("", "{}", ((visible(value[at : at + MOST_CHARACTERS]),) for at in pieces))
    rest = f"… and {len(value) - MOST_SHOWN:,} more characters" if len(value) > MOST_SHOWN else ""
    return format_html(
        '<details class="fold"><summary>{}… <span class="quiet">{} characters</span></summary><pre class="document" tabindex="0">{}{}</pre></details>',
        visible(value[:120]),
        f"{len(value):,}",
        whole,
        rest,
    )
