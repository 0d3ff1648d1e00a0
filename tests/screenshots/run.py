"""The run that the pictures show: viewers who come one by one to the real target on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grafana.__main__ import ROOT
from loadgen.opentalking import SAMPLE_RATE
from talkscope.status import Status
from tests.e2e.stack import MODEL, deployment
from tests.otlp_receiver import OtlpReceiver
from tests.processes import free_port
from tests.prometheus import Prometheus, prometheus
from tests.screenshots.recorded import scrape_interval_s

USERS: Final = 4
RAMP_S: Final = 25.0
DURATION_S: Final = 150.0
BEFORE_S: Final = 10.0
"""Watched before the first viewer comes; the pictures end before the last ones leave."""

RULES: Final = tuple(
    ROOT / "deploy/prometheus/rules" / name for name in ("recordings.yml", "alerts.yml")
)

SCENARIOS: Final = """
scenarios:
  - name: chat
    weight: 3
    turns: {min: 3, max: 6}
    think: {min: 0.5, max: 2}
    inputs:
      - say: Please introduce yourself.
      - speak: question.wav
      - say: Tell me a long story.
  - name: interruption
    turns: 2
    think: 1
    inputs:
      - say: Tell me a long story.
        interrupt_after: 1
      - say: A shorter one, please.
"""


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[tuple[Prometheus, float, float]]:
    """A Prometheus that watched such a run, and between which Unix times.

    The load test's own lines go to stderr. Raises RuntimeError if it could not be run at all.
    """
    scenario = _scenario(folder)
    port = free_port()
    with (
        OtlpReceiver() as traces,
        deployment(
            folder, state="two_gpus", OTEL_EXPORTER_OTLP_ENDPOINT=traces.http_url
        ) as running,
        prometheus(
            folder,
            running.address,
            f"127.0.0.1:{port}",
            rules=RULES,
            interval=f"{scrape_interval_s()}s",
        ) as watching,
    ):
        began = time.time()
        time.sleep(BEFORE_S)
        command = [sys.executable, "-m", "talkscope.cli", "load", "--target", running.target.url]
        command += ["--model", MODEL, "--scenario", str(scenario), "--exporter", running.exporter]
        command += ["--users", str(USERS), "--ramp", str(1 / RAMP_S), "--seed", "1"]
        command += ["--duration", str(DURATION_S), "--metrics-port", str(port)]
        done = subprocess.run(
            [*command, "--out", str(folder / "load")],
            cwd=ROOT,
            stdout=sys.stderr,
            check=False,
        )
        # A lost turn, or a machine too busy for so many: the dashboards show it, as they should.
        if done.returncode not in (Status.GOOD, Status.FAILED, Status.INVALID):
            raise RuntimeError(f"the load test ended with status {done.returncode}")
        yield watching, began, began + BEFORE_S + DURATION_S


def _scenario(folder: Path) -> Path:
    """The scenario's file, beside the silence that its viewers speak."""
    with wave.open(str(folder / "question.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * SAMPLE_RATE))
    path = folder / "scenario.yaml"
    path.write_text(SCENARIOS)
    return path
