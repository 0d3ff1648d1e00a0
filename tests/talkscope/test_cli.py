import subprocess
import sys

import pytest

from exporter import __version__
from talkscope.cli import main
from tests.processes import ROOT


def run(capsys, *arguments):
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("command", ["bench", "load", "doctor", "report", "demo"])
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 8


def test_help_names_the_exit_statuses(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "64 wrong usage" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"talkscope {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["bench"], "give either --target URL or --start demo"),
        (["bench", "--target", "http://x", "--start", "demo"], "give either --target"),
        (["bench", "--target", "http://x", "--mode", "split"], "go with --start demo"),
        (["bench", "--target", "http://x", "--agent"], "go with --start demo"),
        (["bench", "--start", "demo", "--redis", "redis://x"], "go with --target"),
        (
            ["load", "--target", "http://x", "--exporter-token-file", "/nowhere"],
            "--exporter-token-file: cannot read /nowhere",
        ),
        (["bench", "--target", "http://x", "--log", "/nowhere"], "--log /nowhere is not a file"),
        (["bench", "--target", "http://x", "--repeat", "0"], "'0' is not a whole number from 1"),
        (["bench", "--target", "http://x", "--timeout", "soon"], "'soon' is not a number"),
        (["bench", "--start", "demo", "--demo-options", "'"], "--demo-options: No closing"),
        (["load"], "give either --target URL or --start demo"),
        (["load", "--worker", "--target", "http://x"], "--worker takes target and load from"),
        (
            ["load", "--target", "http://x", "--users", "2", "--arrivals", "poisson:1"],
            "give --users (closed) or --arrivals (open model)",
        ),
        (["load", "--target", "http://x", "--workers", "2", "--master"], "leave --master out"),
        (["load", "--target", "http://x", "--users", "0"], "'0' is not a whole number from 1"),
        (["doctor"], "the following arguments are required: --target"),
        (["doctor", "--target", "ftp://x"], "'ftp://x' is not an http:// or https:// URL"),
        (["doctor", "--target", "localhost:8000"], "is not an http:// or https:// URL"),
    ],
)
def test_wrong_usage_is_one_line_and_64(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 64
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("talkscope")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_not_written_into(capsys, tmp_path):
    (tmp_path / "mine").write_text("precious")
    status, _, err = run(capsys, "bench", "--target", "http://x", "--out", str(tmp_path))
    assert status == 64
    assert "is not empty; name a new folder" in err
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("name", ["nowhere", "cut-off"])
def test_a_bundle_that_is_none_is_not_enough_data(capsys, tmp_path, name):
    if name == "cut-off":
        (tmp_path / name).mkdir()
        (tmp_path / name / "turns.jsonl").write_text("{")
    status, _, err = run(capsys, "report", str(tmp_path / name))
    assert status == 2
    assert len(err.splitlines()) == 1
    assert str(tmp_path / name) in err


def test_the_sidecar_needs_neither_aiortc_nor_av():
    """Its image has neither; and the command line starts without either extra."""
    program = (
        "import sys, importlib.abc\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in {'aiortc', 'av', 'gevent', 'locust', 'numpy'}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import exporter.__main__, exporter.service\n"
        "from talkscope.cli import main\n"
        "sys.exit(main(['bench', '--target', 'http://127.0.0.1:9']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 64, done.stderr
    assert "pip install 'talkscope[loadgen]'" in done.stderr
