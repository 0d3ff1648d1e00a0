import pytest

from exporter.accelerators import baseline
from exporter.accelerators.nvidia import Nvml
from tests import nvml


def test_it_holds_what_is_on_every_device(dial, libraries, tmp_path):
    dial.turn("two_gpus")
    with nvml.standin(libraries["current"]):
        found = baseline.write(tmp_path / "baseline.json")
    assert found == {"0": 0.0, "1": 1235.0 * 2**20}
    assert baseline.read(tmp_path / "baseline.json") == found


def test_a_device_that_cannot_be_read_is_not_in_it(dial, libraries):
    dial.turn("gpu_lost")
    with nvml.standin(libraries["current"]):
        assert baseline.take([Nvml()]) == {"0": 0.0}


def test_without_a_device_there_is_no_file(tmp_path):
    with nvml.standin(None):
        assert baseline.write(tmp_path / "baseline.json") == {}
    assert not (tmp_path / "baseline.json").exists()


def test_the_command_says_what_it_found(dial, libraries, tmp_path, capsys):
    dial.turn("wsl2")
    with nvml.standin(libraries["current"]):
        assert baseline.main([str(tmp_path / "baseline.json")]) == 0
    assert capsys.readouterr().out == "device 0: 1193279488 bytes in use\n"
    with nvml.standin(None):
        assert baseline.main([str(tmp_path / "other.json")]) == 1
    assert baseline.main([]) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a mapping of devices to bytes"),
        ('{"0": -1}', "device 0: -1 is not a number of bytes"),
        ('{"0": true}', "device 0: True is not a number of bytes"),
        ('{"0": NaN}', "device 0: nan is not a number of bytes"),
        ('{"0": "1"}', "device 0: '1' is not a number of bytes"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path, text, message):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(baseline.BaselineError, match=message):
        baseline.read(tmp_path / "b.json")
