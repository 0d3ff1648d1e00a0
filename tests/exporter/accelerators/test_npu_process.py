"""The exporter's own process with the stand-in for `npu-smi` on its PATH, up to the report."""

import json
import os
import shutil

import httpx

from exporter import gauges
from report import build
from report.page import Column
from report.row import row
from tests.exporter.accelerators.test_ascend import FAKE, NPU_SMI
from tests.processes import exporter, wait_until
from tests.report.recording import START, full

NOWHERE = "http://127.0.0.1:9"
IDLE, BUSY = (f"{mib}/ 65536" for mib in (12921, 20480))
MIB = 2**20


def test_an_npu_fills_hardware_driver_idle_and_peak_memory_of_the_report(tmp_path):
    machine = tmp_path / "machine"
    shutil.copytree(NPU_SMI / "constructed_all_queries", machine)
    (tmp_path / "bin").mkdir()
    shutil.copy(FAKE, tmp_path / "bin" / "npu-smi")
    seen = tmp_path / "seen"
    with exporter(
        tmp_path,
        "--target",
        NOWHERE,
        "--bundle",
        str(seen),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        NPU_SMI_RECORDING=str(machine),
    ) as (url, child):
        _wait_for(url, 12921 * MIB)
        table = (machine / "info.txt").read_text()
        assert IDLE in table
        (machine / "next.txt").write_text(table.replace(IDLE, BUSY))
        (machine / "next.txt").replace(machine / "info.txt")
        _wait_for(url, 20480 * MIB)
        assert "opentalking_host_cpus " in httpx.get(f"{url}/metrics").text
        child.terminate()
        assert child.wait(20) == 0
    assert "Traceback" not in (tmp_path / "exporter.log").read_text()

    recording = full()
    at = {12921 * MIB: START - 50.0, 20480 * MIB: START + 25.0}
    told = json.loads((seen / "target.json").read_text())
    recording.target |= {k: told[k] for k in ("host", "accelerators", "accelerators_absent")}
    recording.run["gpu_index"] = 0
    samples = [json.loads(line) for line in (seen / "samples.jsonl").read_text().splitlines()]
    # A bench's turns would lie around these instants; here the readings are moved to them.
    recording.samples = [
        sample | {"unix": at[sample["value"]]}
        for sample in samples
        if sample["name"] == gauges.VRAM_USED.name and sample["value"] in at
    ]
    result = build(recording.write(tmp_path / "bundle"))
    assert result.facts.hardware == "NPU 910B2"
    assert result.facts.driver == "cann driver 25.2.0"
    assert (result.memory.idle, result.memory.peak) == (12921 * MIB, 20480 * MIB)
    assert (result.memory.scope, result.memory.device) == ("device", "0")
    cells = row(result)
    assert (cells[Column.IDLE_VRAM], cells[Column.PEAK_VRAM]) == ("12.618", "20")


def _wait_for(url, used):
    mark = 'opentalking_vram_used_bytes{device="0",group="all",scope="device"} '

    def is_served():
        text = httpx.get(f"{url}/metrics").text
        return any(
            line.startswith(mark) and float(line.removeprefix(mark)) == used
            for line in text.splitlines()
        )

    wait_until(is_served, f"{used} bytes")
