"""The agent in split mode's two processes: what the API saw belongs to the worker's speech."""

import asyncio
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter import stages
from exporter.stages import Outcome
from loadgen.marks import NullSink
from loadgen.opentalking import SAMPLE_RATE, OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import SpeechInput
from tests.e2e.conftest import SHORT_ANSWER, running, session_state
from tests.exporter.agent.receiver import Received, receiver
from tests.processes import wait_until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server"),
]

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PARTS = {"api": "opentalking", "worker": "worker"}
"""Role → name in target.json."""


@dataclass
class Seen:
    received: Received
    spoken: dict[str, Any]
    """The record of a spoken turn."""
    cut_off: str
    """The session whose speech the end of the target cut off."""
    logs: dict[str, str]
    at_rest: dict[str, dict[str, Any]]
    """Role → a reading of its process when nobody spoke."""
    resident: dict[str, int]
    """Role → resident bytes then, by the kernel."""


async def _say_something(target):
    async with OpenTalking(target.url) as client:
        config = SessionConfig(model="wav2lip", avatar=str(target.facts["avatar"]))
        async with Session(client, config, NullSink()) as session:
            turn = await session.turn(SpeechInput(bytes(SAMPLE_RATE)))
            assert turn.outcome is Outcome.COMPLETED


def _begin_to_speak(target):
    """Ask for an answer, with a trace context; return while it is being given."""
    body = {"avatar_id": target.facts["avatar"], "model": "wav2lip"}
    created = httpx.post(f"{target.url}/sessions", json=body).raise_for_status()
    session = created.json()["session_id"]
    wait_until(lambda: session_state(target, session) == "worker_ready", "a worker")
    httpx.post(
        f"{target.url}/sessions/{session}/speak",
        json={"text": "Hello."},
        headers={"traceparent": TRACEPARENT},
    ).raise_for_status()
    wait_until(lambda: session_state(target, session) == "speaking", "a speech")
    return session


def _resident_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    with receiver() as received:
        options = ("--llm-text", SHORT_ANSWER, "--agent", received.url)
        with running(tmp_path_factory.mktemp("agent-split"), "split", *options) as target:
            asyncio.run(_say_something(target))
            [spoken] = received.wait_for("pipeline", 1)
            now = time.time()
            wait_until(lambda: len(_readings(received, now)) == len(PARTS), "a reading of each")
            at_rest = _readings(received, now)
            resident = {r: _resident_bytes(target.facts[p]["pid"]) for r, p in PARTS.items()}
            cut_off = _begin_to_speak(target)
            logs = {p: Path(target.facts[p]["log"]) for p in PARTS.values()}
        texts = {part: log.read_text() for part, log in logs.items()}
    return Seen(received, spoken, cut_off, texts, at_rest, resident)


def _readings(received, since):
    return {r["role"]: r for r in received.of_kind("process") if r["unix"] > since}


def test_nothing_is_missing_and_nothing_is_refused(seen):
    assert seen.received.refusals == []
    for text in seen.logs.values():
        assert "the agent reports to" in text
        assert "missing from now on" not in text
        assert "the agent failed" not in text
    assert {tuple(r["agent"].values()) for r in seen.received.of_kind("process")} == {(0, 0, 0)}


def test_speech_recognition_in_the_api_is_a_mark_of_the_workers_speech(seen):
    [told] = re.findall(r"STT streaming timing: .* stt_ms=(\d+)", seen.logs["opentalking"])
    marks = seen.spoken["marks"]
    ms = 1000.0 * (marks[stages.STT_TRANSCRIBED] - marks[stages.STT_REQUESTED])
    # The log rounds.
    assert ms == pytest.approx(float(told), abs=0.51)
    assert marks[stages.STT_TRANSCRIBED] <= marks[stages.INPUT_ENQUEUED] <= 0.0
    assert seen.spoken["llm_model"] == "stand-in"
    assert "traceparent" not in seen.spoken


def test_what_sigterm_cuts_off_is_told_with_its_trace_context(seen):
    """The worker's last record is made while it shuts down, so it is flushed or lost."""
    _, last = seen.received.of_kind("pipeline")
    assert last["session"] == seen.cut_off
    assert last["traceparent"] == TRACEPARENT
    assert last["outcome"] in ("interrupted", "failed")


def test_the_creation_of_sessions_is_told_by_the_api(seen):
    sessions = {r["session"]: r["marks"] for r in seen.received.of_kind("session")}
    assert set(sessions) == {seen.spoken["session"], seen.cut_off}
    assert all(marks[stages.SESSION_CREATED] > 0.0 for marks in sessions.values())


def test_each_process_tells_of_itself(seen):
    for role, resident in seen.resident.items():
        reading = seen.at_rest[role]
        assert reading["rss_bytes"] == pytest.approx(resident, rel=0.1)
        assert reading["event_loop_lag_seconds"]["max"] >= 0.0
    worker, api = seen.at_rest["worker"], seen.at_rest["api"]
    assert worker["media_queue"] == {"video": 0, "audio": 0}
    assert worker["realtime_backlog"] == 0
    assert "media_queue" not in api
    assert "realtime_backlog" not in api
