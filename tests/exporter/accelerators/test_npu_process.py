"""The exporter's own process with the stand-in for `npu-smi` on its PATH."""

import json
import os
import shutil

import httpx

from tests.exporter.accelerators.test_ascend import FAKE, NPU_SMI
from tests.processes import exporter, wait_until

NOWHERE = "http://127.0.0.1:9"
USED = 12921 * 2**20


def test_an_npu_fills_hardware_driver_and_memory_of_the_bundle(tmp_path):
    shutil.copytree(NPU_SMI / "constructed_all_queries", tmp_path / "machine")
    (tmp_path / "bin").mkdir()
    shutil.copy(FAKE, tmp_path / "bin" / "npu-smi")
    bundle = tmp_path / "bundle"
    with exporter(
        tmp_path,
        "--target",
        NOWHERE,
        "--bundle",
        str(bundle),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        NPU_SMI_RECORDING=str(tmp_path / "machine"),
    ) as (url, child):
        used = 'opentalking_vram_used_bytes{device="0",group="all",scope="device"} 1.3548650496e+10'
        wait_until(lambda: used in httpx.get(f"{url}/metrics").text, "the NPU's memory")
        assert "opentalking_host_cpus " in httpx.get(f"{url}/metrics").text
        child.terminate()
        assert child.wait(20) == 0
    target = json.loads((bundle / "target.json").read_text())
    assert [(d["name"], d["driver"]) for d in target["accelerators"]] == [
        ("NPU 910B2", "cann driver 25.2.0")
    ] * 2
    assert target["accelerators_absent"] is None
    assert target["host"]["cpus"] >= 1
    samples = (bundle / "samples.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in samples]
    assert any(v.get("name") == "vram_used_bytes" and v.get("value") == USED for v in values)
    assert "Traceback" not in (tmp_path / "exporter.log").read_text()
