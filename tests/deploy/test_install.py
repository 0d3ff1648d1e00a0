import re
import subprocess
import sys
from pathlib import Path

import install
import pytest

LISTS = sorted(install.HERE.glob("requirements-*.txt"))


@pytest.fixture
def pip(monkeypatch):
    """Take the place of venv and pip; `pip.status` is what the next one exits with."""

    class Stub:
        status = 0

        def __init__(self):
            self.commands = []

        def __call__(self, command, *, stdout, **_):
            self.commands.append(command)
            if "venv" in command:
                (Path(command[-1]) / "bin").mkdir(parents=True)
            stdout.write(b"Collecting things\nERROR: no such wheel\n")
            return subprocess.CompletedProcess(command, self.status if "pip" in command else 0)

    stub = Stub()
    monkeypatch.setattr(install.subprocess, "run", stub)
    return stub


def run(monkeypatch, root):
    monkeypatch.setattr(sys, "argv", ["install.py", f"--root={root}"])
    return install.main()


def test_each_list_is_installed_by_hash_and_wheels_only(pip, monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path) == 0
    installs = [command for command in pip.commands if "pip" in command]
    assert all("--require-hashes" in command for command in installs)
    assert all("--only-binary=:all:" in command for command in installs)
    assert sorted(Path(command[-1]).name for command in installs) == [path.name for path in LISTS]


def test_opentalking_alone_is_installed_without_its_dependencies(pip, monkeypatch, tmp_path):
    run(monkeypatch, tmp_path)
    without = [command[-1] for command in pip.commands if "--no-deps" in command]
    assert [Path(name).name for name in without] == ["requirements-opentalking-wheel.txt"]


def test_a_second_run_does_nothing(pip, monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path)
    pip.commands.clear()
    assert run(monkeypatch, tmp_path) == 0
    assert pip.commands == []
    assert capsys.readouterr().out.count("up to date") == 2


@pytest.mark.parametrize("what", ["python", "lists"])
def test_another_python_or_other_lists_make_the_environment_anew(pip, monkeypatch, tmp_path, what):
    run(monkeypatch, tmp_path)
    stale = tmp_path / "opentalking" / "left-over"
    stale.touch()
    stamp = tmp_path / "opentalking" / install.STAMP
    stamp.write_text(re.sub(rf"{what} .", f"{what} x", stamp.read_text()))
    pip.commands.clear()
    assert run(monkeypatch, tmp_path) == 0
    assert not stale.exists()
    assert {Path(command[-1]).name for command in pip.commands} == {
        "opentalking",
        "requirements-opentalking.txt",
        "requirements-opentalking-wheel.txt",
    }


def test_a_failed_install_says_where_and_is_tried_again(pip, monkeypatch, tmp_path, capsys):
    pip.status = 1
    assert run(monkeypatch, tmp_path) == 1
    error = capsys.readouterr().err
    assert "pip install exited with status 1" in error
    assert re.search(r"the last lines of \S+/install-(opentalking|omnirt)\.log:", error)
    assert "    ERROR: no such wheel" in error
    pip.status = 0
    assert run(monkeypatch, tmp_path) == 0


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_another_python_than_the_lists_are_for_is_refused(monkeypatch, tmp_path, capsys, version):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    assert run(monkeypatch, tmp_path) == 1
    assert "the lists are for Python 3.11 to 3.13" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_python_3_13_is_told_which_pin_is_out_of_bounds(pip, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    assert run(monkeypatch, tmp_path) == 0
    assert re.search(r"Python 3\.13: numpy 2\.\d+\.\d+ although", capsys.readouterr().out)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_a_list_names_no_index_and_has_a_hash_for_every_line(path):
    text = path.read_text()
    assert "://" not in text
    assert "index" not in text.lower()
    blocks = re.split(r"\n(?=[a-z])", text)[1:]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_lists_hold_the_versions_that_talkscope_is_written_for():
    names = [path.read_text() for path in LISTS]
    assert any("\nopentalking==0.1.0 " in text for text in names)
    assert any("\nomnirt==0.1.0 " in text for text in names)
    assert any(re.search(r"\nredis==7\.", text) for text in names)
