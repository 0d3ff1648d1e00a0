"""The hooks on stand-ins of OpenTalking's shapes; tests/e2e/test_agent.py has the real thing."""

import asyncio
import gc
import sys
import time

import pytest
from aiortc import RTCRtpSender
from aiortc.rtcrtpsender import RTCEncodedFrame

from exporter import stages
from exporter.agent.guard import Guard
from exporter.agent.hooks import HOOKS, Hooks, Watch, media, runner
from exporter.agent.speech import Speech
from exporter.stages import ProcessRole
from tests.exporter.agent import standin
from tests.exporter.agent.observed import Observed

SENT_BEFORE, SENT = 1111, 2222
ALL = HOOKS[ProcessRole.UNIFIED]


def speak(**named):
    """One speech; returns its runner."""

    async def run():
        speaking = standin.FlashTalkRunner()
        enqueued = time.time() - standin.ENQUEUED_BEFORE_S
        assert await speaking.speak("hi", enqueue_unix=enqueued, **named) == "hi"
        return speaking

    return asyncio.run(run())


def test_a_speech_is_told_with_all_its_marks(observed):
    spoken = speak()
    [record] = observed.speeches
    marks = record["marks"]
    assert list(marks) == [
        stages.SPEAK_ENTERED,
        stages.INPUT_ENQUEUED,
        stages.LLM_REQUESTED,
        stages.LLM_FIRST_TOKEN,
        stages.TTS_REQUESTED,
        stages.TTS_FIRST_PCM,
        stages.AVATAR_REQUESTED,
        stages.AVATAR_FIRST_FRAME,
        stages.MEDIA_QUEUED,
        stages.SPEECH_GENERATED,
    ]
    assert marks[stages.INPUT_ENQUEUED] == pytest.approx(-standin.ENQUEUED_BEFORE_S, abs=0.02)
    entered_unix = time.time() - (time.perf_counter() - spoken.began)
    assert record["started_unix"] == pytest.approx(entered_unix, abs=2e-3)
    assert observed.guard.faults == {}
    assert observed.hooks.missing == {}


def test_blank_tokens_and_empty_audio_do_not_count(observed):
    speak()
    [record] = observed.speeches
    marks = record["marks"]
    assert marks[stages.LLM_FIRST_TOKEN] - marks[stages.LLM_REQUESTED] >= 0.03
    assert marks[stages.TTS_FIRST_PCM] - marks[stages.TTS_REQUESTED] >= 0.02


def test_the_opener_is_not_the_answers_first_sentence(observed):
    speak()
    [record] = observed.speeches
    assert record["marks"][stages.LLM_REQUESTED] >= 0.02
    assert record["marks"][stages.TTS_REQUESTED] > record["marks"][stages.LLM_FIRST_TOKEN]


def test_generation_ends_where_opentalking_says(observed):
    speak()
    [record] = observed.speeches
    generated = record["marks"][stages.SPEECH_GENERATED]
    assert record["chunks"][-1][1] <= generated < record["chunks"][-1][1] + 0.04


def test_uploaded_audio_has_a_record_without_language_model_and_voice(observed):
    async def run():
        await standin.FlashTalkRunner().speak_uploaded_pcm(standin.CHUNK, enqueue_unix=1.0)

    asyncio.run(run())
    [record] = observed.speeches
    assert set(record["marks"]) == {
        stages.SPEAK_ENTERED,
        stages.INPUT_ENQUEUED,
        stages.AVATAR_REQUESTED,
        stages.AVATAR_FIRST_FRAME,
        stages.MEDIA_QUEUED,
        stages.SPEECH_GENERATED,
    }
    assert len(record["chunks"]) == 1


def test_the_runner_of_third_parties_adapters_tells_the_same(observed):
    async def run():
        await standin.SessionRunner().chat("hi", enqueue_unix=time.time())

    asyncio.run(run())
    [record] = observed.speeches
    marks = record["marks"]
    assert list(marks) == [
        stages.SPEAK_ENTERED,
        stages.INPUT_ENQUEUED,
        stages.LLM_REQUESTED,
        stages.LLM_FIRST_TOKEN,
        stages.TTS_REQUESTED,
        stages.TTS_FIRST_PCM,
        stages.AVATAR_REQUESTED,
        stages.AVATAR_FIRST_FRAME,
        stages.MEDIA_QUEUED,
        stages.SPEECH_GENERATED,
    ]
    # It waits for its lock before it begins.
    assert marks[stages.INPUT_ENQUEUED] <= -0.02
    assert len(record["chunks"]) == 1


def test_the_language_models_name_is_told(observed):
    speak()
    [record] = observed.speeches
    assert record["llm_model"] == "qwen-turbo"


def test_a_failure_is_told_and_raised(observed):
    async def run():
        runner = standin.FlashTalkRunner()
        runner.chunk_error = RuntimeError("the backend is gone")
        with pytest.raises(RuntimeError, match="the backend is gone"):
            await runner.speak("hi")

    asyncio.run(run())
    [record] = observed.speeches
    assert record["outcome"] == "failed"
    assert record["error"] == {"code": "AVATAR_FAILED", "message": "the backend is gone"}
    assert stages.SPEECH_GENERATED not in record["marks"]


def test_a_provider_that_fails_is_named(observed, monkeypatch):
    monkeypatch.setattr(standin.OpenAICompatibleLLMClient, "failing", True)

    async def run():
        with pytest.raises(ConnectionError):
            await standin.FlashTalkRunner().speak("hi")

    asyncio.run(run())
    [record] = observed.speeches
    assert record["error"] == {"code": "LLM_FAILED", "message": "no language model"}


def test_an_interrupted_speech_is_told_as_such(observed):
    async def run():
        task = asyncio.create_task(standin.FlashTalkRunner().speak("hi"))
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    [record] = observed.speeches
    assert (record["outcome"], record["error"]) == ("interrupted", None)


def test_two_speeches_at_once_keep_apart(observed):
    async def run():
        first, second = standin.FlashTalkRunner(), standin.FlashTalkRunner()
        second.session_id = "sess_2"
        await asyncio.gather(first.speak("a"), second.speak("b"))

    asyncio.run(run())
    assert {r["session"] for r in observed.speeches} == {"sess_1", "sess_2"}
    assert [len(r["chunks"]) for r in observed.speeches] == [2, 2]


def test_published_events_are_relayed(observed):
    async def run():
        bus = standin.InMemoryRedis()
        message = '{"event": "speech.started", "data": {"text": "hi"}}'
        channel = "opentalking:events:sess_1"
        assert await bus.publish(channel, message) == (channel, message)
        await bus.publish("something:else", message)

    asyncio.run(run())
    [event] = observed.events
    assert (event["session"], event["event"]) == ("sess_1", "speech.started")
    assert event["data"] == {"text": "hi"}
    assert event["unix"] == pytest.approx(time.time(), abs=1.0)


# --- media ---------------------------------------------------------------------------------


class Transport:
    state = "new"


class Sender(RTCRtpSender):
    """The real class with the hook; what its loop does besides is played here."""

    async def send_one(self):
        frame = await self._next_encoded_frame(None)
        if frame is not None:
            setattr(self, media._SENT_TIMESTAMP, frame.timestamp)


@pytest.fixture
def sent(monkeypatch):
    """Makes the sender's encoder a list of results: None is sound held back."""

    async def encoded(self, codec):
        await self.queue.get()
        result = self.results.pop(0)
        return None if result is None else RTCEncodedFrame([b"x"], result, 0)

    monkeypatch.setattr(RTCRtpSender, "_next_encoded_frame", encoded)


def sender_of(queue, kind, results):
    sender = Sender(kind, Transport())
    sender.queue, sender.results = queue, list(results)
    return sender


@pytest.fixture
def patched(sent, monkeypatch):
    """Like `observed`, on an encoder that the test plays."""
    standin.install(monkeypatch)
    watch_guard, items = Guard(), []
    hooks = Hooks()
    replaced = [h for h in ALL if h.module != "aiortc.rtcrtpsender"]
    hooks.set(replaced, Watch(items.append, watch_guard))
    original = RTCRtpSender._next_encoded_frame
    wrapped = media._encoding(original, Watch(items.append, watch_guard))
    monkeypatch.setattr(RTCRtpSender, "_next_encoded_frame", wrapped)
    yield items
    hooks.remove()
    assert watch_guard.faults == {}


def test_the_first_frame_and_sample_are_followed_to_the_wire(patched):
    async def run():
        runner = standin.FlashTalkRunner()
        video, audio = runner.webrtc.video._queue, runner.webrtc.audio._queue
        await video.put("idle frame")
        await runner.speak("hi")
        show = sender_of(video, "video", [SENT_BEFORE, SENT, SENT + 1])
        play = sender_of(audio, "audio", [None, SENT, SENT + 1])
        for _ in range(3):
            await show.send_one()
            await play.send_one()

    asyncio.run(run())
    [record] = [i.record() for i in patched]
    assert record["media"] == {"first_video_timestamp": SENT, "first_audio_timestamp": SENT}


def test_media_queues_are_summed_over_the_sessions_that_are_open(observed):
    async def run():
        first, second, closed = (standin.FlashTalkRunner() for _ in range(3))
        assert observed.levels.media() == {"video": 0, "audio": 0}
        await asyncio.gather(first.speak("a"), second.speak("b"), closed.speak("c"))
        closed.webrtc.pc.connectionState = "closed"
        assert observed.levels.media() == {"video": 8, "audio": 8}
        del second
        gc.collect()
        assert observed.levels.media() == {"video": 4, "audio": 4}

    asyncio.run(run())


def test_the_backlog_is_what_the_backends_owe(observed):
    async def run():
        assert observed.levels.backlog is None, "nobody has been asked"
        clients = [standin.FlashTalkWSClient(), standin.FlashHeadWSClient()]
        owed = [asyncio.create_task(c.generate(standin.CHUNK)) for c in clients]
        await asyncio.sleep(0)
        assert observed.levels.backlog == 2
        clients[0].returns.set()
        assert await owed[0] == [len(standin.CHUNK)]
        assert observed.levels.backlog == 1
        owed[1].cancel()
        await asyncio.gather(owed[1], return_exceptions=True)
        assert observed.levels.backlog == 0

    asyncio.run(run())


def test_what_is_thrown_away_was_never_sent(patched):
    async def run():
        runner = standin.FlashTalkRunner()
        video = runner.webrtc.video._queue
        await runner.speak("hi")
        while not video.empty():
            video.get_nowait()
        await video.put("idle frame")
        await video.put("idle frame")
        show = sender_of(video, "video", [SENT, SENT])
        await show.send_one()
        await show.send_one()

    asyncio.run(run())
    [record] = [i.record() for i in patched]
    assert record["media"]["first_video_timestamp"] is None


# --- when something is wrong ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["enter", "mark", "chunk", "expect", "end", "failed"])
def test_a_fault_of_the_agent_does_not_reach_the_pipeline(observed, monkeypatch, method):
    def fault(*_, **__):
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(Speech, method, fault)
    spoken = speak()
    assert spoken.webrtc.video._queue.qsize() == 4
    assert spoken.webrtc.audio._queue.qsize() == 4
    if method != "failed":
        assert sum(observed.guard.faults.values()) >= 1


def test_a_fault_at_the_very_beginning_does_not_either(observed, monkeypatch):
    def fault(*_, **__):
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(runner, "_begin", fault)
    speak()
    assert observed.speeches == []
    assert observed.guard.faults == {"speech begins": 1}


@pytest.mark.parametrize(
    ("owner", "attribute"),
    [
        ("OpenAICompatibleLLMClient", "chat_stream"),
        ("FlashTalkRunner", "_generate_flashtalk_frames"),
        ("FlashTalkRunner", "_select_tts_opener"),
        ("FlashTalkRunner", "speak"),
        ("InMemoryRedis", "publish"),
    ],
)
def test_a_target_that_is_gone_costs_its_stage_and_one_line(monkeypatch, caplog, owner, attribute):
    standin.install(monkeypatch)
    monkeypatch.delattr(getattr(standin, owner), attribute)
    observed = Observed()
    [hook] = [h for h in ALL if h.path == f"{owner}.{attribute}"]
    assert observed.hooks.missing == {hook.place: hook.loses}
    [line] = [r.getMessage() for r in caplog.records]
    assert hook.place in line
    assert hook.loses in line
    observed.hooks.remove()


def test_a_target_of_another_shape_is_left_alone(monkeypatch, caplog):
    standin.install(monkeypatch)

    def speak_now(self, words):
        """What a later release may make of it."""

    monkeypatch.setattr(standin.FlashTalkRunner, "speak", speak_now)
    observed = Observed()
    assert list(observed.hooks.missing) == [f"{standin.RUNNER}.FlashTalkRunner.speak"]
    assert "no parameter text, enqueue_unix" in caplog.text
    assert standin.FlashTalkRunner.speak is speak_now
    observed.hooks.remove()


def test_without_opentalking_only_lines_are_written(monkeypatch):
    for name in standin.CONTENT:
        monkeypatch.setitem(sys.modules, name, None)
    observed = Observed()
    assert set(observed.hooks.missing.values()) >= {"every mark of spoken answers"}
    observed.hooks.remove()


def test_removing_puts_everything_back(observed):
    before = standin.FlashTalkRunner.speak
    observed.hooks.remove()
    assert standin.FlashTalkRunner.speak is before.__wrapped__
    speak()
    assert observed.items == []
