"""How many bus events a second the exporter takes on one core, through to histograms and spans.

A real Redis carries recorded turns of many sessions as fast as it can; the exporter is a real
process with an OTLP endpoint and 1 % of turns sampled. CPU seconds count, not wall-clock: the
publisher and Redis run on the machine's other core.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.bench.bench_cost import cpu_seconds
from tests.bench.bus_traffic import UNLIMITED, messages, publish
from tests.bench.measurement import Measurement
from tests.otlp_receiver import OtlpReceiver
from tests.processes import ROOT, exporter, redis_server, wait_until

NAME = "exporter-events"

SESSIONS = 500
TURNS = 30
LONGEST_S = 300.0


def run() -> Measurement:
    """Publish to both in turn, each alone on the bus."""
    traffic = list(messages(SESSIONS, TURNS))
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as name:
        folder = Path(name)
        with redis_server(folder, options=UNLIMITED) as (url, _):
            ours = _ours(url, folder, traffic)
            peer = _peer(url, traffic)
    return Measurement(
        name=NAME,
        value=len(traffic) / ours,
        unit="events a second on one core",
        better="higher",
        peer="a plain redis-py subscriber that only parses the JSON",
        peer_value=len(traffic) / peer,
        conditions={
            "events": f"{len(traffic)} of {SESSIONS} sessions, {TURNS} turns each, "
            f"{len(traffic) / SESSIONS / TURNS:.0f} events a turn, as recorded",
            "sinks": "histograms, and spans of 1 % of turns over OTLP/HTTP",
            "counted": "CPU seconds of the process, user and system",
        },
    )


def _ours(url: str, folder: Path, traffic: list[tuple[str, str]]) -> float:
    with (
        OtlpReceiver() as receiver,
        exporter(
            folder,
            *("--target", "http://127.0.0.1:9", "--redis", url),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_url,
            OTEL_TRACES_SAMPLER="parentbased_traceidratio",
            OTEL_TRACES_SAMPLER_ARG="0.01",
        ) as (exporter_url, child),
    ):
        wait_until(lambda: sample(exporter_url, 'up{source="bus"}') == 1, "the subscription")
        before = cpu_seconds(child.pid)
        publish(url, traffic)
        wait_until(
            lambda: sample(exporter_url, 'events_total{source="bus"}') >= len(traffic),
            "all events",
            LONGEST_S,
            pause=0.5,
        )
        spent = cpu_seconds(child.pid) - before
        turns = sample(exporter_url, "", "opentalking_turns_total")
        if turns != SESSIONS * TURNS:
            raise RuntimeError(f"{turns} turns were counted of {SESSIONS * TURNS}")
        return spent


def _peer(url: str, traffic: list[tuple[str, str]]) -> float:
    command = [sys.executable, "-m", "tests.bench.plain_subscriber", url, str(len(traffic))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        child.stdout.readline()
        publish(url, traffic)
        return float(child.stdout.readline())


def sample(url: str, name: str, family: str = "talkscope_source_") -> float:
    """Sum of the samples of a running exporter whose lines begin like this."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(family + name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)
