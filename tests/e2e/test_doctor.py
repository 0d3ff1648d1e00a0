"""`talkscope doctor` on the real OpenTalking in both modes."""

import json
import subprocess
import sys

import pytest

from exporter import stages
from tests.processes import ROOT, free_port

pytestmark = pytest.mark.e2e


def doctor(*arguments):
    command = [sys.executable, "-m", "talkscope.cli", "doctor", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_it_tells_the_modes_apart_and_hints_at_what_is_missing(unified, split):
    done = doctor("--target", unified.url)
    assert done.returncode == 0
    assert "unified mode" in done.stdout
    assert "hint: unified mode keeps its events to itself: give --log" in done.stdout
    done = doctor("--target", split.url)
    assert "split mode" in done.stdout
    assert "hint: split mode: give --redis" in done.stdout


def test_it_lists_models_and_their_backends(unified):
    done = doctor("--target", unified.url)
    assert "model wav2lip: connected, backend omnirt" in done.stdout
    assert "model musetalk: not connected" in done.stdout


def test_attached_sources_show_more(split):
    arguments = ["--target", split.url, "--json"]
    alone = json.loads(doctor(*arguments).stdout)
    attached = json.loads(
        doctor(*arguments, "--redis", split.redis, "--log", str(split.log)).stdout
    )
    before = {m["metric"]: m["production"] for m in alone["metrics"]}
    after = {m["metric"]: m["production"] for m in attached["metrics"]}
    assert before[stages.TTFA.key] == "no"
    assert after[stages.TTFA.key] == "if switched on"
    assert after[stages.LLM_FIRST_TOKEN_LATENCY.key] == "yes"


def test_an_unreachable_redis_is_named(split):
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    done = doctor("--target", split.url, "--redis", url)
    assert done.returncode == 0
    assert "Redis at redis://***@127.0.0.1" in done.stdout
    assert "secret" not in done.stdout


def test_an_unreachable_target_ends_with_one_line(tmp_path):
    done = doctor("--target", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert "name the URL where its /health answers" in line
