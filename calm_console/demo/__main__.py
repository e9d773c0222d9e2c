"""`make demo`: the sample, moved from a CRM to a CDP before your eyes; then the console served, unless SERVE=0.

Every step is one that an operator takes on real systems, by the same commands. Exit code 0 only if every ledger balances and verifies.
"""

import os
import subprocess
import sys
from pathlib import Path

from calm_console import embedded
from calm_console.demo import sample
from calm_console.demo.logins import LOGINS, SIGNERS

ROOT = Path(__file__).parents[2]
MAPPING = Path(__file__).parent / "mapping.json"
ORGANISATIONS = (1, 2, 3)
SHORT_OF_GATE_C = 3  # 96.94 % of its contacts carry a source_id: its dry run goes through, its production run is refused
REFUSED = (4,)  # run_account's and sign_gate's exit code where a gate is in the way
SIGNATURES = {  # gate -> the groups that sign it, in the demo on nothing but the evidence
    "A": ("CRM Squad", "Platform"),
    "B": ("CRM DBA",),
    "D": ("Platform",),
    "E": ("CRM Squad", "CDP"),
    "F": ("RFC reviewer", "CDP"),
    "G": ("Design",),
    "H": ("Delivery",),
}
Step = tuple[str, tuple[str, ...], tuple[int, ...]]  # what is done, the command that does it, its good exit codes
COMPLETE = (0, 3)  # run_account's exit codes for a run that balances and verifies: complete, partial


def main() -> int:
    environ = dict(os.environ)
    environ["PYTHONUNBUFFERED"] = "1"
    try:
        prepare(environ)
    except (embedded.EmbeddedError, sample.NotTheSample) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    failed = [step for step in steps() if not ran(step, environ)]
    if failed:
        say(f"{len(failed)} of the demo's steps did not end well; see above.")
        return 1
    say("Every ledger balances, every run verifies, and gate C held back the account that falls short of it.")
    tell_where(environ)
    return serve(environ) if environ.get("SERVE", "1") != "0" else 0


def prepare(environ: dict[str, str]) -> None:
    """Servers up, sample loaded. Databases that URLs name are only filled where they are empty, and only ever with the sample."""
    say("Starting servers (those for which no URL is set)")
    with_stand_ins(environ)
    embedded.start(environ)
    urls = embedded.environment(environ)
    crm, cdp = environ.get("CRM_DATABASE_URL", "").strip(), environ.get("CDP_DATABASE_URL", "").strip()
    say("Loading the sample: 2,002 audits of three organisations, and the CDP's contacts")
    sample.load_crm(crm) if crm else sample.load_crm(embedded.admin_url("crm"), reader="crm_reader")
    sample.load_cdp(cdp) if cdp else sample.load_cdp(embedded.admin_url("cdp"), role="calm_cdp")
    environ |= urls


def with_stand_ins(environ: dict[str, str]) -> None:
    """The demo's people are in the stand-in, whichever database the CRM is in."""
    if environ.get("CRM_DATABASE_URL", "").strip() and not environ.get("USMAN_URL", "").strip():
        without = {name: value for name, value in environ.items() if name != "CRM_DATABASE_URL"}
        embedded.start(without)
        urls = embedded.environment(without)
        environ |= {name: urls[name] for name in ("USMAN_URL", "IAG_URL") if not environ.get(name, "").strip()}


def steps() -> list[Step]:
    """The operator's own commands, in their order."""
    mapping = (
        "publish_mapping",
        "--file",
        str(MAPPING.relative_to(ROOT)),
        "--yes",
        "--by",
        "demo",
        "--note",
        "the sample's classes and ids",
    )
    found: list[Step] = [
        ("The console's own tables", ("migrate", "--verbosity", "0"), (0,)),
        ("Demo logins", ("demo_logins",), (0,)),
        ("Accounts from the CDP", ("sync_accounts",), (0,)),
        ("The mapping", mapping, (0,)),
    ]
    return found + signatures() + runs()


def signatures() -> list[Step]:
    """Every gate measured, and signed by one person of each owner group; gate C of one organisation cannot be."""
    found: list[Step] = [("What the gates are decided on", ("probe_gates",), (0, 3))]
    for gate, groups in SIGNATURES.items():
        found += [(f"Gate {gate}, for {group}", signature(gate, group), (0,)) for group in groups]
    for organisation in ORGANISATIONS:
        falls_short = organisation == SHORT_OF_GATE_C
        about = f"Gate C of organisation {organisation}, for CDP" + (": refused, its coverage falls short" if falls_short else "")
        found.append((about, (*signature("C", "CDP"), "--account", str(organisation)), REFUSED if falls_short else (0,)))
    return found


def signature(gate: str, group: str) -> tuple[str, ...]:
    return ("sign_gate", gate, "--by", SIGNERS[group], "--group", group, "--note", "the sample's evidence will do")


def runs() -> list[Step]:
    found: list[Step] = []
    for organisation in ORGANISATIONS:
        for mode in ("dry-run", "production"):
            refused = mode == "production" and organisation == SHORT_OF_GATE_C
            about = f"Organisation {organisation}, {mode}" + (": refused by gate C, as it must be" if refused else "")
            command = ("run_account", str(organisation), "--mode", mode, "--inline")
            found.append((about, command, REFUSED if refused else COMPLETE))
    return found


def ran(step: Step, environ: dict[str, str]) -> bool:
    about, command, good = step
    say(f"{about}: manage.py {' '.join(command)}")
    return subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=environ, check=False).returncode in good


def tell_where(environ: dict[str, str]) -> None:
    """How to look at what was made."""
    command = f"{Path(sys.executable).parent.relative_to(ROOT) if Path(sys.executable).is_relative_to(ROOT) else Path(sys.executable).parent}/python"
    print(f"  look again:      {command} manage.py verify_account 1")
    print(f"  the servers:     {command} -m calm_console.embedded urls   (make stop ends them)")
    if os.environ.get("CRM_DATABASE_URL", "").strip() and not os.environ.get("USMAN_URL", "").strip():
        print(f"  the stand-in:    set USMAN_URL={environ['USMAN_URL']} for further commands on this CRM")
    for name in LOGINS:
        print(f"  login:           {name} / {name}")


def serve(environ: dict[str, str]) -> int:
    """The console on loopback until it is stopped."""
    port = environ.get("PORT", "8000")
    say(f"The console is served at http://127.0.0.1:{port}/ (Ctrl-C ends it)")
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "calm_console.wsgi",
        "--bind",
        f"127.0.0.1:{port}",
        "--workers",
        "2",
        "--threads",  # a browser opens connections in advance, and each would hold up a process that has but one thread
        "4",
        "--no-control-socket",
        "--log-level",
        "warning",
    ]
    try:
        return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode
    except KeyboardInterrupt:
        return 0


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
