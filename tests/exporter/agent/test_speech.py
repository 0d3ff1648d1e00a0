import time

import pytest

from exporter import stages
from exporter.agent import speech as speech_module
from exporter.agent.speech import Speech


@pytest.fixture
def speech():
    """A speech that began just now, half a second after the API queued it."""
    made = Speech("s", time.time() - 0.5)
    made.enter(time.perf_counter())
    return made


def end(speech, *, generated=None, interrupted=False, raised=False):
    speech.end(generated=generated, interrupted=interrupted, raised=raised)
    return speech.record()


def test_marks_and_chunks_are_seconds_since_the_pipeline_began(speech):
    at = speech.entered
    speech.mark(stages.LLM_REQUESTED, at + 0.1)
    speech.mark(stages.LLM_REQUESTED, at + 0.2)
    speech.chunk(at + 0.3, at + 0.4)
    record = end(speech, generated=at + 1.0)
    assert record["marks"] == pytest.approx(
        {
            stages.SPEAK_ENTERED: 0.0,
            stages.INPUT_ENQUEUED: -0.5,
            stages.LLM_REQUESTED: 0.1,
            stages.AVATAR_FIRST_FRAME: 0.4,
            stages.SPEECH_GENERATED: 1.0,
        },
        abs=2e-3,
    )
    assert record["chunks"] == [pytest.approx([0.3, 0.4])]
    assert record["started_unix"] == pytest.approx(time.time(), abs=0.5)
    assert record["outcome"] == "completed"


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_does_not_part_a_speech_from_its_request(monkeypatch, step):
    begun, wall = time.time(), time.time
    monkeypatch.setattr(time, "time", lambda: wall() + step)
    speech = Speech("s", time.time() - 0.5)
    speech.enter(time.perf_counter())
    record = end(speech)
    assert record["marks"][stages.INPUT_ENQUEUED] == pytest.approx(-0.5, abs=0.05)
    assert record["started_unix"] == pytest.approx(begun, abs=0.5)


def test_a_speech_that_never_began_has_no_record():
    assert end(Speech("s", None)) is None


def test_what_comes_after_the_end_is_not_of_this_speech(speech):
    end(speech)
    speech.mark(stages.LLM_REQUESTED, time.perf_counter())
    speech.chunk(1.0, 2.0)
    speech.failed("LATE", RuntimeError("x"))
    record = speech.record()
    assert stages.LLM_REQUESTED not in record["marks"]
    assert (record["chunks"], record["error"]) == ([], None)


def test_an_apology_is_an_answer_and_silence_is_none(speech):
    speech.failed("LLM_FAILED", RuntimeError("connection refused"))
    assert end(speech)["outcome"] == "failed"
    spoken = Speech("s", None)
    spoken.enter(0.0)
    spoken.failed("LLM_FAILED", RuntimeError(""))
    spoken.mark(stages.MEDIA_QUEUED, 1.0)
    record = end(spoken)
    assert record["outcome"] == "completed"
    assert record["error"] == {"code": "LLM_FAILED", "message": "RuntimeError"}


def test_an_interruption_is_no_failure(speech):
    speech.failed("TTS_FAILED", RuntimeError("closed"))
    assert end(speech, interrupted=True, raised=True)["outcome"] == "interrupted"


def test_it_waits_for_media_that_was_queued_but_not_for_ever(speech, monkeypatch):
    assert not speech.expect("video"), "nothing is queued yet"
    speech.mark(stages.MEDIA_QUEUED, time.perf_counter())
    assert [speech.expect("video"), speech.expect("audio")] == [True, True]
    assert not speech.expect("video"), "only the first frame counts"
    end(speech)
    speech.sent("video", (1 << 32) + 5)
    assert not speech.ready()
    monkeypatch.setattr(speech_module, "MEDIA_PATIENCE_S", 0.0)
    assert speech.ready()
    assert speech.record()["media"] == {"first_video_timestamp": 5, "first_audio_timestamp": None}
