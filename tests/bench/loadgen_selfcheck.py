"""Whether a run that the generator calls valid says what a lone viewer says, and only such a run.

On one target: the median time to first video of a probe that is alone, then of the same run of some
viewers twice: with the generator's core taken away, which it must call invalid, and with the core
given back, which it must call valid.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from exporter import stages
from talkscope import children
from talkscope.demo import exporter_arguments
from tests.bench.measurement import Measurement
from tests.processes import hogs, process, wait_until

NAME = "loadgen-selfcheck"

MODEL: Final = "wav2lip"
ANSWER: Final = "Hello there, I am well."
VIEWERS, DURATION_S = 3, 28
PROBED: Final = 15
CORE: Final = "0"
HOGS: Final = 4
VALID, INVALID = (0, 1), 3
TRIES: Final = 3
LONGEST_S: Final = 150.0
TTFV: Final = stages.PERCEIVED_TTFV.key

SCENARIO = """
scenarios:
  - name: talk
    turns: 100
    think: {min: 0.5, max: 1.5}
    inputs: [{say: Hello}]
"""


class VoidError(RuntimeError):
    """The generator did not say what it must."""


@dataclass(frozen=True)
class Run:
    """One run of the generator."""

    status: int
    verdict: Mapping[str, Any]
    ttfv_ms: list[float]


def run() -> Measurement:
    """Probe, take the core away, give it back."""
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as name:
        folder = Path(name)
        (folder / "scenario.yaml").write_text(SCENARIO)
        listen = children.with_port("127.0.0.1:0")
        options = ["--mode", "unified", "--llm-text", ANSWER, "--agent", f"http://{listen}"]
        with children.demo_target(options, folder / "target", LONGEST_S) as target:
            arguments = [*exporter_arguments(target), "--bundle", str(folder / "bundle")]
            with children.exporter(arguments, folder, listen=listen) as exporter:
                probed = _probed(target.url, exporter.url, folder)
                voided = _run(target.url, exporter.url, folder / "voided", HOGS)
                for attempt in range(1, TRIES + 1):
                    valid = _run(target.url, exporter.url, folder / f"valid-{attempt}", 0)
                    if valid.status in VALID:
                        break
    if voided.status != INVALID:
        raise VoidError(f"a generator without its core calls its run {voided.verdict['text']}")
    if valid.status not in VALID:
        raise VoidError(f"a generator with its core calls its run {valid.verdict['text']}")
    alone = median(probed)

    def apart(run: Run) -> float:
        return 100.0 * abs(median(run.ttfv_ms) - alone) / alone

    return Measurement(
        name=NAME,
        value=apart(valid),
        unit="% between the median TTFV of a valid run and a lone probe's",
        better="lower",
        peer="the same run with the generator's core taken away, which it called invalid",
        peer_value=apart(voided),
        conditions={
            "target": f"real OpenTalking with the agent, unified mode, model {MODEL} on the real "
            "OmniRT with a synthetic runtime, 256×256 at 25 fps, on both cores",
            "generator": f"{VIEWERS} viewers for {DURATION_S} s on core {CORE}, taken away "
            f"by {HOGS} processes that spin",
            "probe": f"talkscope probe, alone, {len(probed)} turns: median {alone:.0f} ms",
            "valid run": f"{len(valid.ttfv_ms)} turns: median {median(valid.ttfv_ms):.0f} ms, "
            f"{valid.verdict['text']}, attempt {attempt}",
            "voided run": f"{len(voided.ttfv_ms)} turns: median {median(voided.ttfv_ms):.0f} ms, "
            f"{voided.verdict['text']}",
            "left out": "the first turn of each session; basis of all: the agent's timestamps",
        },
        figures={
            "median TTFV, valid run and probe": (median(valid.ttfv_ms), alone, "ms"),
            "median TTFV, voided run and probe": (median(voided.ttfv_ms), alone, "ms"),
        },
    )


def _probed(target: str, exporter: str, folder: Path) -> list[float]:
    """The TTFV of each turn of a probe but its first, in ms."""
    command = [sys.executable, "-m", "talkscope.cli", "probe", "--target", target]
    command += ["--exporter", exporter, "--model", MODEL, "--every", "1", "--turns", "1000"]
    turns = folder / "bundle" / "turns.jsonl"
    with process([*command, "--listen", "127.0.0.1:0"], log=folder / "probe.log"):
        wait_until(lambda: len(_ttfv(_lines(turns))) >= PROBED, "the probe's turns", LONGEST_S)
    return _ttfv(_lines(turns))


def _run(target: str, exporter: str, records: Path, hogs_: int) -> Run:
    """Run the generator on its core, with so many processes beside it there."""
    command = ["taskset", "-c", CORE, sys.executable, "-m", "loadgen.load", "--headless"]
    command += ["--only-summary", "--host", target, "--model", MODEL, "--agent-exporter", exporter]
    command += ["--scenario", str(records.parent / "scenario.yaml"), "--records", str(records)]
    command += ["--users", str(VIEWERS), "--spawn-rate", str(VIEWERS)]
    command += ["--run-time", f"{DURATION_S}s", "--stop-timeout", "10"]
    with process(command, log=records.with_suffix(".log")) as child:
        ledger = records / "sessions_open.jsonl"
        wait_until(lambda: child.poll() is not None or _lines(ledger), "a session", LONGEST_S)
        with hogs(CORE, hogs_):
            account = records / "loadgen.json"
            wait_until(lambda: child.poll() is not None or account.exists(), "its end", LONGEST_S)
        status = child.wait(LONGEST_S)
    verdict = json.loads(account.read_text())["verdict"]
    return Run(status, verdict, _ttfv(_lines(records / "viewer_turns.jsonl")))


def _ttfv(turns: Iterable[Mapping[str, Any]]) -> list[float]:
    """Milliseconds of all turns but the first of each session."""
    seen: set[str] = set()
    found = []
    for turn in turns:
        if turn["session"] in seen and TTFV in turn["values"]:
            found.append(float(turn["values"][TTFV]))
        seen.add(turn["session"])
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
