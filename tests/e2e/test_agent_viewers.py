"""Viewers of a target with the agent: their pictures and sounds are paired by its word, exactly.

What they fall back to without it is in test_bench.py (decoding) and tests/loadgen/test_e2e.py.
"""

import json
import subprocess
import sys

import pytest

from exporter import stages
from exporter.stages import Outcome
from loadgen.load.account import ACCOUNT
from loadgen.media.onset import Basis
from tests.e2e.conftest import SHORT_ANSWER, bench, running
from tests.processes import ROOT, exporter, free_port, process, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

GOOD, INVALID = 0, 3
FRAME = stages.CLIENT_FIRST_TALKING_FRAME

SCENARIOS = """
scenarios:
  - name: still
    model: mock
    turns: 1
    inputs: [{say: Hello}]
  - name: moving
    model: wav2lip
    turns: 2
    think: 0.3
    inputs:
      - say: Something long
        interrupt_after: 0.5
      - say: Hello
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """(target with the agent, URL of the exporter that the agent reports to, its folder)."""
    folder = tmp_path_factory.mktemp("watched")
    address = f"127.0.0.1:{free_port()}"
    options = ("--llm-text", SHORT_ANSWER, "--agent", f"http://{address}")
    with running(folder / "target", "unified", *options) as target:
        arguments = ("--target", target.url, "--bundle", str(folder / "bundle"))
        with exporter(folder, "--listen", address, *arguments) as (url, _):
            yield target, url, folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_bench_asks_the_exporter_of_the_agent_for_each_turn(watched, tmp_path):
    target, url, _ = watched
    options = ["--target", target.url, "--model", "wav2lip", "--repeat", "2"]
    done = bench(tmp_path / "out", *options, "--agent-exporter", url)
    assert done.status == 0, done.stderr
    for turn in done.measured:
        assert turn["bases"][FRAME] == turn["drift"]["basis"] == Basis.AGENT
    # The pictures were decoded all the same.
    assert "frame number of Talkscope's synthetic runtime" in done.stdout


def test_a_load_tells_the_first_talking_frame_of_a_picture_that_stands_still(watched, tmp_path):
    target, url, _ = watched
    (tmp_path / "scenario.yaml").write_text(SCENARIOS)
    command = [sys.executable, "-m", "talkscope.cli", "load", "--target", target.url]
    command += ["--scenario", str(tmp_path / "scenario.yaml"), "--exporter", url]
    command += ["--users", "2", "--ramp", "2", "--duration", "8", "--stop-timeout", "10"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode in (GOOD, INVALID), done.stderr
    generator = tmp_path / "out" / "generator"
    turns = lines(generator / "viewer_turns.jsonl")
    assert {turn["scenario"] for turn in turns} == {"still", "moving"}
    assert Outcome.INTERRUPTED in {turn["outcome"] for turn in turns}
    for turn in turns:
        assert turn["bases"][FRAME] == Basis.AGENT
        if turn["outcome"] == Outcome.COMPLETED:
            assert turn["drift"]["basis"] == Basis.AGENT
    account = json.loads((generator / ACCOUNT).read_text())
    assert account["bases"][stages.PERCEIVED_TTFV.key] == {Basis.AGENT: len(turns)}
    assert f"by: {Basis.AGENT} ({len(turns)})" in done.stderr


def test_a_probe_has_the_agents_word_as_well(watched, tmp_path):
    target, url, folder = watched
    command = [sys.executable, "-m", "talkscope.cli", "probe", "--target", target.url]
    command += ["--exporter", url, "--model", "mock", "--every", "1", "--listen", "127.0.0.1:0"]
    records = folder / "bundle" / "turns.jsonl"
    before = len(lines(records))
    with process(command, log=tmp_path / "log"):
        wait_until(lambda: len(lines(records)) >= before + 2, "two turns of the probe", 60)
    for turn in lines(records)[before:][:2]:
        assert turn["bases"][FRAME] == turn["drift"]["basis"] == Basis.AGENT
