"""What production needs beside open gates: a rehearsal of the very same run, and no fewer capabilities than the last one."""

from migration import revisions
from migration.doors import Misconfigured
from migration.models import Account, MappingRevision, Run
from migration.pipeline.flow import VERSION
from migration.states import COMPLETE, RunMode, RunState
from migration.worlds import systems

WITHOUT = {
    "D": "deactivated users would become unknown ones",
    "E": "won, done, resolved, linked, unlinked and moved would become plain updates",
    "F": "names of deals and companies would go",
}


def problems(account: Account, capabilities: frozenset[str], *, downgrade_confirmed: bool) -> list[str]:
    """Why production may not start, in sentences; none where it may. A console without mapping has another refusal."""
    revision = revisions.current()
    if revision is None:
        return []
    try:
        found = [] if rehearsed(account, capabilities, revision) else [not_rehearsed(account, capabilities, revision)]
    except Misconfigured as error:
        return [str(error)]
    lost = set() if downgrade_confirmed else lost_capabilities(account, capabilities)
    return found + ([downgrade(account, lost)] if lost else [])


def rehearsed(account: Account, capabilities: frozenset[str], revision: MappingRevision) -> bool:
    """Whether a dry run of the same mapping, capabilities, pipeline and systems ran to its end and balanced."""
    return Run.objects.filter(
        account=account, mode=RunMode.DRY_RUN, state__in=COMPLETE, mapping_revision=revision, capabilities=sorted(capabilities),
        pipeline_version=VERSION, systems=systems(),
    ).exists()  # fmt: skip


def not_rehearsed(account: Account, capabilities: frozenset[str], revision: MappingRevision) -> str:
    command = f"run `manage.py run_account {account.crm_organization_id} --mode dry-run` first"
    last = Run.objects.filter(account=account, mode=RunMode.DRY_RUN, state__in=COMPLETE).first()
    if last is None:
        return f"{account} has no dry run that ran to its end and balanced: {command}."
    differs = [
        (last.mapping_revision_id != revision.pk, f"another mapping revision ({last.mapping_revision.number}, now {revision.number})"),
        (last.capabilities != sorted(capabilities), f"other capabilities ({named(last.capabilities)}, now {named(capabilities)})"),
        (last.pipeline_version != VERSION, f"another pipeline version ({last.pipeline_version}, now {VERSION})"),
        (last.systems != systems(), "another CRM or CDP"),
    ]
    return f"The last dry run of {account} was made with {' and '.join(what for is_so, what in differs if is_so)}: {command}."


def lost_capabilities(account: Account, capabilities: frozenset[str]) -> set[str]:
    """What the account's last production run had and this one would not have."""
    runs = Run.objects.filter(account=account, mode=RunMode.PRODUCTION, started_at__isnull=False)
    last = runs.exclude(state__in=(RunState.WITHDRAWING, RunState.WITHDRAWN)).first()
    return set(last.capabilities) - capabilities if last else set()


def downgrade(account: Account, lost: set[str]) -> str:
    effect = "; ".join(WITHOUT[letter] for letter in sorted(lost))
    return (
        f"Production would rewrite rows of {account} into poorer ones, as its last production run had capability {named(lost)}: {effect}. "
        f"Have the gate signed again, or confirm the downgrade (run_account --confirm-downgrade)."
    )


def named(capabilities: frozenset[str] | set[str] | list[str]) -> str:
    return ", ".join(sorted(capabilities)) or "none"
