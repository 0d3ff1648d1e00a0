"""What the API's hooks carry from a request to its speech, on a real FastAPI."""

import asyncio
import json
import time

import httpx
import pytest

from exporter import stages
from exporter.agent import transcripts
from exporter.agent.asked import Asked, from_json, traceparent_of
from exporter.agent.hooks import requests
from exporter.agent.hooks.tasks import FIELD
from exporter.stages import ProcessRole
from tests.exporter.agent import standin
from tests.exporter.agent.observed import Observed

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def ask(*requested):
    """Send requests (path, query, headers) to the API; return the tasks in its queue."""
    queue = []

    async def run():
        transport = httpx.ASGITransport(standin.application(queue))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            for path, params, headers in requested:
                await client.post(path, params=params, headers=headers)

    asyncio.run(run())
    return [json.loads(task) for task in queue]


def speak(tasks):
    """Give tasks to the pipeline, in what may be another process."""

    async def run():
        runners = []
        consumer = standin.sys.modules[standin.CONSUMER]
        for task in tasks:
            if task["cmd"] == "speak":
                await consumer.handle_worker_task(task, None, None, None, runners)
        await asyncio.gather(*runners)

    asyncio.run(run())


def asking(text, *, traceparent=None):
    headers = {} if traceparent is None else {"traceparent": traceparent}
    return "/sessions/sess_1/speak", {"text": text}, headers


def test_a_requests_trace_context_reaches_its_speech_and_no_other(observed):
    tasks = ask(asking("a", traceparent=TRACEPARENT), asking("b"))
    speak(tasks)
    first, second = observed.speeches
    assert first["traceparent"] == TRACEPARENT
    assert "traceparent" not in second
    assert observed.guard.faults == {}


def test_only_a_task_that_has_something_to_carry_is_changed(observed):
    tasks = ask(asking("a", traceparent=TRACEPARENT), asking("b"))
    assert [FIELD in task for task in tasks] == [False, True, False, False]
    del tasks[1][FIELD]
    assert [set(task) for task in tasks] == 2 * [
        {"cmd", "session_id"},
        {"cmd", "session_id", "text", "enqueue_unix"},
    ]


def test_it_reaches_the_worker_in_another_process(monkeypatch):
    standin.install(monkeypatch)
    api = Observed(ProcessRole.API)
    tasks = ask(asking("a", traceparent=TRACEPARENT))
    api.hooks.remove()
    worker = Observed(ProcessRole.WORKER)
    speak(tasks)
    worker.hooks.remove()
    [record] = worker.speeches
    assert record["traceparent"] == TRACEPARENT
    assert api.hooks.missing == worker.hooks.missing == {}


def test_the_duration_of_speech_recognition_is_opentalkings_own(observed):
    speak(ask(("/sessions/sess_1/speak_audio", {}, {})))
    [record] = observed.speeches
    marks = record["marks"]
    seconds = marks[stages.STT_TRANSCRIBED] - marks[stages.STT_REQUESTED]
    assert seconds == pytest.approx(standin.STT_S, abs=1e-6)
    assert marks[stages.STT_TRANSCRIBED] <= marks[stages.INPUT_ENQUEUED]


def test_a_transcript_that_comes_back_as_text_brings_its_recognition(observed):
    transcribe = ("/sessions/sess_1/transcribe", {}, {})
    tasks = ask(transcribe, asking(standin.TRANSCRIPT), asking(standin.TRANSCRIPT))
    speak(tasks)
    first, second = observed.speeches
    assert stages.STT_TRANSCRIBED in first["marks"]
    assert stages.STT_TRANSCRIBED not in second["marks"], "it was said once"


@pytest.mark.parametrize(
    ("session", "text"), [("sess_1", "something else"), ("sess_2", standin.TRANSCRIPT)]
)
def test_other_text_and_other_sessions_have_nothing_of_it(observed, session, text):
    transcribe = ("/sessions/sess_1/transcribe", {}, {})
    tasks = ask(transcribe, (f"/sessions/{session}/speak", {"text": text}, {}))
    assert FIELD not in tasks[-1]


def test_transcripts_that_nobody_sends_back_are_forgotten(observed, monkeypatch):
    monkeypatch.setattr(transcripts, "KEPT", 1)
    heard = [(f"/sessions/sess_{n}/transcribe", {}, {}) for n in (1, 2)]
    said = [(f"/sessions/sess_{n}/speak", {"text": standin.TRANSCRIPT}, {}) for n in (1, 2)]
    tasks = [task for task in ask(*heard, *said) if task["cmd"] == "speak"]
    assert [FIELD in task for task in tasks] == [False, True]


def test_the_creation_of_a_session_is_timed_to_its_answer(observed):
    ask(("/sessions", {"model": "wav2lip"}, {}))
    [record] = observed.sessions
    assert (record["session"], record["model"], record["avatar"]) == ("sess_1", "wav2lip", "anna")
    assert record["marks"][stages.SESSION_REQUESTED] == 0.0
    assert record["marks"][stages.SESSION_CREATED] >= 0.02
    assert record["started_unix"] == pytest.approx(time.time(), abs=5.0)


def test_a_session_that_was_refused_was_not_created(observed):
    ask(("/sessions", {"model": "wav2lip", "ready": False}, {}))
    assert observed.sessions == []


@pytest.mark.parametrize("place", ["_begin", "_end", "_carry", "_created", "_recognized"])
def test_faults_of_the_hooks_do_not_reach_a_request(observed, monkeypatch, place):
    def fault(*_):
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(requests, place, fault)
    tasks = ask(
        ("/sessions", {"model": "wav2lip"}, {}),
        ("/sessions/sess_1/speak_audio", {}, {}),
    )
    assert [task["cmd"] for task in tasks] == ["interrupt", "speak"]
    assert sum(observed.guard.faults.values()) >= 1


# --- what is carried -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        TRACEPARENT.upper(),
        TRACEPARENT + "-more",
        "ff" + TRACEPARENT[2:],
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ],
)
def test_a_trace_context_that_is_not_valid_is_left_out(header):
    assert traceparent_of(header) is None


def test_of_a_later_version_what_this_one_knows_is_taken():
    assert traceparent_of("cc" + TRACEPARENT[2:] + "-more") == TRACEPARENT
    assert traceparent_of(f" {TRACEPARENT} ") == TRACEPARENT


def test_what_is_carried_arrives():
    asked = Asked(TRACEPARENT, {stages.STT_REQUESTED: 1.5})
    assert from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert Asked().to_json() == {}


def test_marks_that_are_not_in_the_catalogue_are_left_behind():
    assert from_json({"marks": {"later.release": 1.0}}) == Asked()


def test_a_field_of_another_shape_costs_only_what_it_would_have_told(observed):
    tasks = ask(asking("a", traceparent=TRACEPARENT))
    tasks[-1][FIELD] = ["something else"]
    speak(tasks)
    [record] = observed.speeches
    assert "traceparent" not in record
    assert observed.guard.faults == {"task": 1}
