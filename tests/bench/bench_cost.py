"""What observing costs: CPU of `talkscope bench` and its exporter, beside a plain client.

Both hold one session with the real target on loopback and speak the same turns. CPU is taken
between the end of the warm-up turn and the end of the last turn, so imports and the report do
not count, and the speeches and pauses in between do.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from loadgen.bench import DEFAULT_PROMPT
from talkscope import children
from tests.bench.measurement import Measurement
from tests.processes import ROOT

NAME = "bench-cost"

TURNS = 6
SIZE = ("--width", "540", "--height", "900")
TICKS = os.sysconf("SC_CLK_TCK")
LONGEST_S = 300.0


def run() -> Measurement:
    """Start the target, run both clients one after the other, and compare."""
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as name:
        folder = Path(name)
        options = ["--mode", "unified", *SIZE]
        with children.demo_target(options, folder / "target", LONGEST_S) as target:
            ours = _ours(target, folder)
            peer = _plain(target, folder)
    return Measurement(
        name=NAME,
        value=ours["client"] + ours["exporter"],
        unit="% of one core per session",
        better="lower",
        peer="a plain aiortc client that receives, decodes and measures nothing",
        peer_value=peer["client"],
        conditions={
            "session": "540×900, 25 fps, VP8 and Opus, one session at a time, loopback",
            "turns": f"{TURNS} after a warm-up turn, some 9 s of speech each, 1 s apart",
            "target": "real OpenTalking and OmniRT, synthetic runtime",
            "exporter": "unified mode: relayed events, log lines, HTTP polling, bundle",
        },
        figures={
            "client alone": (ours["client"], peer["client"], "% of one core"),
            "exporter alone": (ours["exporter"], 0.0, "% of one core"),
        },
    )


def _ours(target: children.DemoTarget, folder: Path) -> dict[str, float]:
    out = folder / "out"
    command = [sys.executable, "-m", "talkscope.cli", "bench", "--target", target.url]
    command += ["--model", "wav2lip", "--log", str(target.log), "--repeat", str(TURNS)]
    turns = out / "bundle" / "turns.jsonl"

    def spoken() -> int:
        return turns.read_bytes().count(b"\n") if turns.exists() else 0

    with _running([*command, "--out", str(out)], folder / "ours.log") as child:
        return _cost(child, spoken, lambda: {"exporter": _only_child(child.pid)})


def _plain(target: children.DemoTarget, folder: Path) -> dict[str, float]:
    log = folder / "plain.log"
    command = [sys.executable, "-m", "tests.bench.plain_aiortc", target.url, "wav2lip"]
    command += [str(target.facts["avatar"]), str(TURNS + 1), DEFAULT_PROMPT]
    with _running(command, log) as child:
        return _cost(child, lambda: log.read_bytes().count(b"\n"), dict)


def _cost(
    child: subprocess.Popen[bytes],
    spoken: Callable[[], int],
    others: Callable[[], dict[str, int]],
) -> dict[str, float]:
    """Percent of a core by process, from the first turn's end to the last's."""
    _until(lambda: spoken() >= 1, child)
    processes = {"client": child.pid} | others()
    started = time.monotonic()
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    _until(lambda: spoken() >= TURNS + 1, child)
    seconds = time.monotonic() - started
    return {n: 100 * (cpu_seconds(p) - before[n]) / seconds for n, p in processes.items()}


def _until(condition: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        if child.poll() is not None:
            raise RuntimeError(f"{child.args!r} ended early with status {child.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{child.args!r} did not speak its turns in {LONGEST_S:.0f} s")
        time.sleep(0.01)


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, log.with_suffix(".err").open("wb") as errors:
        child = subprocess.Popen(command, stdout=output, stderr=errors, cwd=ROOT)
        try:
            yield child
            child.wait(LONGEST_S)
        finally:
            child.terminate()
            child.wait(30)
    if child.returncode != 0:
        raise RuntimeError(log.with_suffix(".err").read_text())


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _only_child(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
