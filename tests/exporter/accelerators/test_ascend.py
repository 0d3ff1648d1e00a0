"""`npu-smi` → /metrics, byte for byte, on a stand-in that replays recordings of it."""

import shutil
import time
from pathlib import Path

import pytest

from exporter.accelerators import ascend, cann, npu_smi_output
from exporter.accelerators.ascend import NpuSmi
from exporter.accelerators.readings import LibraryError
from exporter.accelerators.source import absent
from tests.exporter.accelerators import fuzz
from tests.exporter.accelerators.deployment import Deployment, Owners, check

HERE = Path(__file__).parent
NPU_SMI = HERE / "recordings" / "npu_smi"
CANN = HERE / "recordings" / "cann"
FAKE = HERE / "fake_npu_smi.sh"

MACHINES = sorted(folder.name for folder in NPU_SMI.iterdir() if (folder / "info.txt").exists())


class Machine:
    """A machine of which each recording of `npu-smi` can be made the present."""

    def __init__(self, folder):
        self.folder = folder

    def replay(self, name):
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(NPU_SMI / name, self.folder)

    def queries(self):
        asked = self.folder / "queries"
        told = asked.read_text().splitlines() if asked.exists() else []
        asked.unlink(missing_ok=True)
        return told


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("NPU_SMI_RECORDING", str(tmp_path / "machine"))
    return Machine(tmp_path / "machine")


def deployment(**options):
    owners = Owners(opentalking=[4242, 139667, 632268], omnirt=[4243, 207795])
    return Deployment(NpuSmi(str(FAKE), cann_root=CANN), owners, **options)


@pytest.mark.parametrize("name", MACHINES)
def test_metrics_of_a_recording_are_the_expected_ones(name, machine):
    machine.replay(name)
    made = deployment()
    # The second reading has had one card's turn of `-t usages` after the first one's.
    made.read()
    check(made.read(), NPU_SMI / name / "metrics.txt")


def test_without_the_tool_there_is_no_accelerator_and_the_reason_says_so(tmp_path):
    made = Deployment(NpuSmi(str(tmp_path / "npu-smi")))
    made.read()
    assert absent([made.source]).startswith("no accelerator: ")
    assert "npu-smi, Ascend's tool, is not installed" in made.health.reason
    assert "opentalking_vram_used_bytes{" not in made.exposition()
    made.read()
    assert made.health.failures == 1


def test_a_device_that_cannot_be_opened_is_not_called_no_accelerator(machine):
    machine.replay("failed_-8020")
    made = deployment()
    made.read()
    assert made.source.nothing_there is None
    assert "because the device is used. ret is -8020" in made.health.reason


def test_identity_is_in_the_pages_words(machine):
    machine.replay("910B2_25.2.0")
    made = deployment()
    made.read()
    first, second = (device.to_json() for device in made.source.devices)
    assert first == {
        "index": 0,
        "device": "0",
        "vendor": "ascend",
        "name": "NPU 910B2",
        "memory_bytes": 65536 * 2.0**20,
        "driver": "cann driver 25.2.0",
        "runtime": "CANN 7.0.T10",
    }
    assert second["index"] == 1


def test_what_is_not_known_of_the_software_is_left_open(tmp_path):
    assert cann.runtime(tmp_path) is None
    assert cann.driver(None) == "cann driver"
    record = tmp_path / "ascend-toolkit/latest/x86_64-linux/ascend_toolkit_install.info"
    record.parent.mkdir(parents=True)
    record.write_text("package_name=Ascend-cann-toolkit\nversion=\n")
    assert cann.runtime(tmp_path) is None
    shutil.copytree(CANN / "nnae", tmp_path / "nnae")
    assert cann.runtime(tmp_path) == "CANN 8.0.RC3"


def test_one_query_tells_nearly_everything_and_each_card_has_its_turn_of_the_rest(machine):
    machine.replay("constructed_all_queries")
    made = deployment()
    made.read()
    assert machine.queries() == ["info", "info", "info -t usages -i 0"]
    made.read()
    assert machine.queries() == ["info", "info -t usages -i 1"]
    made.read()
    assert machine.queries() == ["info", "info -t usages -i 0"]


def test_a_query_that_the_devices_do_not_know_is_asked_once(machine):
    machine.replay("310P3_25.2.0")
    made = deployment()
    made.read()
    assert [q for q in machine.queries() if "-t" in q] == [
        "info -t proc-mem -i 2 -c 0",
        "info -t usages -i 2",
    ]
    made.read()
    assert machine.queries() == ["info"]
    assert made.health.dropped == 0


def test_an_answer_that_cannot_be_read_is_counted_and_what_the_table_told_stays(machine):
    machine.replay("constructed_all_queries")
    (machine.folder / "info_-t_usages_-i_0.txt").write_text("Aicore Usage Rate(%) : much\n")
    made = deployment()
    exposition = made.read()
    assert made.health.up
    assert made.health.dropped_by == {"usages": 1}
    assert 'opentalking_accelerator_utilization_ratio{device="0"} 0.61' in exposition
    assert "opentalking_accelerator_memory_utilization_ratio{" not in exposition


def test_use_of_bandwidth_is_not_served_for_ever(machine, monkeypatch):
    machine.replay("constructed_all_queries")
    made = deployment()
    served = 'opentalking_accelerator_memory_utilization_ratio{device="0"} 0.37'
    assert served in made.read()
    assert served in made.read()
    monkeypatch.setattr(ascend, "USAGES_KEPT_S", -1.0)
    assert served not in made.read()


def test_a_chip_that_is_not_listed_any_more_takes_its_values_with_it(machine):
    machine.replay("910B2_25.2.0")
    made = deployment()
    made.read()
    whole = (machine.folder / "info.txt").read_text().splitlines()
    (machine.folder / "info.txt").write_text("\n".join(whole[:9]) + "\n")
    exposition = made.read()
    assert 'opentalking_vram_used_bytes{device="0"' in exposition
    assert 'opentalking_vram_used_bytes{device="1"' not in exposition
    assert made.health.reason == "device 1: npu-smi does not list it any more"


def test_chips_that_were_not_there_begin_a_new_session(machine):
    machine.replay("910B2_25.2.0")
    made = deployment()
    made.read()
    machine.replay("910B3_no_version")
    assert "opentalking_vram_used_bytes{" not in made.read()
    assert made.health.reason == "npu-smi lists NPUs that were not there before"
    made.read()
    assert len(made.source.devices) == 3


def test_a_tool_that_hangs_is_given_up_and_its_values_are_withdrawn(machine, monkeypatch):
    machine.replay("910B2_25.2.0")
    made = deployment()
    made.read()
    monkeypatch.setattr(ascend, "TIMEOUT_S", 0.2)
    (machine.folder / "info.wait").write_text("2")
    assert "opentalking_vram_used_bytes{" not in made.read()
    assert made.health.reason == "npu-smi info did not answer within 0.2 s"
    (machine.folder / "info.wait").unlink()
    monkeypatch.undo()


def test_the_tool_rests_at_least_as_long_as_it_works(machine, monkeypatch):
    machine.replay("910B2_25.2.0")
    library = NpuSmi(str(FAKE))
    assert library.least_interval == 0.0
    library.open()
    (machine.folder / "info.wait").write_text("0.2")
    began = time.monotonic()
    library.memory()
    took = time.monotonic() - began
    assert 0.4 <= library.least_interval <= 2 * took


def test_a_program_that_cannot_be_run_says_so(tmp_path):
    program = tmp_path / "npu-smi"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    with pytest.raises(LibraryError, match="cannot be run: Exec format error"):
        NpuSmi(str(program)).open()


def test_every_broken_table_is_a_counted_error_or_a_whole_reading(monkeypatch):
    """10,000 outputs through the source: what is served is whole, what is refused is counted."""
    texts = [p.read_text() for p in sorted(NPU_SMI.glob("*/info.txt"))]
    told = iter(())
    library = NpuSmi(str(FAKE))
    monkeypatch.setattr(library, "_run", lambda *query: next(told))
    made = deployment()
    made.source._library = library
    refused = served = 0
    for text in fuzz.broken(texts, seed=8020):
        # Two answers of one machine, then none to the other queries.
        told = iter((text, text))
        library._without = {"usages", "proc-mem"}
        monkeypatch.setattr(library, "open", lambda text=text: _open(library))
        made.source._opened_at = None
        failures, reason = made.health.failures, made.health.reason
        readings = [r for told_ in made.source.read() for r in told_.readings]
        if made.source._down:
            refused += 1
            assert not readings
            assert made.health.reason
            assert made.health.failures == failures + (made.health.reason != reason)
        else:
            served += 1
            assert readings
    assert refused + served == fuzz.ROUNDS
    assert min(refused, served) > 1000


def _open(library):
    devices = NpuSmi.open(library)
    library._without = {"usages", "proc-mem"}
    return devices


def test_units_are_bytes_of_two_to_the_twentieth():
    assert npu_smi_output.MIB * 65536 == 64 * 2.0**30
