"""The exporter as an operator runs it: a process of its own."""

import json
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import httpx
import pytest

from exporter import stages, upstream
from exporter.__main__ import bind
from tests.otlp_receiver import OtlpReceiver
from tests.processes import ROOT, exporter, wait_until
from tests.recordings import sse_events

NOWHERE = "http://127.0.0.1:9"


def relay(url, name, *, later=0.0):
    """Send a recorded event stream as a client relays it, as if it had happened so much later."""
    events = sse_events(name)
    records = [
        {
            "kind": "event",
            "sequence": number,
            "session": data.get("session_id", "none"),
            "unix": at,
            "event": event,
            "data": data,
        }
        for number, (at, event, data) in enumerate(events, 1)
    ]
    clock = {"offset_seconds": later}
    body = {"version": 1, "origin": "test", "clock": clock, "records": records}
    answer = httpx.post(f"{url}/v1/marks", json=body)
    assert answer.status_code == 202
    assert answer.json() == {"accepted": len(records), "duplicates": 0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_a_complete_bundle_when_it_is_stopped(tmp_path, number):
    with exporter(tmp_path, "--target", NOWHERE, "--bundle", str(tmp_path / "b")) as (url, child):
        relay(url, "unified_wav2lip_synth.sse.txt")
        child.send_signal(number)
        assert child.wait(20) == 0
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    assert manifest["complete"] is True
    [turn] = [json.loads(line) for line in (tmp_path / "b/turns.jsonl").read_text().splitlines()]
    assert turn["values"][stages.TTFA.key] == 427.5850310000351
    assert "Traceback" not in (tmp_path / "exporter.log").read_text()


def test_a_relayed_turn_is_counted_and_traced(tmp_path):
    with (
        OtlpReceiver() as receiver,
        exporter(tmp_path, "--target", NOWHERE, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_url) as (
            url,
            child,
        ),
    ):
        relay(url, "unified_wav2lip_synth.sse.txt")
        wait_until(
            lambda: "opentalking_turns_total{" in httpx.get(f"{url}/metrics").text, "the turn"
        )
        text = httpx.get(f"{url}/metrics", headers={"accept": "application/openmetrics-text"}).text
        child.terminate()
        child.wait(20)
        [root] = [s for s in receiver.spans if not s.parent_span_id]
        assert root.trace_id.hex() in text


def test_readiness_names_what_is_down(tmp_path):
    with exporter(tmp_path, "--target", NOWHERE) as (url, _):
        wait_until(lambda: "http" in httpx.get(f"{url}/readyz").json()["down"], "a first poll")
        answer = httpx.get(f"{url}/readyz")
        assert answer.status_code == 503
        assert NOWHERE in answer.json()["down"]["http"]
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}


def test_a_bad_batch_is_refused_with_the_fields_name(tmp_path):
    with exporter(tmp_path, "--target", NOWHERE) as (url, _):
        answer = httpx.post(f"{url}/v1/marks", json={"version": 1, "origin": "x", "records": []})
        assert answer.status_code == 400
        assert answer.json()["field"] == "records"
        answer = httpx.post(f"{url}/v1/marks", content=b"x" * (5 << 20))
        assert answer.status_code == 413


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--target is missing"),
        (["--target", "localhost:8000"], "--target 'localhost:8000' is not a URL"),
        (["--target", NOWHERE, "--redis", "http://x"], "--redis 'http://x' is not a URL"),
        (["--target", NOWHERE, "--listen", "9109"], "--listen '9109' is not HOST:PORT"),
        (["--target", NOWHERE, "--speed", "9"], "unrecognized arguments: --speed 9"),
    ],
)
def test_wrong_usage_ends_with_one_line_and_64(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "exporter", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 64
    assert done.stderr.startswith(f"exporter: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_small_answers_are_not_held_back():
    """asyncio sets TCP_NODELAY on connections of a socket whose protocol is TCP by name."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_an_address_in_use_ends_with_one_line():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "exporter", "--target", NOWHERE, "--listen", address],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"exporter: cannot listen on {address}")
    assert len(done.stderr.splitlines()) == 1


def test_an_existing_bundle_is_not_overwritten(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "--target", NOWHERE, "--bundle", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 64
    assert "already holds a bundle" in done.stderr


def test_a_followed_log_names_the_llm_and_tts_stages(tmp_path):
    """Events relayed and log lines followed meet in one turn."""
    log = tmp_path / "unified.log"
    log.write_text("")
    events = sse_events("unified_wav2lip_synth.sse.txt")
    started = next(at for at, name, _ in events if name == upstream.SPEECH_STARTED)
    session = events[0][2]["session_id"]
    arguments = ["--target", NOWHERE, "--log", str(log), "--bundle", str(tmp_path / "b")]
    with exporter(tmp_path, *arguments) as (url, child):
        wait_until(
            lambda: 'source_up{source="log"} 1.0' in httpx.get(f"{url}/metrics").text, "the log"
        )
        # Just now: lines that are long past are given up before an event can claim them.
        later = time.time() - started
        said = datetime.fromtimestamp(started + later + 0.1, UTC)
        stamp = f"{said.isoformat(timespec='microseconds').removesuffix('+00:00')}Z INFO:x:"
        assert upstream.line_time(stamp) > started + later
        with log.open("a") as file:
            file.write(f"{stamp}TTS sentence done | a | first_pcm=187ms total=1\n")
            file.write(f"{stamp}Speak pipeline timing: session={session} llm_first_token_ms=147\n")
        relay(url, "unified_wav2lip_synth.sse.txt", later=later)
        wait_until(
            lambda: "opentalking_turns_total{" in httpx.get(f"{url}/metrics").text, "the turn"
        )
        child.terminate()
        assert child.wait(20) == 0
    [turn] = [json.loads(line) for line in (tmp_path / "b/turns.jsonl").read_text().splitlines()]
    assert turn["values"][stages.TTS_FIRST_PCM_LATENCY.key] == 187.0
    assert turn["values"][stages.LLM_FIRST_TOKEN_LATENCY.key] == 147.0
