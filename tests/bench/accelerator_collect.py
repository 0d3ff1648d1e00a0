"""What reading accelerators costs: one collection in the exporter, beside one subprocess call.

Both ask the stand-in for NVML (tests/nvml), whose answers take no time: what is compared is the
way of asking. A real driver adds the same time to both, and its start to the subprocess.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from exporter.accelerators.groups import Grouping, Selector
from exporter.accelerators.nvidia import Nvml
from exporter.accelerators.procfs import Procfs
from exporter.accelerators.source import AcceleratorSource
from exporter.gauges import MemoryGroup
from tests import nvml
from tests.bench.measurement import Measurement

NAME = "accelerator-collect"

GPUS = 8
PROCESSES = 64
ROUNDS = 200
HERTZ = 5
SECONDS = 20

_GPU = """\
gpu NVIDIA H100 80GB HBM3
memory_mib 81559 479 11125
utilization 90 40
encoder 0
decoder 0
power_mw 444720
temperature 53
clocks_mhz 1980 1980 2619 1545
throttling 0x1ff 0
ecc 0 0
events
processes
"""


def run() -> Measurement:
    """Compare a whole collection (memory, processes and state) with the subprocess."""
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as name:
        folder = Path(name)
        library = nvml.build(folder / "lib")
        nvml.compile_c(nvml.HERE / "query.c", folder / "query", str(library))
        dial = nvml.Dial(folder)
        with _processes() as pids:
            dial.turn(_state(pids))
            environment = dial.environment(library)
            os.environ |= {"FAKE_NVML_STATE": environment["FAKE_NVML_STATE"]}
            with nvml.standin(library):
                whole, memory = _collections(pids)
                core = asyncio.run(_share_of_a_core())
            peer = _median(lambda: _query(folder / "query", environment), ROUNDS)
    return Measurement(
        name=NAME,
        value=whole * 1e3,
        unit="ms a collection",
        better="lower",
        peer="one call of a small C program that asks as nvidia-smi does, on the same stand-in",
        peer_value=peer * 1e3,
        conditions={
            "devices": f"{GPUS} of a stand-in for NVML, whose answers take no time; no GPU at hand",
            "processes": f"{PROCESSES}, real ones of this machine, grouped by /proc",
            "rounds": f"median of {ROUNDS}",
            "at 5 Hz": f"CPU of the source over {SECONDS} s, as in a bench: {core:.2f} % of a core",
        },
        figures={"memory and processes alone": (memory * 1e3, peer * 1e3, "ms")},
    )


def _state(pids: list[int]) -> str:
    gpus = []
    for index in range(GPUS):
        own = pids[index::GPUS]
        gpus.append(_GPU + "".join(f"process {pid} 1024 C\n" for pid in own))
    return "driver 590.48.01\ncuda 13010\n" + "".join(gpus)


def _source(interval: float = 1.0) -> AcceleratorSource:
    selectors = {
        MemoryGroup.OPENTALKING: [Selector("command", "opentalking")],
        MemoryGroup.OMNIRT: [Selector("command", "omnirt")],
    }
    grouping = Grouping(selectors, Procfs(), trust_ids=True)
    return AcceleratorSource(Nvml(), grouping, interval=interval)


def _collections(pids: list[int]) -> tuple[float, float]:
    """Median seconds of a collection of everything, and of one of memory."""
    source = _source()
    first = source.read()
    seen = {reading.labels.get("device") for told in first for reading in told.readings}
    assert len(seen) == GPUS, source.health.reason
    assert len(pids) == PROCESSES

    def everything() -> None:
        source._states_at = None
        source.read()

    def memory() -> None:
        source._states_at = time.monotonic()
        source.read()

    found = _median(everything, ROUNDS), _median(memory, ROUNDS)
    source.close()
    return found


async def _share_of_a_core() -> float:
    """CPU of this process, in % of a core, while a source runs at the rate of a bench."""
    task = asyncio.create_task(_source(1 / HERTZ).run(lambda seen: None))
    await asyncio.sleep(1)
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(SECONDS)
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return share * 100


def _median(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _query(program: Path, environment: dict[str, str]) -> None:
    done = subprocess.run([program], env=environment, capture_output=True, check=True)
    rows = [line.split(", ") for line in done.stdout.decode().splitlines()]
    assert len(rows) == GPUS + PROCESSES


@contextlib.contextmanager
def _processes() -> Iterator[list[int]]:
    """As many processes as there are to be, doing nothing."""
    children = [subprocess.Popen(["sleep", "600"]) for _ in range(PROCESSES)]
    try:
        yield [child.pid for child in children]
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
