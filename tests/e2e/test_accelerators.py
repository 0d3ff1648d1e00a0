"""`talkscope bench` on the real target beside a stand-in for NVML (tests/nvml).

No GPU is at hand, and the target uses none: what these show is that the figures that NVML gives
come out where they belong.
"""

import os
import subprocess
import sys
import threading
import time

import pytest

from exporter.accelerators.procfs import Procfs
from report.page import Column
from tests import nvml
from tests.e2e.conftest import SHORT_ANSWER, Bench, attach
from tests.processes import ROOT

pytestmark = pytest.mark.e2e

MIB = 2**20
GIB = 2**30


def state(used, *processes, name="NVIDIA GeForce RTX 3050 Laptop GPU", lists=True):
    """A device of 4 GiB; the driver is that of the page's row of that machine."""
    lines = ["driver 581.57", "cuda 13000", f"gpu {name}", f"memory_mib 4096 0 {used}"]
    lines += ["processes"] if lists else []
    lines += [f"process {pid} {mib} C" for pid, mib in processes]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return nvml.build(tmp_path_factory.mktemp("nvml"))


class Run:
    """A bench whose progress turns the dial: text of a line → state from then on."""

    def __init__(self, folder, library, first, then, *arguments):
        self.dial = nvml.Dial(folder / "nvml")
        self.dial.turn(first)
        out = folder / "out"
        command = [sys.executable, "-m", "talkscope.cli", "bench", "--out", str(out), *arguments]
        environment = os.environ | self.dial.environment(library)
        self.lines = []
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment | {"TALKSCOPE_TRUST_ACCELERATOR_PIDS": "true"},
        ) as child:
            watch = threading.Thread(target=self._watch, args=(child.stderr, then))
            watch.start()
            stdout = child.stdout.read()
            watch.join()
            status = child.wait(60)
        self.done = Bench(status, stdout, "".join(self.lines), out)

    def _watch(self, stream, then):
        for line in stream:
            self.lines.append(line)
            for text, state in then.items():
                if text in line:
                    # The line comes just before its turn begins; the state is of the turn.
                    time.sleep(0.3)
                    self.dial.turn(state)

    @property
    def row(self):
        return {Column(name): cell["value"] for name, cell in self.done.result["row"].items()}


def test_under_wsl2_the_row_holds_the_delta_over_what_was_there_before(library, tmp_path):
    """Idle and peak are the page's figures of the RTX 3050 Laptop at 306×512, in MiB."""
    run = Run(
        tmp_path,
        library,
        state(512, lists=False),
        {
            "target: ": state(512 + 1418, lists=False),
            "measured turn 1 of 1": state(512 + 1430, lists=False),
        },
        *("--start", "demo", "--repeat", "1"),
        *("--demo-options", f"--llm-text '{SHORT_ANSWER}'"),
    )
    assert run.done.status == 0, run.done.stderr
    assert run.row[Column.IDLE_VRAM] == "1.385"
    assert run.row[Column.PEAK_VRAM] == "1.396"
    assert run.row[Column.HARDWARE] == "Stand-in NVIDIA GeForce RTX 3050 Laptop GPU"
    assert run.row[Column.DRIVER] == "driver 581.57"
    assert run.done.result["memory"] == {"scope": "device_delta", "device": "0"}
    assert "This is the delta of full-GPU VRAM relative to baseline" in run.done.stdout
    assert "Do not run other CUDA programs during the benchmark" in run.done.stdout
    assert "CUDA 13.0" in run.done.stdout


def test_where_processes_are_listed_the_row_holds_the_targets_alone(unified, library, tmp_path):
    """OpenTalking is known by its port, OmniRT by its command; the third is somebody else's."""
    opentalking = listening(unified.url)
    omnirt = listening(unified.facts["omnirt"]["url"])
    other = (1, 900)
    run = Run(
        tmp_path,
        library,
        state(3000, (opentalking, 256), (omnirt, 1024), other),
        {"measured turn 1 of 1": state(3500, (opentalking, 256), (omnirt, 1536), other)},
        *attach(unified),
        *("--repeat", "1"),
    )
    assert run.done.status == 0, run.done.stderr
    assert run.done.result["memory"] == {"scope": "process", "device": "0"}
    assert run.row[Column.IDLE_VRAM] == "1.25"
    assert run.row[Column.PEAK_VRAM] == "1.75"
    assert "VRAM: device 0, the target's processes" in run.done.stdout
    # Nothing was there before the target started that could be subtracted.
    samples = (run.done.out / "bundle" / "samples.jsonl").read_text()
    assert '"scope": "device"' in samples
    assert "device_delta" not in samples


def listening(url):
    """The process that listens on a URL's port."""
    port = int(url.rpartition(":")[2])
    procfs = Procfs()
    [pid] = [
        int(path.name)
        for path in procfs.root.iterdir()
        if path.name.isdecimal() and port in procfs.listening(int(path.name))
    ]
    return pid
