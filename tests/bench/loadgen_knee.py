"""How many viewers the real OpenTalking bears: a table by sessions, and the knee in it.

One run of the load generator for each number of sessions, on one target with the agent. The knee is
the last number of sessions at which viewers are served as a single one is: no error, nominal frame
rate, first sound and the end of the answer as early. What the generator says of itself stands
beside it: a level that it spoiled is no level of the target's.

With model mock OpenTalking works alone, with wav2lip through the real OmniRT server and its
synthetic runtime. Neither says anything of a talking head's performance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporter import stages
from talkscope import children
from talkscope.demo import exporter_arguments
from tests.bench.measurement import Measurement
from tests.processes import ROOT

MOCK, WAV2LIP = "loadgen-knee", "loadgen-knee-wav2lip"

LEVELS = (1, 2, 4, 8, 16, 24)
BY_HAND: Final = {"mock": 16, "wav2lip": 8}
"""Ceilings at 256×256 on two cores, found by hand with a client that records: with more, audio or
idle frames drop out."""

FPS = 25.0
FPS_SHARE = 0.95
TTFA_FACTOR, COMPLETION_FACTOR = 2.0, 1.10
DURATION_S = 20
LONGEST_S = 120.0
TRIES = 2
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

    def figure(self, stage: stages.Stage, statistic: str = "p50") -> float | None:
        """A statistic of a stage, in the unit of its key."""
        told = self.account["stages"].get(stage.key)
        return None if told is None else told[statistic]

    @property
    def errors(self) -> int:
        """Turns and visits that went wrong."""
        return sum(self.account["failures"].values())


def mock() -> Measurement:
    """OpenTalking alone."""
    return _knee(MOCK, "mock", "model mock, in OpenTalking's own process")


def wav2lip() -> Measurement:
    """OpenTalking and OmniRT."""
    return _knee(WAV2LIP, "wav2lip", "model wav2lip on the real OmniRT with a synthetic runtime")


def _knee(name: str, model: str, what: str) -> Measurement:
    """Load the target with more and more viewers."""
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as path:
        folder = Path(path)
        (folder / "scenario.yaml").write_text(SCENARIO)
        listen = children.with_port("127.0.0.1:0")
        options = ["--mode", "unified", "--llm-text", ANSWER, "--agent", f"http://{listen}"]
        with (
            children.demo_target(options, folder / "target", LONGEST_S) as target,
            children.exporter(exporter_arguments(target), folder, listen=listen) as exporter,
        ):
            levels = [_valid_level(target.url, exporter.url, model, n, folder) for n in LEVELS]
    print(_table(levels), flush=True)
    knee = knee_of(levels)
    last = next((level for level in levels if level.sessions == knee), levels[0])
    return Measurement(
        name=name,
        value=float(knee),
        unit="sessions",
        better="higher",
        peer="the ceiling found by hand on two cores; the knee should lie within one step of it",
        peer_value=float(BY_HAND[model]),
        conditions={
            "target": f"real OpenTalking with the agent, unified mode, {what}, 256×256 at 25 fps, "
            f"{os.cpu_count()} cores shared with exporter and generator",
            "levels": ", ".join(map(str, LEVELS)) + f" sessions for {DURATION_S} s each, "
            "once more where the generator says that it spoiled them",
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


def _valid_level(url: str, exporter: str, model: str, sessions: int, folder: Path) -> Level:
    """A level; one that the generator spoiled is taken once more."""
    for attempt in range(TRIES):
        level = _level(url, exporter, model, sessions, folder / f"records-{sessions}-{attempt}")
        if not level.account["verdict"]["saturated"]:
            break
    return level


def _level(url: str, exporter: str, model: str, sessions: int, records: Path) -> Level:
    command = [sys.executable, "-m", "loadgen.load", "--headless", "--only-summary"]
    command += [
        "--host",
        url,
        "--model",
        model,
        "--scenario",
        str(records.parent / "scenario.yaml"),
    ]
    command += ["--users", str(sessions), "--spawn-rate", str(sessions)]
    command += ["--run-time", f"{DURATION_S}s", "--stop-timeout", "15"]
    command += ["--records", str(records), "--agent-exporter", exporter]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=LONGEST_S, check=False)
    account = json.loads((records / "loadgen.json").read_text())
    return Level(sessions=sessions, account=account, freezes=account["freezes"])


_COLUMNS: Final = ("TTFA p50 / p95", "TTFV p50 / p95", "completion", "FPS", "drift", "freezes")


def _cells(level: Level) -> list[str]:
    """One level's figures, times in ms, in the order of `_COLUMNS`."""

    def text(stage: stages.Stage, *statistics: str, digits: int = 0) -> str:
        values = [level.figure(stage, statistic) for statistic in statistics]
        return " / ".join("-" if v is None else f"{v:.{digits}f}" for v in values)

    return [
        text(stages.PERCEIVED_TTFA, "p50", "p95"),
        text(stages.PERCEIVED_TTFV, "p50", "p95"),
        text(stages.TURN_COMPLETION, "p50"),
        text(stages.PLAYBACK_FPS, "p50", digits=1),
        text(stages.AV_DRIFT, "p50"),
        "-" if level.freezes is None else str(level.freezes),
    ]


def _row(level: Level) -> str:
    told = [f"{name} {cell}" for name, cell in zip(_COLUMNS, _cells(level), strict=True)]
    bases = level.account["bases"].get(stages.AV_DRIFT.key, {})
    told += [f"errors {level.errors}", f"turns {sum(level.account['turns'].values())}"]
    told += [f"basis {', '.join(f'{basis} {n}' for basis, n in bases.items()) or '-'}"]
    return ", ".join([*told, f"generator {level.account['verdict']['text']}"])


def _table(levels: list[Level]) -> str:
    """The levels in Markdown, as docs/load.md shows them."""
    names = ("sessions", *_COLUMNS, "errors", "turns", "generator")
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for level in levels:
        cells = [str(level.sessions), *_cells(level), str(level.errors)]
        cells += [str(sum(level.account["turns"].values())), level.account["verdict"]["text"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
