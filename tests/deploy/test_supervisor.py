"""The supervisor and the real target: OpenTalking and OmniRT as separate processes."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import services

from .conftest import DEMO

HOOK = {"PYTHONPATH": str(DEMO / "hooks"), "TALKSCOPE_LOOPBACK_ICE": "1"}
STRAY = {
    "OPENTALKING_DEFAULT_MODEL": "mock",
    "OMNIRT_ENDPOINT": "http://192.0.2.1:1",
    "HTTP_PROXY": "http://192.0.2.1:2",
    "PYTHONPATH": "/nowhere",
}


def pids(description):
    parts = (description[name] for name in ("opentalking", "worker", "omnirt", "provider", "redis"))
    return [part["pid"] for part in parts if part]


def addresses(pid):
    """Return the local addresses of all IPv4 and IPv6 sockets of a process."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
        except FileNotFoundError:
            continue
        if found:
            inodes.add(found[1])
    local = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[9] in inodes:
                local.add(fields[1].split(":")[0])
    return local


LOOPBACK = {"0100007F"}


@pytest.fixture(scope="module")
def unified(supervise):
    """A unified target, started by a caller with a misleading environment."""
    supervised = supervise("--mode=unified", environment=STRAY)
    return supervised, supervised.until_ready()


@pytest.fixture(scope="module")
def turn(unified, in_venv):
    """One turn against it."""
    _, description = unified
    client = str(Path(__file__).with_name("one_turn.py"))
    arguments = (description["opentalking"]["url"], description["avatar"], description["model"])
    return in_venv("opentalking", client, *arguments, environment=HOOK)


@pytest.mark.e2e
class TestUnified:
    def test_opentalking_has_the_model_through_omnirt(self, unified, http_json):
        _, description = unified
        statuses = http_json(f"{description['opentalking']['url']}/models")["statuses"]
        wav2lip = next(status for status in statuses if status["id"] == "wav2lip")
        assert wav2lip["connected"] is True
        assert wav2lip["backend"] == "omnirt"

    def test_the_description_says_what_runs(self, unified):
        supervised, description = unified
        assert description["mode"] == "unified"
        assert description["worker"] is description["redis"] is None
        assert description["opentalking"]["version"] == "0.1.0"
        assert description["omnirt"]["version"] == "0.1.0"
        assert description["pipeline_log"] == description["opentalking"]["log"]
        for pid in pids(description):
            assert str(supervised.directory).encode() in Path(f"/proc/{pid}/environ").read_bytes()

    def test_the_cold_start_is_that_of_opentalking_and_omnirt(self, unified):
        _, description = unified
        cold, provider = description["cold_start"], description["provider"]
        parts = [description["opentalking"], description["omnirt"]]
        assert cold["started_unix"] == min(part["started_unix"] for part in parts)
        assert cold["ready_unix"] == max(part["ready_unix"] for part in parts)
        assert cold["seconds"] == cold["ready_unix"] - cold["started_unix"] > 0
        assert provider["ready_unix"] <= cold["started_unix"]

    def test_the_caller_s_settings_do_not_reach_the_target(self, unified):
        _, description = unified
        for pid in pids(description):
            environment = Path(f"/proc/{pid}/environ").read_text()
            assert "192.0.2.1" not in environment
            assert "/nowhere" not in environment
            assert "OPENTALKING_DEFAULT_MODEL=mock" not in environment

    def test_every_log_line_starts_with_its_time(self, unified, turn):
        _, description = unified
        lines = Path(description["pipeline_log"]).read_text().splitlines()
        stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ")
        assert all(stamp.match(line) for line in lines)
        assert any("Speak pipeline timing: " in line for line in lines)

    def test_a_turn_goes_through_the_real_pipeline(self, turn, unified, http_json):
        events = dict(turn["events"])
        assert events["speech.timing"]["model"] == "wav2lip"
        assert events["speech.timing"]["model_chunks"] > 1
        assert "error" not in events
        _, description = unified
        counters = http_json(f"{description['provider']['url']}/counters")
        assert counters["chat_completions"] == 1
        assert counters["audio_speech"] >= 1
        synthetic = http_json(f"{description['omnirt']['url']}/synthetic/counters")
        assert synthetic["chunks"] == events["speech.timing"]["model_chunks"]
        assert synthetic["sessions"] == 1

    def test_frame_numbers_reach_the_viewer(self, turn):
        assert set(turn["idle_numbers"]) == {None}
        talking = [number for number in turn["talking_numbers"] if number is not None]
        assert talking == sorted(talking)
        # A frame may be lost to a busy machine; most arrive.
        assert len(set(talking)) > 50

    def test_nothing_is_sent_or_heard_beyond_this_machine(self, turn, unified):
        assert turn["candidates"]
        assert all(" 127.0.0.1 " in line for line in turn["candidates"])
        _, description = unified
        for pid in pids(description):
            assert addresses(pid) <= LOOPBACK

    def test_knobs_of_the_runtime_can_be_turned_while_it_runs(self, unified, http_json):
        _, description = unified
        url = f"{description['omnirt']['url']}/synthetic/knobs"
        before = http_json(url)
        assert before == description["knobs"]["synthetic"]
        assert http_json(url, {"chunk_ms": 90})["chunk_ms"] == 90
        http_json(url, before)


@pytest.mark.e2e
def test_split_mode_runs_on_a_real_redis(supervise, in_venv):
    supervised = supervise("--mode=split", "--chunk-ms=40", "--llm-text=One sentence only.")
    description = supervised.until_ready()
    assert description["pipeline_log"] == description["worker"]["log"]
    assert description["redis"]["url"].startswith("redis://127.0.0.1:")
    assert description["knobs"]["synthetic"]["chunk_ms"] == 40
    client = str(Path(__file__).with_name("one_turn.py"))
    arguments = (description["opentalking"]["url"], description["avatar"], description["model"])
    turn = in_venv("opentalking", client, *arguments, environment=HOOK)
    assert dict(turn["events"])["speech.timing"]["model"] == "wav2lip"
    assert all(" 127.0.0.1 " in line for line in turn["candidates"])
    for pid in pids(description):
        assert addresses(pid) <= LOOPBACK
    log = Path(description["pipeline_log"]).read_text()
    assert "Speak pipeline timing: " in log
    assert "Traceback" not in log
    assert supervised.stop() == 0
    supervised.until_nothing_is_left()


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_in_good_order(supervise, number):
    supervised = supervise("--mode=unified")
    supervised.until_ready()
    supervised.process.send_signal(number)
    assert supervised.process.wait(60) == 0
    supervised.until_nothing_is_left()


def test_no_other_process_gets_the_port_that_opentalking_is_told(monkeypatch):
    told = services.PORTS.start + 3
    monkeypatch.setattr(services, "PORTS", range(services.PORTS.start, services.PORTS.start + 30))
    for _ in range(50):
        assert told not in dataclasses.astuple(services.free_ports(taken=told))


@pytest.mark.e2e
def test_opentalking_answers_where_it_is_told_to(supervise, http_json):
    port = services.free_ports().opentalking
    supervised = supervise("--mode=unified", f"--listen=0.0.0.0:{port}")
    assert supervised.until_ready()["opentalking"]["url"] == f"http://127.0.0.1:{port}"
    # All of 127.0.0.0/8 is this machine's: another address of it, as another machine would use.
    assert http_json(f"http://127.0.0.2:{port}/models")["statuses"]


@pytest.mark.e2e
def test_the_end_of_stdin_stops_everything_if_asked_to(supervise):
    supervised = supervise("--mode=unified", "--stop-on-stdin-eof")
    supervised.until_ready()
    supervised.process.stdin.close()
    assert supervised.process.wait(60) == 0
    supervised.until_nothing_is_left()


@pytest.mark.e2e
def test_a_stdin_that_has_no_end_to_wait_for_has_ended(venvs, tmp_path):
    options = ["--mode=unified", f"--dir={tmp_path}", f"--venvs={venvs}", "--stop-on-stdin-eof"]
    done = supervisor(*options, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "end of stdin before the target was ready" in done.stderr


@pytest.mark.e2e
def test_nothing_survives_a_supervisor_that_is_killed(supervise):
    supervised = supervise("--mode=split")
    supervised.until_ready()
    assert len(supervised.leftovers()) == 7
    supervised.process.kill()
    supervised.process.wait()
    supervised.until_nothing_is_left()


@pytest.mark.e2e
def test_ctrl_c_during_start_up_leaves_nothing_even_when_repeated(supervise):
    supervised = supervise("--mode=split")
    supervised.until_says("omnirt: started")
    # As a terminal does it: to the whole foreground group, by an impatient hand.
    for _ in range(3):
        os.killpg(supervised.process.pid, signal.SIGINT)
        time.sleep(0.05)
    supervised.until_says("SIGINT before the target was ready")
    assert supervised.process.wait(60) == 1
    supervised.until_nothing_is_left()
    assert not (supervised.directory / "target.json").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["omnirt", "opentalking", "provider"])
def test_the_death_of_a_child_stops_everything_and_is_told(supervise, name):
    supervised = supervise("--mode=unified")
    description = supervised.until_ready()
    os.kill(description[name]["pid"], signal.SIGKILL)
    supervised.until_says(f"{name} was ended by SIGKILL while the target was running")
    assert supervised.process.wait(60) == 1
    supervised.until_nothing_is_left()


@pytest.mark.e2e
def test_a_target_that_is_not_ready_in_time_is_told_with_what_is_missing(supervise):
    supervised = supervise("--mode=unified", "--timeout=1", "--model=flashtalk")
    # OpenTalking takes longer than a second to import its libraries on most machines; on one
    # where it does not, this run is simply ready.
    line = supervised.until_says("ready")
    while not re.search("not ready after 1 s|ready: http", line):
        line = supervised.until_says("ready")
    if "not ready after 1 s" in line:
        assert supervised.process.wait(60) == 1
    else:
        assert supervised.stop() == 0
    supervised.until_nothing_is_left()


def supervisor(*options, environment=None, stdin=None):
    return subprocess.run(
        [sys.executable, str(DEMO / "supervisor.py"), *options],
        env=environment,
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--mode, --dir"),
        (["--mode=both", "--dir=x"], "--mode"),
        (["--mode=unified", "--dir=x", "--width=255"], "--width: must be even"),
        (["--mode=unified", "--dir=x", "--fps=0"], "--fps: must be a whole number from 1 to 60"),
        (["--mode=unified", "--dir=x", "--chunk-ms=-1"], "--chunk-ms: chunk_ms: must lie between"),
        (["--mode=unified", "--dir=x", "--listen=8000"], "--listen: HOST must be 127.0.0.1 or 0"),
        (["--mode=unified", "--dir=x", "--listen=127.0.0.1:0"], "number from 1 to 65535"),
        (["--mode=unified", "--dir=x", "--ca-bundle=absent"], "--ca-bundle: absent is not a file"),
        (
            ["--mode=unified", "--dir=x", "--media-address=999.1.1.1"],
            "--media-address: must be an IPv4 address, or a name that has one",
        ),
        (
            ["--mode=unified", "--dir=x", "--slice-len=no"],
            "--slice-len: slice_len: must be a whole",
        ),
    ],
)
def test_wrong_usage_exits_with_64_and_names_the_option(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    done = supervisor(*options)
    assert done.returncode == 64
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_environments_are_told_with_the_command_that_makes_them(tmp_path):
    done = supervisor("--mode=unified", f"--dir={tmp_path / 'run'}", f"--venvs={tmp_path}")
    assert done.returncode == 1
    assert f"{DEMO / 'install.py'} --root {tmp_path}" in done.stderr


@pytest.mark.e2e
def test_a_missing_redis_is_told_with_the_package_that_has_it(venvs, tmp_path):
    # A PATH with nothing on it: the environments' interpreters are named in full.
    options = ["--mode=split", f"--dir={tmp_path / 'run'}", f"--venvs={venvs}"]
    done = supervisor(*options, environment={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "apt-get install redis-server" in done.stderr


@pytest.mark.e2e
def test_a_half_made_environment_is_told_with_the_last_words_of_the_child(venvs, tmp_path):
    # OmniRT's interpreter, with nothing installed.
    broken = tmp_path / "venvs"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(broken / "omnirt")], check=True
    )
    (broken / "omnirt" / "bin" / "omnirt").touch()
    (broken / "opentalking").symlink_to(venvs / "opentalking")
    done = supervisor("--mode=unified", f"--dir={tmp_path / 'run'}", f"--venvs={broken}")
    assert done.returncode == 1
    assert "omnirt exited with status 1 before it was ready; the last lines of " in done.stderr
    assert "ModuleNotFoundError" in done.stderr
    assert str(tmp_path / "run" / "logs" / "omnirt.log") in done.stderr


@pytest.mark.e2e
def test_redis_is_on_the_test_machine():
    assert shutil.which("redis-server"), "split mode is tested here: install redis-server"
