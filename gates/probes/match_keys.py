"""Gate F: whether the enricher ever names a deal or a company although two audits of one version name it differently.

The enricher's own code names every activity that enrichment would touch, whatever its time; rival_names reads the same records' audits
again and compares. Fails: a name told, or left out, although two candidates differ and staff have not decided; a name that those audits
do not give; nothing to look at. The link index is built, or extended, as at the planning of a run; where that takes too long, measuring
again goes on from there.

Facts: {"counts": {"certain", "absent", "ambiguous", "decided"} (enrichments: an activity and one other end of it), "keys": [{"account": CRM
organisation id, "role", "record_id", "class", "version", "candidates": [text or null], "verdict": "resolved", "ambiguous", "decided" or
"not used"}], the first MOST_KEYS, "keys_total", "covered": {"accounts", "contacts", "of_accounts", "of_contacts"}}.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from uuid import UUID

from gates.probes import Finding, Measurement, by_index
from gates.probes.addresses import database
from gates.probes.enrichments import Tally, look
from migration import link_reader, links, revisions, worlds
from migration import mapping as mappings
from migration.cdp import Cdp
from migration.crm import Crm
from migration.mapping import Mapping
from migration.models import Account

STATEMENT_SECONDS = 60
SECONDS = 45  # for looking at contacts, and as many for the link index
MOST_CONTACTS = 50_000
PERSONS_AT_ONCE = 500
MOST_KEYS = 200
MOST_TOLD = 20
WHAT = {"certain": "certain", "absent": "without a name", "ambiguous": "ambiguous and left open", "decided": "decided by staff"}
NO_MAPPING = "No mapping is published, so no activity can be enriched: run `manage.py publish_mapping --file mapping.json`."


@dataclass
class Covered:
    """How much was looked at, of what there is: accounts with contacts that name a CRM person (whole ones), and those contacts."""

    accounts: int = 0
    contacts: int = 0
    of_accounts: int = 0
    of_contacts: int = 0


def configuration(account: Account | None) -> dict[str, str]:
    """The CRM, and the part of the mapping that match keys and names rest on."""
    return {"CRM_DATABASE_URL": database("CRM_DATABASE_URL"), "the mapping's class roles and name attributes": naming_digest()}


def naming_digest() -> str:
    revision = revisions.current()
    if revision is None:
        return "none"
    normal = json.loads(mappings.canonical(revision.document))
    meaning = json.dumps([normal["class_roles"], normal["name_attributes"]], sort_keys=True)
    return hashlib.sha256(meaning.encode()).hexdigest()[:12]


def measure(account: Account | None) -> Measurement:
    """Name what the largest accounts' activities are about. Raises Outage and Misconfigured."""
    revision = revisions.current()
    if revision is None:
        return Measurement([Finding(False, NO_MAPPING)])
    mapping = mappings.parse(revision.document)
    with closing(Crm()) as crm, closing(Cdp()) as cdp:
        by_index.limit(crm, STATEMENT_SECONDS)
        try:
            index = links.up_to_date(mapping, crm, worlds.address("CRM_DATABASE_URL"), pulse=worlds.until(time.monotonic() + SECONDS))
        except worlds.OutOfTime:
            return Measurement([Finding(False, "The link index is still being built: measure again, and it goes on from where it is.")])
        tally, covered = gone_over(mapping, crm, cdp, link_reader.Reader(index))
    return Measurement(list(findings(tally, covered)), facts(tally, covered))


def gone_over(mapping: Mapping, crm: Crm, cdp: Cdp, index: link_reader.Reader) -> tuple[Tally, Covered]:
    """The accounts with most contacts first, until there are enough contacts or there is no time left."""
    tally, covered = Tally(), Covered()
    known = {each.cdp_id: each for each in Account.objects.filter(gone=False)}
    wanted = [(known[key], contacts) for key, contacts in by_size(cdp) if key in known]
    covered.of_accounts = len(wanted)
    covered.of_contacts = sum(contacts for _, contacts in wanted)
    moment = time.monotonic() + SECONDS
    for each, contacts in wanted:
        persons = cdp.persons(each.cdp_id)
        done = 0
        for batch in batches(persons[: MOST_CONTACTS - covered.contacts]):
            if time.monotonic() > moment:
                break
            look(mapping, crm, each, index.of(batch), tally)
            done += len(batch)
        if done < len(persons):
            covered.contacts += done
            break
        covered.contacts += contacts
        covered.accounts += 1
    return tally, covered


def by_size(cdp: Cdp) -> list[tuple[UUID, int]]:
    """CDP accounts with the number of their contacts that name a CRM person, the largest first."""
    return cdp.rows(
        "SELECT account_id, count(*) FROM contacts WHERE source = 'crm' AND source_id >= 0 GROUP BY account_id ORDER BY 2 DESC, 1"
    )


def batches(persons: Sequence[int]) -> Iterator[list[int]]:
    for at in range(0, len(persons), PERSONS_AT_ONCE):
        yield list(persons[at : at + PERSONS_AT_ONCE])


def facts(tally: Tally, covered: Covered) -> dict[str, object]:
    keys = tally.listed()
    counts = {verdict: tally.counts[verdict] for verdict in ("certain", "absent", "ambiguous", "decided")}
    return {"counts": counts, "keys": keys[:MOST_KEYS], "keys_total": len(keys), "covered": vars(covered)}


# --- findings -------------------------------------------------------------------------------------------------------


def findings(tally: Tally, covered: Covered) -> Iterator[Finding]:
    reach = f"{covered.contacts:,} of {covered.of_contacts:,} CRM contacts ({covered.accounts:,} of {covered.of_accounts:,} accounts whole)"
    if not tally.counts:
        yield Finding(False, f"Nothing could be measured: no activity about a deal or a company was found of {reach}.")
        return
    yield Finding(None, f"Looked at every activity about a deal or a company of {reach}.")
    yield of_guesses(tally)
    if tally.untold:
        yield Finding(False, f"The enricher gives names that the records' audits do not: {shown(tally.untold)}.")
    yield from of_collisions(tally)


def of_guesses(tally: Tally) -> Finding:
    guessed = [f"{each['role']} {each['record_id']} ({each['class']}, version {each['version']})" for each in tally.of("resolved")]
    if guessed:
        return Finding(False, f"Match keys that were resolved although their audits give two names, undecided: {shown(guessed)}.")
    told = ", ".join(f"{tally.counts[verdict]:,} {what}" for verdict, what in WHAT.items())
    return Finding(
        True, f"Of {sum(tally.counts.values()):,} names looked up, {told}; no match key was resolved although two candidates differ."
    )


def of_collisions(tally: Tally) -> Iterator[Finding]:
    ambiguous, unused = tally.of("ambiguous"), tally.of("not used")
    if ambiguous:
        whose = shown([f"{each['role']} {each['record_id']}, version {each['version']}" for each in ambiguous])
        yield Finding(None, f"Match keys with more than one name, which staff may decide under Name collisions after a run: {whose}.")
    if unused:
        yield Finding(None, f"Match keys with more than one name that no activity asks for: {len(unused):,}.")


def shown(several: list[str]) -> str:
    more = f" and {len(several) - MOST_TOLD:,} more" if len(several) > MOST_TOLD else ""
    return "; ".join(several[:MOST_TOLD]) + more
