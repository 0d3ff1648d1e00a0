"""What a report costs: a bundle of a million turns, and seven days of a real Prometheus."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from exporter import stages
from exporter.stages import Instrument
from report.prometheus import Prometheus, Range
from report.window import Selection, read
from tests.bench.measurement import Measurement
from tests.exporter import example
from tests.processes import ROOT
from tests.prometheus import Life, openmetrics, prometheus
from tests.report.recording import START, Recording, seal, timing

BUNDLE = "report-million"
WINDOW = "report-window"
TURNS = 1_000_000
_DISTINCT = 20_000
_SESSION = b"sess_________"

DAYS = 7
_SCRAPE_S = 240.0
_MIB = 2**20


def bundle() -> Measurement:
    """`talkscope report` on a bundle of a million turns, as a process of its own."""
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as folder:
        path = Path(folder) / "bundle"
        _write(path)
        size = (path / "turns.jsonl").stat().st_size
        plain_s, plain_mib = _run([sys.executable, "-c", _PLAIN, str(path / "turns.jsonl")])
        ours_s, ours_mib = _run([sys.executable, "-m", "talkscope.cli", "report", str(path)])
    return Measurement(
        name=BUNDLE,
        value=ours_s,
        unit="s",
        better="lower",
        peer="json.loads of every line of turns.jsonl in one process, each thrown away at once",
        peer_value=plain_s,
        conditions={
            "turns": TURNS,
            "turns.jsonl": f"{size / _MIB:.0f} MiB, every field the exporter writes, "
            f"{_DISTINCT} distinct turns",
            "processors": os.cpu_count(),
            "memory": "highest sum of the proportional set sizes of all processes, every 50 ms",
        },
        figures={"memory": (ours_mib, plain_mib, "MiB")},
    )


_PLAIN = """
import json, sys
with open(sys.argv[1], 'rb') as lines:
    for line in lines:
        json.loads(line)
"""


def _write(path: Path) -> None:
    """A bundle whose turns are as the exporter writes them, but for the session in them."""
    Recording(turns=[], samples=[]).write(path)
    generator = random.Random(1)
    lines = [_line(generator, number) for number in range(1, _DISTINCT + 1)]
    with (path / "turns.jsonl").open("wb") as file:
        for number in range(TURNS):
            session = b"sess_%08d" % (number // _DISTINCT)
            file.write(lines[number % _DISTINCT].replace(_SESSION, session, 1))
    (path / "manifest.json").unlink()
    _seal_large(path)


def _line(generator: random.Random, number: int) -> bytes:
    """A turn of a deployment whose bus, agent and client are seen."""
    at = START + number
    turn = example.turn(session=_SESSION.decode(), turn=number, trace_id=f"{number:032x}")
    for mark in turn.marks:
        turn.marks[mark] = at
        at += round(generator.lognormvariate(-2.0, 0.4), 6)
    for stage in stages.turn_intervals():
        between = stages.value_between(stage, turn.marks)
        if between is not None:
            turn.values[stage.key], turn.value_sources[stage.key] = between, "marks"
    for stage, median in ((stages.RENDER_FPS, 29.0), (stages.RTF, 0.8), (stages.STEADY_FPS, 28.0)):
        turn.values[stage.key] = median * generator.lognormvariate(0.0, 0.1)
        turn.value_sources[stage.key] = "speech.timing"
    turn.values[stages.AV_DRIFT.key] = generator.gauss(0.0, 20.0)
    turn.drift = {"onset_ms": 1.0, "median_ms": 3.0, "basis": "decoded barcode", "frames": 200}
    turn.timing = timing()
    turn.absent = {
        stage.key: f"not seen; needs: {stage.sights[0].needs}" if stage.sights else stage.unseen
        for stage in stages.STAGES.values()
        if stage.scope is stages.Scope.TURN and stage.key not in turn.values
    }
    return json.dumps(turn.to_json(), ensure_ascii=False).encode() + b"\n"


def _seal_large(path: Path) -> None:
    """A manifest that fits, without reading a file whole."""
    digest = hashlib.sha256()
    with (path / "turns.jsonl").open("rb") as file:
        while block := file.read(_MIB):
            digest.update(block)
    size = (path / "turns.jsonl").stat().st_size
    (path / "turns.jsonl").rename(path.parent / "turns.jsonl")
    (path / "turns.jsonl").write_bytes(b"")
    seal(path)
    (path.parent / "turns.jsonl").rename(path / "turns.jsonl")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["turns.jsonl"] = {
        "sha256": digest.hexdigest(),
        "bytes": size,
        "records": TURNS,
    }
    (path / "manifest.json").write_text(json.dumps(manifest))


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds and MiB of a command and all its processes."""
    begin = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        most = 0.0
        stop = threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.wait(0.05):
                most = max(most, _memory_mib(child.pid))

        thread = threading.Thread(target=watch)
        thread.start()
        status = child.wait()
        took = time.perf_counter() - begin
        stop.set()
        thread.join()
    if status != 0:
        raise RuntimeError(f"{command[:4]} ended with {status}")
    return took, most


def _memory_mib(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024.0
        total += sum(_memory_mib(int(child)) for child in children)
    return total


# --- seven days of a real Prometheus -------------------------------------------------------


def window() -> Measurement:
    """A report's numbers from seven days, against one query for each stage and quantile."""
    with (
        tempfile.TemporaryDirectory(prefix="talkscope-bench-") as folder,
        prometheus(Path(folder), history=openmetrics([_week()])) as server,
    ):
        begin, end = START, START + DAYS * 86_400.0
        client = Prometheus(server.url)
        started = time.perf_counter()
        result = read(client, begin, end, Selection())
        ours_s = time.perf_counter() - started
        peer = Prometheus(server.url)
        started = time.perf_counter()
        for _ in _stage_by_stage(peer, begin, end):
            pass
        peer_s = time.perf_counter() - started
    return Measurement(
        name=WINDOW,
        value=ours_s,
        unit="s",
        better="lower",
        peer="histogram_quantile over time, one query for each stage and quantile, as many steps",
        peer_value=peer_s,
        conditions={
            "window": f"{DAYS} days, scraped every {_SCRAPE_S:.0f} s, Prometheus 2.42 filled by "
            "promtool",
            "turns": sum(result.outcomes.values()),
            "stages": sum(1 for s in _exported()),
        },
        figures={"queries": (client.queries, peer.queries, "queries")},
    )


def _exported() -> Iterator[stages.Stage]:
    for stage in stages.STAGES.values():
        if stage.instrument is Instrument.HISTOGRAM and stage.scope is stages.Scope.TURN:
            yield stage


def _stage_by_stage(client: Prometheus, begin: float, end: float) -> Iterator[object]:
    when = Range(begin, end, (end - begin) / 168)
    for stage in _exported():
        for quantile in (0.5, 0.95, 0.99):
            yield client.over(
                f"histogram_quantile({quantile}, sum by (le) (increase("
                f"{stage.family}_bucket[{when.step:.0f}s])))",
                when,
            )


def _week() -> Life:
    """A turn every minute, with every stage."""
    generator = random.Random(1)
    labels = {"model": "quicktalk", "backend": "omnirt", "startup": "steady"}
    scrapes = [START + i * _SCRAPE_S for i in range(int(DAYS * 86_400 / _SCRAPE_S) + 1)]
    turns = []
    for number in range(DAYS * 1440):
        values = {
            stage.key: stage.from_base(math.exp(generator.gauss(math.log(_typical(stage)), 0.2)))
            for stage in _exported()
        }
        turns.append((START + 60.0 * number + 1.0, labels, values))
    return Life(scrapes, turns=turns)


def _typical(stage: stages.Stage) -> float:
    """A value in the middle of the stage's buckets, in the base unit."""
    return stage.buckets[len(stage.buckets) // 2]
