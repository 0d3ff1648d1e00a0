"""A session against the stand-in: every way it can go wrong, and that it is always deleted."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from starlette.responses import JSONResponse

from exporter import stages
from exporter.stages import Outcome, Phase
from loadgen.errors import Cause, TargetError
from loadgen.marks import NullSink, RelayedEvent, SessionMarks, TurnMarks, TurnOpened
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig, SessionLimits
from loadgen.turn import SpeechInput, TextInput, TurnLimits, UploadInput
from tests.loadgen.standin import SESSION, TEXT, Say, answer, refusal, running, until
from tests.recordings import sse_events

HELLO = TextInput("Hello")

# Long enough for a machine that is busy with something else.
PATIENT = SessionLimits(
    create=30.0,
    subscribed=30.0,
    ready=30.0,
    offer=30.0,
    connected=30.0,
    first_frame=30.0,
    close=10.0,
    turn=TurnLimits(accepted=30.0, media=30.0, quiet=0.5, transcript=30.0, turn=60.0),
)


def impatient(**limits):
    return replace(PATIENT, **limits)


def impatient_turns(**limits):
    return replace(PATIENT, turn=replace(PATIENT.turn, **limits))


class Sink:
    def __init__(self):
        self.records = []

    def send(self, record):
        self.records.append(record)

    def of(self, kind):
        return [r for r in self.records if isinstance(r, kind)]


@contextlib.asynccontextmanager
async def connected(standin, sink=None, limits=PATIENT, decode=True, **options):
    async with OpenTalking(standin.url) as client:
        config = SessionConfig(model="mock", avatar="testbot", limits=limits, decode=decode)
        session = Session(client, config, sink or NullSink(), **options)
        yield session


def speak(standin, *inputs, sink=None, phase=None, limits=PATIENT):
    """Open a session, give the inputs, close it; return (results, session)."""

    async def run():
        async with connected(standin, sink, limits) as session, session:
            return [await session.turn(said, phase=phase) for said in inputs], session

    return asyncio.run(run())


def opening_fails(standin, limits=PATIENT, sink=None):
    async def run():
        async with connected(standin, sink, limits) as session:
            with pytest.raises(TargetError) as caught:
                await session.open()
            return caught.value

    return asyncio.run(run())


# --- a turn as it should be ------------------------------------------------------------------


def test_a_turn_is_followed_to_the_end_of_playback():
    sink = Sink()
    with running(answers=[answer(0.8)]) as standin:
        (turn,), session = speak(standin, HELLO, sink=sink, phase=Phase.MEASURED)
    assert turn.outcome is Outcome.COMPLETED
    assert turn.error is None
    # Generation ends 0.15 s after the input, playback some 0.8 s later.
    assert turn.marks[stages.SPEECH_ENDED] < turn.marks[stages.CLIENT_SPEECH_ENDED]
    assert 0 < turn.marks[stages.CLIENT_FIRST_AUDIO] < turn.marks[stages.CLIENT_SPEECH_ENDED]
    assert turn.marks[stages.CLIENT_FIRST_TALKING_FRAME] > 0
    assert turn.drift["basis"] == "decoded barcode"
    assert stages.AV_DRIFT.key in turn.samples
    assert turn.absent == {}
    assert turn.timing["ttfa_ms"] == 457.0
    assert {stages.PERCEIVED_TTFA.key, stages.PERCEIVED_TTFV.key} <= turn.values().keys()
    assert {stages.SESSION_CREATE.key, stages.WEBRTC_FIRST_FRAME.key} == (
        session.report.values().keys()
    )
    assert session.cleanup_error is None


def test_a_turn_without_decoding():
    asked = []

    async def nothing_told(session, seconds):
        asked.append((session, seconds))

    async def run(standin):
        options = {"decode": False, "first_timestamps": nothing_told}
        async with connected(standin, **options) as session, session:
            return await session.turn(HELLO), session

    with running(answers=[answer(1.2)]) as standin:
        turn, session = asyncio.run(run(standin))
    assert turn.outcome is Outcome.COMPLETED
    assert stages.CLIENT_FIRST_AUDIO in turn.marks
    assert stages.PLAYBACK_FPS.key in turn.samples
    # Nobody told what is the first talking frame: at most it is guessed, and then it says so.
    assert turn.drift["basis"] in ("frame sizes", "change only")
    ((of, seconds),) = asked
    assert of == session.report.session
    assert seconds > turn.marks[stages.CLIENT_SPEECH_ENDED]
    assert turn.media["video_loss_ratio"] == 0
    assert turn.media["audio_gaps"] >= 0
    assert session.media.frames > 10
    assert session.media.plis == 0
    assert session.cleanup_error is None


def test_figures_that_cannot_be_told_are_missing():
    with running(answers=[[]]) as standin:
        (turn,), _ = speak(standin, HELLO, limits=impatient_turns(accepted=0.5))
    assert "audio_gaps" not in turn.media
    assert stages.FREEZES.key not in turn.samples


def test_pictures_that_are_late_at_the_server_show_as_sound_that_is_early():
    steps = [
        Say(0.05, "speech.started", {"text": TEXT}),
        Say(0.05, "speech.media_started", sound=1.5, pictures_late=0.3),
        Say(0.1, "speech.ended", {"text": TEXT}),
    ]
    with running(answers=[steps]) as standin:
        (turn,), _ = speak(standin, HELLO)
    # Real sender, real clocks: the sign and the size, within what a busy machine adds.
    assert 150 < turn.drift["onset_ms"] < 600
    assert 150 < turn.samples[stages.AV_DRIFT.key] < 600


def test_the_exporter_hears_session_turn_and_every_event_in_order():
    sink = Sink()
    with running() as standin:
        speak(standin, HELLO, sink=sink, phase=Phase.WARMUP)
    created, complete, closed = sink.of(SessionMarks)
    assert [created.outcome, complete.outcome, closed.outcome] == [None, None, "completed"]
    assert created.marks.keys() == {stages.SESSION_REQUESTED, stages.SESSION_CREATED}
    assert complete.marks.keys() > created.marks.keys()
    (opened,), (turn,) = sink.of(TurnOpened), sink.of(TurnMarks)
    assert (opened.turn, opened.phase, opened.input) == (turn.turn, "warmup", "text")
    assert opened.started_unix == turn.started_unix
    order = [type(r) for r in sink.records]
    assert order.index(TurnOpened) < order.index(RelayedEvent) < order.index(TurnMarks)
    assert [e.event for e in sink.of(RelayedEvent)] == [
        "speech.started",
        "speech.media_started",
        "speech.timing",
        "speech.ended",
    ]
    assert sink.of(RelayedEvent)[0].data["text"] == TEXT


def test_the_session_is_created_without_knowledge_base_and_agent():
    with running() as standin:
        speak(standin)
    assert standin.bodies["create"] == {
        "avatar_id": "testbot",
        "model": "mock",
        "knowledge_enabled": False,
        "agent_enabled": False,
    }


def test_idle_frames_between_turns_are_not_talking():
    with running() as standin:
        turns, _ = speak(standin, HELLO, HELLO)
    assert [t.turn for t in turns] == ["1", "2"]
    for turn in turns:
        first_frame = turn.marks[stages.CLIENT_FIRST_TALKING_FRAME]
        # An idle frame taken for a talking one would be at most 40 ms after the input.
        assert first_frame > 0.08


def test_speech_is_streamed_and_its_transcript_marked():
    pcm = bytes(range(256)) * 40
    with running() as standin:
        (turn,), _ = speak(standin, SpeechInput(pcm))
    assert standin.speech == pcm
    assert turn.outcome is Outcome.COMPLETED
    assert turn.input == "speech"
    # Four messages, 100 ms apart; the turn's zero is the last.
    assert turn.marks[stages.USER_SPEECH_STARTED] < -0.29
    assert turn.marks[stages.INPUT] == 0.0
    assert turn.marks[stages.ASR_FINAL] > 0
    assert stages.ASR_FINAL_LATENCY.key in turn.values()


def test_a_recording_is_uploaded():
    with running() as standin:
        (turn,), _ = speak(standin, UploadInput(b"RIFF...", "hello.wav"))
    assert turn.outcome is Outcome.COMPLETED
    assert turn.input == "audio_upload"
    assert b"RIFF..." in standin.bodies["speak"]


# --- turns that go wrong ---------------------------------------------------------------------


def test_an_input_that_vanishes_is_counted_as_vanished():
    with running(answers=[[]]) as standin:
        (turn,), _ = speak(standin, HELLO, limits=impatient_turns(accepted=0.5))
    assert turn.outcome is Outcome.VANISHED
    assert "no event" in turn.error.message


def test_an_error_event_ends_the_turn_at_once():
    steps = [
        Say(0.05, "speech.started", {"text": TEXT}),
        Say(0.05, "error", {"code": "SPEAK_FAILED", "message": "synthetic inference failure"}),
        Say(600.0, "speech.ended", {}),
    ]
    with running(answers=[steps]) as standin:
        (turn,), _ = speak(standin, HELLO)
    assert turn.outcome is Outcome.FAILED
    assert turn.error.code == "SPEAK_FAILED"
    assert turn.error.message == "synthetic inference failure"
    assert stages.CLIENT_SPEECH_ENDED not in turn.marks


def test_a_recorded_answer_of_a_server_whose_tts_is_down():
    steps = [
        Say(0.02, event, data)
        for _, event, data in sse_events("err_tts_down.sse.txt")
        if event.startswith("speech.")
    ]
    with running(answers=[steps]) as standin:
        (turn,), _ = speak(standin, HELLO)
    assert turn.outcome is Outcome.FAILED
    assert turn.error.code == "NO_AUDIO"
    assert "TTS" in turn.error.message


def test_media_that_is_announced_and_does_not_arrive():
    steps = [Say(s.after, s.event, s.data) for s in answer()]
    with running(answers=[steps]) as standin:
        (turn,), _ = speak(standin, HELLO, limits=impatient_turns(media=0.5))
    assert turn.outcome is Outcome.NO_MEDIA


def test_a_failed_turn_is_stopped_before_the_next_input():
    noisy = [*answer(2.0)[:2], Say(0.1, "error", {"code": "SPEAK_FAILED", "message": "x"})]
    with running(answers=[noisy, answer()]) as standin:
        turns, _ = speak(standin, HELLO, HELLO)
    assert [t.outcome for t in turns] == [Outcome.FAILED, Outcome.COMPLETED]
    assert any("interrupt" in r for r in standin.requests)
    # Sound left over from the first answer would be there at once.
    assert turns[1].marks[stages.CLIENT_FIRST_AUDIO] > 0.08


def test_a_refused_input_is_a_failed_turn():
    with running(speak_answer=refusal(400, "unknown TTS provider")) as standin:
        (turn,), _ = speak(standin, HELLO)
    assert turn.outcome is Outcome.FAILED
    assert "unknown TTS provider" in turn.error.message
    assert "HTTP 400" in turn.error.message


def test_speech_that_cannot_be_transcribed_is_a_failed_turn():
    with running(transcript={"error": "未能识别有效语音，请重试。"}) as standin:
        (turn,), _ = speak(standin, SpeechInput(bytes(6_400)))
    assert turn.outcome is Outcome.FAILED
    assert "未能识别有效语音" in turn.error.message


def test_an_interrupted_answer():
    async def run(standin):
        async with connected(standin) as session, session:
            turn = asyncio.create_task(session.turn(HELLO))
            await asyncio.sleep(0.4)
            await session.interrupt()
            return await turn

    with running(answers=[answer(5.0)[:2]]) as standin:
        turn = asyncio.run(run(standin))
    assert turn.outcome is Outcome.INTERRUPTED
    assert turn.error is None


def test_a_lost_event_stream_ends_turn_and_session():
    with running(answers=[answer()[:1]], end_events_after=1.0) as standin:

        async def run():
            async with connected(standin) as session, session:
                turn = await session.turn(HELLO)
                with pytest.raises(TargetError):
                    await session.turn(HELLO)
                return turn, session.trouble

        turn, trouble = asyncio.run(run())
    assert turn.outcome is Outcome.FAILED
    assert trouble.cause is Cause.STREAM_LOST
    assert standin.deleted


def test_a_connection_that_the_target_closes_ends_turn_and_session():
    steps = [*answer(5.0)[:2], Say(0.2, hang_up=True)]
    with running(answers=[steps]) as standin:
        (turn,), session = speak(standin, HELLO)
    assert turn.outcome is Outcome.FAILED
    assert session.trouble.cause is Cause.CONNECTION_LOST
    assert standin.deleted


def test_one_turn_at_a_time():
    async def run(standin):
        async with connected(standin) as session, session:
            first = asyncio.create_task(session.turn(HELLO))
            await asyncio.sleep(0.1)
            with pytest.raises(RuntimeError):
                await session.turn(HELLO)
            await first

    with running() as standin:
        asyncio.run(run(standin))


# --- sessions that do not open ---------------------------------------------------------------


def test_a_session_that_waits_in_the_queue():
    heard = []
    news = [{"position": 2, "message": "waiting"}, {"position": 0, "message": "slot_acquired"}]
    states = ["created", "created", "created", "worker_ready"]

    async def run(standin):
        async with connected(standin, on_queued=lambda *n: heard.append(n)) as session, session:
            pass

    with running(states=states, queue_news=news) as standin:
        asyncio.run(run(standin))
    assert heard == [(2, "waiting")]


def test_a_full_queue_is_named():
    news = [{"position": -1, "message": "queue_full"}]
    with running(states=["created", "error"], queue_news=news) as standin:
        error = opening_fails(standin)
    assert error.cause is Cause.REFUSED
    assert "queue_full" in str(error)
    assert standin.deleted == 1


def test_a_session_that_is_never_ready():
    with running(states=["created"]) as standin:
        error = opening_fails(standin, impatient(ready=1.0))
    assert error.cause is Cause.TIMEOUT
    assert "not ready within 1 s" in str(error)
    assert standin.deleted == 1


def test_a_session_that_cannot_be_created():
    unready = refusal(503, "Session worker did not become ready in time.")
    with running(create_answer=unready) as standin:
        error = opening_fails(standin)
    assert error.status == 503
    assert "did not become ready" in str(error)
    assert standin.deleted == 0


def test_an_offer_that_is_never_answered():
    with running(offer_after=60.0) as standin:
        error = opening_fails(standin, impatient(offer=1.0))
    assert error.cause is Cause.TIMEOUT
    assert "webrtc/offer" in str(error)
    assert standin.deleted == 1


def test_media_that_cannot_be_reached():
    with running(unreachable_media=True) as standin:
        error = opening_fails(standin, impatient(connected=1.0))
    assert error.cause is Cause.CONNECTION_LOST
    assert standin.deleted == 1


def test_a_connection_without_pictures():
    sink = Sink()
    with running(video=False) as standin:
        error = opening_fails(standin, impatient(first_frame=1.0), sink)
    assert error.cause is Cause.NO_MEDIA
    assert standin.deleted == 1
    told = sink.of(SessionMarks)[-1]
    assert told.outcome == "failed"
    assert told.absent == {stages.CLIENT_FIRST_FRAME: str(error)}


# --- the session is always deleted -----------------------------------------------------------


@pytest.mark.parametrize(
    ("slow", "asked"),
    [
        ({"create_after": 1.0}, "POST /sessions"),
        ({"states": ["created"]}, "GET /sessions/"),
        ({"offer_after": 30.0}, "/webrtc/offer"),
        ({"video": False}, "/webrtc/offer"),
        ({"answers": [answer()[:1]]}, "/speak"),
    ],
    ids=["creating", "getting ready", "offering", "connecting", "speaking"],
)
def test_it_is_deleted_when_cancelled_while(slow, asked):
    async def run(standin):
        async def use():
            async with connected(standin) as session, session:
                await session.turn(HELLO)

        task = asyncio.create_task(use())
        await until(lambda: any(asked in request for request in standin.requests))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with running(**slow) as standin:
        asyncio.run(run(standin))
    assert standin.deleted == 1


def test_it_is_deleted_when_the_user_of_the_session_fails():
    async def run(standin):
        async with connected(standin) as session, session:
            raise ZeroDivisionError

    with running() as standin, pytest.raises(ZeroDivisionError):
        asyncio.run(run(standin))
    assert standin.deleted == 1


def test_closing_goes_on_when_it_is_cancelled_itself():
    async def run(standin):
        async with connected(standin) as session:
            await session.open()
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await session.close()

    with running() as standin:
        asyncio.run(run(standin))
    assert standin.deleted == 1


def test_a_deletion_that_fails_is_tried_once_more():
    with running(delete_answers=[refusal(500, "redis is gone")]) as standin:
        _, session = speak(standin)
    assert standin.deleted == 2
    assert session.cleanup_error is None


def test_a_deletion_that_keeps_failing_is_told():
    gone = [refusal(500, "redis is gone") for _ in range(2)]
    with running(delete_answers=gone) as standin:
        _, session = speak(standin)
    assert standin.deleted == 2
    assert "redis is gone" in str(session.cleanup_error)


def test_a_session_that_is_gone_already_counts_as_deleted():
    with running(delete_answers=[refusal(404, "session not found")]) as standin:
        _, session = speak(standin)
    assert standin.deleted == 1
    assert session.cleanup_error is None


# --- interrupts and refusals -------------------------------------------------------------------


def talk(standin, **how):
    async def run():
        async with connected(standin) as session, session:
            return await session.turn(HELLO, **how), session

    return asyncio.run(run())


def test_an_answer_is_interrupted_when_so_much_of_it_has_been_heard():
    # Sound for 20 s is queued at once; only an interrupt ends it early.
    steps = [
        Say(0.05, "speech.started", {"text": TEXT}),
        Say(0.05, "speech.media_started", sound=20.0),
    ]
    with running(answers=[steps]) as standin:
        turn, _ = talk(standin, interrupt_after=0.5)
    assert turn.outcome is Outcome.INTERRUPTED
    heard = turn.marks[stages.CLIENT_INTERRUPTED] - turn.marks[stages.CLIENT_FIRST_AUDIO]
    assert 0.5 <= heard < 10
    assert turn.marks[stages.CLIENT_SILENT] >= turn.marks[stages.CLIENT_INTERRUPTED]
    # The stand-in falls silent at once.
    assert 0 <= turn.values()[stages.INTERRUPT_LATENCY.key] < 5_000


def test_an_answer_that_ends_before_its_interrupt_is_a_completed_turn():
    with running(answers=[answer(0.4)]) as standin:
        turn, _ = talk(standin, interrupt_after=30.0)
    assert turn.outcome is Outcome.COMPLETED
    assert not any("interrupt" in request for request in standin.requests)
    assert stages.CLIENT_INTERRUPTED not in turn.marks


def test_the_pause_that_a_refused_input_asks_for_is_kept():
    busy = JSONResponse({"detail": "slow down"}, status_code=429, headers={"Retry-After": "7"})
    with running(speak_answer=busy) as standin:
        turn, session = talk(standin)
    assert turn.outcome is Outcome.FAILED
    assert session.retry_after == 7


def test_the_id_is_told_even_when_the_creation_is_given_up():
    told = []

    async def run(standin):
        async with connected(standin, on_created=told.append) as session:
            opening = asyncio.create_task(session.open())
            await until(lambda: "POST /sessions" in standin.requests)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening

    with running(create_after=0.3) as standin:
        asyncio.run(run(standin))
    assert told == [SESSION]
    assert standin.deleted == 1
