"""Opens the three doors for a worker and gathers what is the same for all chunks of a run."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta

import psycopg
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from migration import link_reader, links, watermark
from migration import mapping as mappings
from migration.cdp import Cdp
from migration.crm import Crm
from migration.doors import Misconfigured
from migration.models import LinkIndex, NameCollision, RivalClaim, Run, Waiver
from migration.people import People
from migration.pipeline.actors import ActorMapper
from migration.pipeline.categories import CategoryMapper
from migration.pipeline.flow import VERSION, World
from migration.usman import Usman

SETTINGS = ("CRM_ORGANIZATION_ATTRIBUTE", "CRM_USER_NAME_COLUMN", "SEAM_LAG_SECONDS")  # of a worker's, what becomes of a row hangs on these


@contextmanager
def opened(run: Run) -> Iterator[World]:
    """The world of a planned run; its connections are closed at the end. Raises Outage or Misconfigured."""
    check_fits(run)
    with ExitStack() as stack:
        usman = stack.enter_context(closing(Usman()))
        crm, cdp = stack.enter_context(closing(Crm())), stack.enter_context(closing(Cdp()))
        users = stack.enter_context(closing(Crm()))  # asked while the first session is in the middle of its COPY
        yield world(run, crm, cdp, People(run, users, usman), rivals_of(run))


def check_fits(run: Run) -> None:
    """Raise Misconfigured unless this process would do the run as it was planned: by the same pipeline and settings, on the same CRM and CDP."""
    check_systems(run)
    check_settings(run)
    if run.pipeline_version != VERSION:
        raise Misconfigured(
            f"{run} was planned by pipeline version {run.pipeline_version}, this process has version {VERSION}: "
            "end the workers of the older release, then start the account's run again."
        )


def check_systems(run: Run) -> None:
    """Raise Misconfigured unless the CRM and the CDP are here the ones that the run was planned on."""
    if run.systems != systems():
        raise Misconfigured(
            f"CRM_DATABASE_URL or CDP_DATABASE_URL names another database here than where {run} was planned: "
            "start the account's run again with these, or give this process the same ones."
        )


def check_settings(run: Run) -> None:
    """Raise Misconfigured where a setting that the run's rows depend on is another here: a tenant's guard that looks for another attribute finds nothing."""
    for name, value in (run.settings or {}).items():
        if value != (here := getattr(settings, name, None)):
            raise Misconfigured(
                f"{name} is {here!r} here and was {value!r} where {run} was planned: give this process the same, or start the account's run again."
            )


def settings_here() -> dict[str, object]:
    return {name: getattr(settings, name) for name in SETTINGS}


def systems() -> str:
    """A digest of which CRM and CDP this process would reach: a run belongs to the two it was planned on."""
    return hashlib.sha256(f"{address('CRM_DATABASE_URL')} {address('CDP_DATABASE_URL')}".encode()).hexdigest()


def address(variable: str) -> str:
    """Host, port and database of a URL, without login."""
    try:
        parts = conninfo_to_dict(getattr(settings, variable))
    except psycopg.ProgrammingError:  # its text quotes the whole URL, so it may not be seen in a traceback either
        raise Misconfigured(f"{variable} cannot be read as a URL: write postgresql://user:password@host:5432/name.") from None
    return f"{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def links_until_now(mapping: mappings.Mapping, crm: Crm, pulse: links.Pulse) -> LinkIndex:
    """The link index, with whatever links have committed by now: what hangs on one that it does not know is nobody's candidate."""
    return links.up_to_date(mapping, crm, address("CRM_DATABASE_URL"), pulse=pulse)


class OutOfTime(RuntimeError):
    """Whoever asked cannot wait for the rest of a build; the next one goes on from where it is."""


def until(moment: float) -> links.Pulse:
    """What raises OutOfTime once it is called after `moment`, of time.monotonic."""

    def pulse() -> None:
        if time.monotonic() > moment:
            raise OutOfTime

    return pulse


def check() -> None:
    """Open and close all three doors. Raises Outage or Misconfigured."""
    Usman().close()
    with closing(Crm()), closing(Cdp()):
        pass


def world(run: Run, crm: Crm, cdp: Cdp, people: People, rivals: dict[int, set[int]]) -> World:
    """What the run, its account, its mapping and its capabilities come to. The run need not be saved."""
    account = run.account
    capabilities = frozenset(run.capabilities)
    mapping = mappings.parse(run.mapping_revision.document)
    organisation = account.crm_organization_id
    return World(
        crm=crm,
        cdp=cdp,
        account_id=account.cdp_id,
        organisation=organisation,
        organisation_attribute=settings.CRM_ORGANIZATION_ATTRIBUTE,
        run_id=run.uuid,
        writes=run.writes,
        mapping=mapping,
        revision=run.mapping_revision.number,
        watermark=watermark.from_json(run.watermark or {}),
        seam_lag=timedelta(seconds=settings.SEAM_LAG_SECONDS),
        rivals=rivals,
        links=link_reader.Reader(run.link_index),
        waived=frozenset(Waiver.objects.filter(account=account).values_list("person_id", "audit_id", "reason")),
        enriches="F" in capabilities,
        decisions={
            (mappings.Role(c.role), c.record_id, c.class_name, c.version): c.decided_name or ""
            for c in NameCollision.objects.filter(account=account, decided_name__isnull=False)
        },
        actors=ActorMapper(mapping, organisation, capabilities, people),
        categories=CategoryMapper(mapping, organisation, capabilities),
    )


def rivals_of(run: Run) -> dict[int, set[int]]:
    """Person -> organisations of other accounts that claim it."""
    found: dict[int, set[int]] = {}
    for person, organisation in RivalClaim.objects.filter(run=run).values_list("person_id", "crm_organization_id"):
        found.setdefault(person, set()).add(organisation)
    return found
