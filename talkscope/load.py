"""`talkscope load`: many viewers at once, from options to the account, the bundle and the report.

It runs Locust with this package's users as a child process, with an exporter beside it, and puts
what both recorded into one run bundle. Whatever ends the child, no session stays unnamed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from loadgen.load.account import ACCOUNT, LEDGER, TURNS, VISITS, WINDOWS
from talkscope import children, options, report, run_file
from talkscope.arguments import http_url, new_folder, positive, seconds
from talkscope.measured import MeasuredTarget, check_target, measured_target, run_exporter
from talkscope.status import CommandError, Status

DESCRIPTION = """\
Lets many viewers talk to OpenTalking at once, each with a WebRTC session of its own, and says
what they saw, and whether this machine could keep up: a run that the generator itself spoiled
ends with status 3 and says how many workers to add.

closed model (--users): so many viewers, each comes back when it has left. A slow target gets
  fewer visits. Ask it for "how does it feel with 20 viewers?"
open model (--arrivals): viewers arrive by themselves, whatever the target does, and latency
  counts from their intended start. Ask it for "what happens at 2 viewers a second?"

Writes into --out: report.md, result.json, result.csv, the run bundle (bundle/) with every turn of
every worker, and generator/ with the generator's own account (loadgen.json).
"""

EPILOG = """\
examples:
  talkscope load --start demo --users 4 --duration 30
  talkscope load --target http://127.0.0.1:8000 --users 50 --ramp 5 --duration 300 --workers 2
  talkscope load --target http://10.0.0.7:8000 --arrivals poisson:0.5 --scenario chat.yaml
  talkscope load --target http://10.0.0.7:8000 --users 400 --master --expect-workers 4 \\
      --exporter-listen 10.0.0.5:9109
  talkscope load --worker --master-host 10.0.0.5       # on each further machine

Options after -- go to Locust: `… --duration 60 -- --html load.html --csv load`.
Plain Locust works as well: locust -f loadgen/locustfile.py --host URL. See docs/load.md.

exit status: 0 good, 1 something failed or got lost, 2 not enough data, 3 the generator was the
bottleneck, 64 wrong usage.
"""

RECORDS: Final = "generator"
_BUNDLED: Final = (ACCOUNT, TURNS, VISITS, WINDOWS)
_LAST_WORDS_S: Final = 90.0
"""Beyond --stop-timeout: Locust gives its workers a minute to stop."""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "load",
        help="load the target with many viewers and say what they saw",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to load")
    options.target(what, "start the real target on loopback with a synthetic model")
    what.add_argument(
        "--allow-target",
        action="append",
        metavar="HOST",
        help="the target must be one of these hosts; needed in CI for one that is not on loopback",
    )
    load = parser.add_argument_group("the load")
    load.add_argument(
        "--scenario", type=Path, metavar="FILE", help="YAML of what viewers do (has a default)"
    )
    load.add_argument("--users", type=positive, metavar="N", help="closed model: viewers (1)")
    load.add_argument(
        "--ramp", type=float, default=1.0, metavar="R", help="new viewers a second (%(default).0f)"
    )
    load.add_argument(
        "--arrivals",
        metavar="SPEC",
        help="open model: poisson:RATE (viewers a second) or a file of instants",
    )
    load.add_argument(
        "--duration",
        type=seconds,
        metavar="S",
        help="length of the run (default: until Ctrl-C, or the end of recorded arrivals)",
    )
    load.add_argument(
        "--stop-timeout",
        type=float,
        default=20.0,
        metavar="S",
        help="at the end, how long running answers may take to finish (%(default).0f)",
    )
    load.add_argument("--max-sessions", type=positive, metavar="N", help="sessions at once (500)")
    load.add_argument("--max-ramp", type=float, metavar="R", help="new sessions a second (20)")
    load.add_argument(
        "--decode-fraction",
        type=float,
        metavar="F",
        help="share of sessions that also decode their pictures (0)",
    )
    load.add_argument("--seed", type=int, metavar="N", help="repeat the same random choices")
    scale = parser.add_argument_group("more than one core")
    scale.add_argument(
        "--workers", type=positive, metavar="N", help="worker processes on this machine"
    )
    scale.add_argument("--master", action="store_true", help="wait for workers of other machines")
    scale.add_argument(
        "--expect-workers", type=positive, metavar="N", help="with --master: begin with so many"
    )
    scale.add_argument("--worker", action="store_true", help="be a worker of --master-host")
    scale.add_argument("--master-host", metavar="HOST", help="with --worker (127.0.0.1)")
    scale.add_argument("--master-port", type=positive, metavar="PORT", help="(5557)")
    see = parser.add_argument_group("how to see into the target, and results")
    options.sight(see)
    options.media(see)
    see.add_argument(
        "--exporter",
        type=http_url,
        metavar="URL",
        help="send marks to this exporter instead of one of the run's own; there is no bundle then",
    )
    see.add_argument(
        "--metrics-port",
        type=positive,
        metavar="PORT",
        help="serve workers' metrics from here",
    )
    see.add_argument("--web", action="store_true", help="steer the run from Locust's web page")
    see.add_argument("--tester", metavar="NAME", help="for the report")
    see.add_argument("--notes", metavar="TEXT", help="for the report")
    options.out(see)
    options.demo(parser)
    parser.add_argument("locust", nargs="*", metavar="-- …", help="options for Locust itself")
    parser.set_defaults(run=run, timeout=300.0)


def run(told: argparse.Namespace) -> Status:
    """Run the load test and print its report."""
    _check(told)
    if told.worker:
        return _status(_generate(_worker_arguments(told), told.stop_timeout))
    out = new_folder(told.out)
    try:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(measured_target(told, out))
            if told.exporter is not None:
                return _status(_load(told, target, told.exporter, out))
            bundle = out / "bundle"
            arguments = [*target.exporter, "--bundle", str(bundle)]
            with run_exporter(told, target, arguments, out) as url:
                ended = _load(told, target, url, out)
                if not (out / RECORDS / ACCOUNT).exists():
                    raise CommandError(
                        "the load test ended without its account; the lines above say why",
                        _status(ended) or Status.FAILED,
                    )
                _complete_bundle(told, target, bundle, out / RECORDS)
    except CommandError as error:
        # Nothing was measured: what is left would only be taken for a run.
        turns = out / RECORDS / TURNS
        if not error.names_logs and not (turns.exists() and turns.stat().st_size):
            shutil.rmtree(out, ignore_errors=True)
        raise
    status = report.make(bundle, out)
    missing = _missing_turns(bundle)
    if missing:
        print(
            f"talkscope load: {missing} turns of viewers are not in the bundle's turns.jsonl; "
            "viewer_turns.jsonl has them",
            file=sys.stderr,
        )
        status = max(status, Status.FAILED)
    return _gravest(_status(ended), status)


def _check(told: argparse.Namespace) -> None:
    if told.worker:
        if told.target or told.start or told.master:
            raise CommandError("--worker takes target and load from its master", Status.USAGE)
        return
    check_target(told)
    if told.users and told.arrivals:
        raise CommandError("give --users (closed) or --arrivals (open model)", Status.USAGE)
    if told.workers and told.master:
        raise CommandError("--workers runs its own master; leave --master out", Status.USAGE)


def _gravest(*statuses: Status) -> Status:
    order = (Status.INVALID, Status.FAILED, Status.NOT_ENOUGH_DATA)
    return next((s for s in order if s in statuses), max(statuses))


def _status(code: int) -> Status:
    try:
        return Status(code)
    except ValueError:
        return Status.FAILED


# --- the child ---------------------------------------------------------------------------------


def _load(told: argparse.Namespace, target: MeasuredTarget, exporter: str, out: Path) -> int:
    records = out / RECORDS
    arguments = _arguments(told, target.url, exporter, records)
    try:
        return _generate(arguments, told.stop_timeout)
    finally:
        _put_away(target.url, records)


def _generate(arguments: Sequence[str], stop_timeout: float) -> int:
    """Run the generator to its end. Ctrl-C asks it to stop and waits for its account."""
    patience = stop_timeout + _LAST_WORDS_S
    with children.load_generator(arguments, patience) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            print("talkscope load: stopping; sessions are being deleted", file=sys.stderr)
            return children.stop(child, patience)


def _arguments(told: argparse.Namespace, url: str, exporter: str, records: Path) -> list[str]:
    chosen: dict[str, Any] = {
        "--host": url,
        "--exporter": exporter,
        "--agent-exporter": told.agent_exporter,
        "--records": records,
        "--model": told.model,
        "--avatar": told.avatar,
        "--scenario": told.scenario,
        "--arrivals": told.arrivals,
        "--users": None if told.arrivals else told.users or 1,
        "--spawn-rate": None if told.arrivals else told.ramp,
        "--run-time": None if told.duration is None else f"{told.duration:.0f}s",
        "--max-sessions": told.max_sessions,
        "--max-ramp": told.max_ramp,
        "--decode-fraction": told.decode_fraction,
        "--seed": told.seed,
        "--processes": told.workers,
        "--expect-workers": told.expect_workers,
    }
    flags = [] if told.web else ["--headless", "--only-summary"]
    flags += ["--master"] if told.master else []
    for host in told.allow_target or ():
        flags += ["--allow-target", host]
    return [*_options(chosen), *flags, *_shared(told)]


def _worker_arguments(told: argparse.Namespace) -> list[str]:
    return [*_options({"--master-host": told.master_host}), "--worker", *_shared(told)]


def _shared(told: argparse.Namespace) -> list[str]:
    """Options of every role."""
    port = "--master-port" if told.worker else "--master-bind-port"
    arguments = _options(
        {
            "--stop-timeout": f"{told.stop_timeout:.0f}",
            "--metrics-port": told.metrics_port,
            "--exporter-token-file": told.exporter_token_file,
            port: told.master_port,
        }
    )
    for address in told.candidate_address or ():
        arguments += ["--candidate-address", address]
    for url in told.stun or ():
        arguments += ["--stun", url]
    return [*arguments, *told.locust]


def _options(chosen: dict[str, Any]) -> list[str]:
    return [text for flag, v in chosen.items() if v is not None for text in (flag, str(v))]


def _put_away(url: str, records: Path) -> None:
    """Delete what a generator left that was killed; one that ended well has left nothing."""
    ledger_file = records / LEDGER
    if not ledger_file.exists():
        return
    from loadgen.load.deletion import put_away
    from loadgen.load.ledger import read

    ledger = read(ledger_file)
    told = len(ledger.orphans)
    deleted = asyncio.run(put_away(url, ledger, ledger.workers(), "the generator was killed"))
    if deleted:
        were = "session that was" if deleted == 1 else "sessions that were"
        print(f"talkscope load: deleted {deleted} {were} left", file=sys.stderr)
    for orphan in ledger.orphans[told:]:
        name = orphan.session or "of unknown id"
        print(
            f"talkscope load: session {name} may still be on the target: {orphan.reason}",
            file=sys.stderr,
        )


# --- the bundle --------------------------------------------------------------------------------


def _complete_bundle(
    told: argparse.Namespace, target: MeasuredTarget, bundle: Path, records: Path
) -> None:
    """Add the generator's files and `run.json`, before the exporter seals the bundle."""
    for name in _BUNDLED:
        shutil.copy(records / name, bundle / name)
    account = json.loads((records / ACCOUNT).read_text())
    stand_ins = list(run_file.DEMO_STAND_INS) if target.demo else []
    run_file.write(
        bundle,
        "load",
        started_unix=account["started_unix"],
        target=target.url,
        mode=target.mode,
        model=account["model"],
        backend=account["backend"],
        avatar=account["avatar"],
        tester=told.tester,
        input=f"scenario {account['scenario']}",
        notes=told.notes,
        weights=run_file.DEMO_WEIGHTS if target.demo else None,
        technique=run_file.DEMO_TECHNIQUE if target.demo else None,
        stand_ins=stand_ins,
        synthetic=bool(stand_ins),
        invalid=_invalid(account["verdict"]),
        **run_file.of_demo(target.demo),
        client={
            "python": platform.python_version(),
            "aiortc": importlib.metadata.version("aiortc"),
            "locust": importlib.metadata.version("locust"),
            "os": f"{platform.system()} {platform.machine()} {''.join(platform.libc_ver())}",
        },
    )


def _invalid(verdict: dict[str, Any]) -> str | None:
    """Why the figures are the generator's own, as the report repeats it, or None."""
    if not verdict["saturated"]:
        return None
    return f"{verdict['text'].removeprefix('invalid: ')}: {verdict['advice'] or 'add workers'}"


def _missing_turns(bundle: Path) -> int:
    """Turns that a viewer lived and the exporter does not have."""
    seen = {(turn["session"], turn["client_turn"]) for turn in _lines(bundle / "turns.jsonl")}
    lived = {(turn["session"], turn["turn"]) for turn in _lines(bundle / TURNS)}
    return len(lived - seen)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
