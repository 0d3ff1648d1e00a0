"""What goes wrong ends with one clear line, the right status, and nothing left behind."""

import json
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import attach, bench, running
from tests.processes import ROOT, free_port, wait_until

pytestmark = pytest.mark.e2e


def last_line(done):
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_an_unreachable_target(tmp_path):
    done = bench(tmp_path / "out", "--target", f"http://127.0.0.1:{free_port()}")
    assert done.status == 1
    assert "127.0.0.1" in last_line(done)
    assert not (tmp_path / "out").exists()


def test_a_demo_that_does_not_start_leaves_the_logs_it_names(tmp_path):
    """One second is too short to import OpenTalking: the message points to logs that stay."""
    done = bench(tmp_path / "out", "--start", "demo", "--demo-options", "--timeout 1")
    assert done.status == 1
    assert "the demo target did not start" in last_line(done)
    assert list((tmp_path / "out" / "target" / "logs").iterdir())
    assert not (tmp_path / "out" / "bundle").exists()


def test_an_unknown_model_names_those_that_are_connected(unified, tmp_path):
    done = bench(tmp_path / "out", "--target", unified.url, "--model", "musetalk9")
    assert done.status == 64
    assert "unknown model 'musetalk9'; connected are: mock" in last_line(done)


def test_a_model_that_is_not_connected_says_why(unified, tmp_path):
    done = bench(tmp_path / "out", "--target", unified.url, "--model", "musetalk")
    assert done.status == 64
    assert "musetalk is not connected" in last_line(done)


def test_an_unknown_avatar_names_those_there_are(unified, tmp_path):
    done = bench(tmp_path / "out", "--target", unified.url, "--avatar", "nobody")
    assert done.status == 64
    assert "unknown avatar 'nobody'; the target has: talkscope-demo" in last_line(done)


@pytest.mark.parametrize("status", [400, 404, 503])
def test_a_target_that_refuses(tmp_path, status):
    """A stand-in: the real target gives these on its own misconfigurations only."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"detail": "out of service"}'
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = bench(tmp_path / "out", "--target", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert done.status == 1
    assert str(status) in last_line(done)
    assert "out of service" in last_line(done)


def test_a_target_that_accepts_and_never_answers(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = bench(tmp_path / "out", "--target", url)
    assert done.status == 1
    assert "GET /health had no answer within 10 s" in last_line(done)


def test_a_backend_that_fails_is_a_failed_run_with_the_backends_words(tmp_path):
    options = ("--llm-text", "Hello there.", "--fail-every", "1")
    with running(tmp_path / "target", "unified", *options) as target:
        done = bench(tmp_path / "out", *attach(target), "--repeat", "2")
        states = [
            httpx.get(f"{target.url}/sessions/{s}").json()["state"]
            for s in {turn["session"] for turn in done.turns}
        ]
    assert done.status == 1
    assert "SPEAK_FAILED" in done.stdout
    assert "Traceback" not in done.stderr
    assert states == ["closed"]


def test_a_speech_without_sound_is_a_failed_run(tmp_path):
    """TTS down: OpenTalking ends the speech as if all were well."""
    with running(tmp_path / "target", "unified", "--tts-fail") as target:
        done = bench(tmp_path / "out", *attach(target), "--repeat", "1")
    assert done.status == 1
    assert "no audio" in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_session_and_no_process(unified, tmp_path, number):
    command = [sys.executable, "-m", "talkscope.cli", "bench", *attach(unified)]
    command += ["--repeat", "50", "--out", str(tmp_path / "out")]
    with (tmp_path / "stderr").open("wb") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT, process_group=0
        )
    turns = tmp_path / "out" / "bundle" / "turns.jsonl"
    wait_until(lambda: turns.exists() and turns.stat().st_size > 0, "a first turn", 60)
    [exporter] = _children(child.pid)
    child.send_signal(number)
    assert child.wait(30) == 130
    text = (tmp_path / "stderr").read_text()
    assert "Traceback" not in text
    assert "interrupted" in text.splitlines()[-1]
    assert _gone(exporter)
    session = json.loads(turns.read_text().splitlines()[0])["session"]
    state = httpx.get(f"{unified.url}/sessions/{session}").json()["state"]
    assert state in {"closing", "closed"}


def test_a_killed_run_leaves_no_exporter(unified, tmp_path):
    """SIGKILL cannot be caught: the exporter notices by itself, and closes its bundle."""
    command = [sys.executable, "-m", "talkscope.cli", "bench", *attach(unified)]
    command += ["--repeat", "50", "--out", str(tmp_path / "out")]
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    turns = tmp_path / "out" / "bundle" / "turns.jsonl"
    wait_until(lambda: turns.exists() and turns.stat().st_size > 0, "a first turn", 60)
    [exporter] = _children(child.pid)
    child.kill()
    child.wait()
    wait_until(lambda: _gone(exporter), "the exporter's end")
    manifest = json.loads((tmp_path / "out" / "bundle" / "manifest.json").read_text())
    assert manifest["complete"] is True


def test_a_half_written_bundle_is_refused(unified, tmp_path):
    done = bench(tmp_path / "out", *attach(unified), "--repeat", "1")
    assert done.status == 0, done.stderr
    turns = tmp_path / "out" / "bundle" / "turns.jsonl"
    turns.write_bytes(turns.read_bytes()[:-100])
    again = subprocess.run(
        [sys.executable, "-m", "talkscope.cli", "report", str(tmp_path / "out" / "bundle")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert again.returncode == 2
    [line] = again.stderr.strip().splitlines()
    assert "turns.jsonl" in line


def test_the_archive_gives_the_same_report(unified, tmp_path):
    done = bench(tmp_path / "out", *attach(unified), "--repeat", "1")
    [archive] = (tmp_path / "out").glob("*.tar.gz")
    again = subprocess.run(
        [sys.executable, "-m", "talkscope.cli", "report", str(archive)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert again.returncode == 0
    assert again.stdout.strip() == (done.out / "report.md").read_text().strip()


def _children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
