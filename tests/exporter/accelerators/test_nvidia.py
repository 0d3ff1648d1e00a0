"""NVML → /metrics, on the stand-in (tests/nvml): no GPU is at hand where these run."""

import pytest

from exporter.accelerators.nvidia import UNNAMED, Nvml, cuda_words, driver_words
from exporter.accelerators.source import absent
from tests import nvml
from tests.exporter.accelerators.deployment import Deployment
from tests.exporter.accelerators.deployment import check as check_file


@pytest.fixture
def deployment(table, request, libraries):
    """With OpenTalking's and OmniRT's processes among those of the recordings."""
    table.add(5021, "/usr/bin/python3", "-m", "exporter.agent", "opentalking-unified")
    table.add(5022, "/opt/omnirt/bin/omnirt", "serve")
    table.add(21180, "/opt/venv/bin/opentalking-unified")
    table.add(21198, "/usr/bin/python3", "/srv/omnirt/omnirt_server.py")
    made = Deployment(Nvml(), table.grouping(), **getattr(request, "param", {}))
    yield made
    made.source.close()


def check(exposition, name):
    check_file(exposition, nvml.EXPECTED / f"{name}.prom")


@pytest.mark.parametrize(
    "state", ["normal", "two_gpus", "mig", "wsl2", "wddm", "no_device", "permission_denied"]
)
def test_metrics_of_a_state_are_the_expected_ones(state, deployment, dial, libraries):
    dial.turn(state)
    with nvml.standin(libraries["current"]):
        deployment.read()
    check(deployment.exposition(), state)


def test_metrics_with_an_old_drivers_library_lack_what_it_lacks(deployment, dial, libraries):
    dial.turn("old_driver")
    with nvml.standin(libraries["old"]):
        deployment.read()
    check(deployment.exposition(), "old_driver")


def test_metrics_without_a_library_say_nothing_of_devices(deployment):
    with nvml.standin(None):
        deployment.read()
        deployment.read()
    check(deployment.exposition(), "no_library")
    assert "opentalking_" not in deployment.exposition()
    assert absent([deployment.source]) == (
        "no accelerator: the NVIDIA driver's library libnvidia-ml.so.1 is not installed"
    )


@pytest.mark.parametrize("deployment", [{"baseline": {"0": 600.0 * 2**20}}], indirect=True)
def test_metrics_under_wsl2_hold_the_delta_over_the_baseline(deployment, dial, libraries):
    dial.turn("wsl2")
    with nvml.standin(libraries["current"]):
        deployment.read()
    check(deployment.exposition(), "wsl2_with_baseline")


def test_a_gpu_that_gets_lost_takes_its_values_with_it(deployment, dial, libraries):
    with nvml.standin(libraries["current"]):
        dial.turn("two_gpus")
        deployment.read()
        dial.turn("gpu_lost")
        deployment.read()
        health = deployment.source.health
        assert (health.up, health.failures) == (False, 1)
        assert health.reason == "device 1: NVML: GPU is lost"
        deployment.read()
        assert health.failures == 1
        check(deployment.exposition(), "gpu_lost")


@pytest.mark.parametrize("deployment", [{"retry": 0.0}], indirect=True)
def test_a_gpu_that_stays_lost_is_still_called_faulty_by_a_new_session(deployment, dial, libraries):
    with nvml.standin(libraries["current"]):
        dial.turn("gpu_lost")
        deployment.read()
        deployment.read()
    exposition = deployment.exposition()
    assert 'opentalking_accelerator_healthy{device="1"} 0.0' in exposition
    assert 'opentalking_accelerator_healthy{device="0"} 1.0' in exposition
    assert deployment.source.health.failures == 1


@pytest.mark.parametrize("deployment", [{"retry": 0.0}], indirect=True)
def test_a_gpu_that_comes_back_is_read_again(deployment, dial, libraries):
    with nvml.standin(libraries["current"]):
        dial.turn("gpu_lost")
        deployment.read()
        assert [d.device for d in deployment.source.devices] == ["0"]
        dial.turn("two_gpus")
        deployment.read()
    assert deployment.source.health.up
    assert [d.device for d in deployment.source.devices] == ["0", "1"]


def test_while_the_driver_is_replaced_nothing_is_served(deployment, dial, libraries):
    with nvml.standin(libraries["current"]):
        dial.turn("normal")
        deployment.read()
        assert 'opentalking_vram_total_bytes{device="0"}' in deployment.exposition()
        dial.turn("driver_unloaded")
        deployment.read()
        check(deployment.exposition(), "driver_unloaded")
        assert deployment.source.health.reason == "NVML: Driver Not Loaded"
        dial.turn("normal")
        deployment.read()
        assert deployment.source.health.up
        assert 'opentalking_vram_total_bytes{device="0"}' in deployment.exposition()


def test_a_library_that_is_installed_later_is_found(deployment, dial, libraries):
    with nvml.standin(None):
        deployment.read()
        assert not deployment.source.health.up
    dial.turn("normal")
    with nvml.standin(libraries["current"]):
        deployment.read()
    assert deployment.source.health.up
    assert absent([deployment.source]) is None


def test_identity_is_in_the_pages_words_and_says_that_it_is_a_stand_in(deployment, dial, libraries):
    dial.turn("normal")
    with nvml.standin(libraries["current"]):
        deployment.read()
    [device] = deployment.source.devices
    assert device.name == "Stand-in NVIDIA GeForce RTX 4080 SUPER"
    assert (device.driver, device.runtime) == ("driver 595.71.05", "CUDA 13.2")
    assert device.to_json()["index"] == 0


def test_a_counter_does_not_fall_with_a_new_session(dial, libraries):
    library = Nvml()
    with nvml.standin(libraries["current"]):
        dial.turn("normal")
        library.open()
        dial.turn((nvml.STATES / "normal.txt").read_text() + "xid 13\nxid 31\n")
        [state] = library.states()
        assert (state.critical_errors, state.last_critical_error) == (2, 31)
        library.close()
        library.open()
        [state] = library.states()
        library.close()
    assert state.critical_errors == 2


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("570.133.07", "driver 570.133.07"),
        (" 581.57\n", "driver 581.57"),
        ("", None),
        (None, None),
        ("\x00\x07", None),
    ],
)
def test_driver_words(version, words):
    assert driver_words(version) == words


@pytest.mark.parametrize(("version", "words"), [(12080, "CUDA 12.8"), (0, None), (None, None)])
def test_cuda_words(version, words):
    assert cuda_words(version) == words


def test_a_device_whose_name_is_no_text_is_called_unnamed(dial, libraries, monkeypatch):
    def broken(handle):
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr("pynvml.nvmlDeviceGetName", broken)
    dial.turn("normal")
    library = Nvml()
    with nvml.standin(libraries["current"]):
        [device] = library.open()
        library.close()
    assert device.name == UNNAMED
