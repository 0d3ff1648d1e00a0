"""How many viewers the real OpenTalking bears: a table by sessions, and the knee in it.

One run of the load generator for each number of sessions, on one target. The knee is the last
number of sessions at which viewers are served as a single one is: no error, nominal frame rate,
first sound and the end of the answer as early. What the generator says of itself stands beside
it: a level that it spoiled is no level of the target's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from exporter import stages
from talkscope import children
from tests.bench.measurement import Measurement
from tests.processes import ROOT

NAME = "loadgen-knee"

LEVELS = (1, 2, 4, 8, 16, 24)
BY_HAND = 16
"""Ceiling of mock sessions at 256×256 on two cores, found by hand with a decoding client."""

FPS = 25.0
FPS_SHARE = 0.95
TTFA_FACTOR, COMPLETION_FACTOR = 2.0, 1.10
DURATION_S = 15
LONGEST_S = 120.0
ANSWER = "Hello there, I am well, and I hope that you are well, too."

SCENARIO = """
scenarios:
  - name: talk
    turns: 100
    think: {min: 0.5, max: 1.5}
    inputs: [{say: Hello}]
"""


@dataclass(frozen=True)
class Level:
    """What viewers saw at one number of sessions."""

    sessions: int
    account: dict[str, Any]
    freezes: int | None
    drift_change_ms: float | None

    def figure(self, stage: stages.Stage, statistic: str = "p50") -> float | None:
        """A statistic of a stage, in the unit of its key."""
        told = self.account["stages"].get(stage.key)
        return None if told is None else told[statistic]

    @property
    def errors(self) -> int:
        """Turns and visits that went wrong."""
        return sum(self.account["failures"].values())


def run() -> Measurement:
    """Load the target with more and more viewers."""
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as name:
        folder = Path(name)
        (folder / "scenario.yaml").write_text(SCENARIO)
        options = ["--mode", "unified", "--llm-text", ANSWER]
        with children.demo_target(options, folder / "target", LONGEST_S) as target:
            levels = [_level(target.url, sessions, folder) for sessions in LEVELS]
    for level in levels:
        print(f"{level.sessions:3} sessions: {_row(level)}", flush=True)
    knee = knee_of(levels)
    last = next((level for level in levels if level.sessions == knee), levels[0])
    return Measurement(
        name=NAME,
        value=float(knee),
        unit="sessions",
        better="higher",
        peer="the ceiling found by hand on two cores; the knee should lie within one step of it",
        peer_value=float(BY_HAND),
        conditions={
            "target": "real OpenTalking, unified mode, model mock, 256×256 at 25 fps, "
            f"{os.cpu_count()} cores shared with the generator",
            "levels": ", ".join(map(str, LEVELS)) + f" sessions for {DURATION_S} s each",
            "knee": f"no error, FPS ≥ {FPS_SHARE:.0%} of nominal, TTFA p95 ≤ {TTFA_FACTOR:.0f} × "
            f"and turn completion ≤ {COMPLETION_FACTOR:.2f} × a single session's",
            **{f"{level.sessions} sessions": _row(level) for level in levels},
        },
        figures={
            "TTFA p50 at the knee, and alone": (
                last.figure(stages.PERCEIVED_TTFA) or 0.0,
                levels[0].figure(stages.PERCEIVED_TTFA) or 0.0,
                "ms",
            ),
        },
    )


def knee_of(levels: list[Level]) -> int:
    """The last number of sessions, counted up from one, at which all are served; 0 for none."""
    knee = 0
    for level in levels:
        if not _served(level, levels[0]):
            break
        knee = level.sessions
    return knee


def _served(level: Level, alone: Level) -> bool:
    ttfa, completion = stages.PERCEIVED_TTFA, stages.TURN_COMPLETION
    limits = (
        (level.figure(ttfa, "p95"), alone.figure(ttfa), TTFA_FACTOR),
        (level.figure(completion), alone.figure(completion), COMPLETION_FACTOR),
    )
    fps = level.figure(stages.PLAYBACK_FPS)
    return (
        not level.errors
        and fps is not None
        and fps >= FPS_SHARE * FPS
        and all(v is not None and a is not None and v <= f * a for v, a, f in limits)
    )


def _level(url: str, sessions: int, folder: Path) -> Level:
    records = folder / f"records-{sessions}"
    command = [sys.executable, "-m", "loadgen.load", "--headless", "--only-summary"]
    command += ["--host", url, "--model", "mock", "--scenario", str(folder / "scenario.yaml")]
    command += ["--users", str(sessions), "--spawn-rate", str(sessions)]
    command += ["--run-time", f"{DURATION_S}s", "--stop-timeout", "15"]
    command += ["--records", str(records)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=LONGEST_S, check=False)
    account = json.loads((records / "loadgen.json").read_text())
    turns = [json.loads(s) for s in (records / "viewer_turns.jsonl").read_text().splitlines()]
    changes = [turn["drift"]["median_ms"] for turn in turns if turn["drift"]]
    return Level(
        sessions=sessions,
        account=account,
        freezes=account["freezes"],
        drift_change_ms=median(changes) if changes else None,
    )


def _row(level: Level) -> str:
    def text(value: float | None, unit: str = "") -> str:
        return "-" if value is None else f"{value:.0f}{unit}"

    fps = level.figure(stages.PLAYBACK_FPS)
    parts = (
        f"TTFA p50 {text(level.figure(stages.PERCEIVED_TTFA))}",
        f"p95 {text(level.figure(stages.PERCEIVED_TTFA, 'p95'), ' ms')}",
        f"TTFV p50 {text(level.figure(stages.PERCEIVED_TTFV), ' ms')}",
        f"completion {text(level.figure(stages.TURN_COMPLETION), ' ms')}",
        f"FPS {'-' if fps is None else f'{fps:.1f}'}",
        f"drift {text(level.drift_change_ms, ' ms')}",
        f"freezes {'-' if level.freezes is None else level.freezes}",
        f"errors {level.errors}",
        f"turns {sum(level.account['turns'].values())}",
        f"generator {level.account['verdict']['text']}",
    )
    return ", ".join(parts)
