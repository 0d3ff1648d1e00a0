import pytest

from exporter import stages, upstream
from exporter.live import SILENT_S, LiveSessions, SessionState
from exporter.observations import SessionSeen, TargetEvent
from exporter.stages import Outcome, Source
from tests.exporter import example
from tests.recordings import sse_events

IDLE, SPEAKING, QUEUED = SessionState.IDLE, SessionState.SPEAKING, SessionState.QUEUED


def event(name, session="s", at=1.0, **data):
    return TargetEvent(at, Source.BUS, session, name, data)


def finished(value, session="s", stage=stages.AV_DRIFT):
    return example.turn(session=session, values={} if value is None else {stage.key: value})


@pytest.fixture
def live():
    return LiveSessions()


def test_a_session_speaks_between_its_events(live):
    live.feed(event(upstream.SPEECH_STARTED))
    assert live.counts() == {QUEUED: 0, IDLE: 0, SPEAKING: 1}
    live.feed(event(upstream.SPEECH_ENDED))
    assert live.counts() == {QUEUED: 0, IDLE: 1, SPEAKING: 0}
    assert (live.seen, live.speeches) == (1, 1)


def test_a_session_whose_turn_was_given_up_does_not_speak(live):
    live.feed(event(upstream.SPEECH_STARTED))
    live.finished(example.turn(session="s", outcome=Outcome.INCOMPLETE))
    live.finished(example.turn(session="never seen", outcome=Outcome.INCOMPLETE))
    assert live.counts() == {QUEUED: 0, IDLE: 1, SPEAKING: 0}


def test_a_speech_that_interrupts_another_is_no_new_transition(live):
    for _ in range(2):
        live.feed(event(upstream.SPEECH_STARTED))
    assert live.speeches == 1


def test_a_session_that_waits_is_not_open(live):
    live.feed(event(upstream.SESSION_QUEUED, session="waits", position=2))
    live.feed(event(upstream.SPEECH_STARTED, session="speaks"))
    live.feed(event(upstream.SPEECH_ENDED, session="listens"))
    assert live.open == 2


def test_a_queued_session_waits_until_its_position_is_zero(live):
    live.feed(event(upstream.SESSION_QUEUED, position=2, message="waiting"))
    assert live.counts()[QUEUED] == 1
    live.feed(event(upstream.SESSION_QUEUED, position=0, message="slot_acquired"))
    assert live.counts()[IDLE] == 1


@pytest.mark.parametrize(
    "end",
    [
        SessionSeen(2.0, "s", outcome=Outcome.COMPLETED),
        SessionSeen(2.0, "s", state="closed"),
        event(upstream.SESSION_EXPIRED, at=2.0),
    ],
)
def test_a_closed_session_is_gone_and_late_news_does_not_bring_it_back(live, end):
    live.feed(event(upstream.SPEECH_STARTED))
    live.feed(end)
    live.feed(event(upstream.SPEECH_ENDED, at=3.0))
    assert sum(live.counts().values()) == 0
    assert live.seen == 1


def test_a_silent_session_is_forgotten(live):
    live.feed(event(upstream.SPEECH_STARTED, "old", at=0.0))
    live.feed(event(upstream.SPEECH_STARTED, "new", at=SILENT_S))
    live.tick(SILENT_S + 1.0)
    assert live.counts()[SPEAKING] == 1


@pytest.mark.parametrize(
    ("stage", "told", "worst", "middle"),
    [
        (stages.AV_DRIFT, (20.0, -130.0, 5.0, None), -0.130, 0.005),
        (stages.PLAYBACK_FPS, (25.0, 12.0, 24.0, None), 12.0, 24.0),
        (stages.RENDER_FPS, (100.0, 90.0, 400.0, None), 90.0, 100.0),
        (stages.STEADY_CHUNK, (60.0, 500.0, 61.0, None), 0.5, 0.061),
    ],
    ids=lambda value: getattr(value, "key", ""),
)
def test_the_worst_is_the_worst_for_a_viewer(live, stage, told, worst, middle):
    assert live.last(stage) is None
    for session, value in zip("abcd", told, strict=True):
        live.feed(event(upstream.SPEECH_STARTED, session))
        live.finished(finished(value, session, stage))
    assert live.last(stage) == pytest.approx((worst, middle))


def test_a_turn_without_a_value_leaves_the_last_one(live):
    live.feed(event(upstream.SPEECH_STARTED))
    live.finished(finished(20.0))
    live.finished(finished(None))
    assert live.last(stages.AV_DRIFT) == (0.02, 0.02)


def test_the_values_of_a_closed_session_are_withdrawn(live):
    live.feed(event(upstream.SPEECH_STARTED))
    live.finished(finished(20.0))
    live.feed(SessionSeen(2.0, "s", outcome=Outcome.COMPLETED))
    assert live.last(stages.AV_DRIFT) is None


def test_a_turn_of_a_session_that_is_gone_does_not_bring_it_back(live):
    live.finished(finished(20.0))
    assert live.last(stages.AV_DRIFT) is None
    assert sum(live.counts().values()) == 0


def test_a_recording_ends_idle(live):
    for at, name, data in sse_events("split_mock.sse.txt"):
        live.feed(TargetEvent(at, Source.SSE, data.get("session_id", "-"), name, data))
    starts = sum(n == upstream.SPEECH_STARTED for _, n, _ in sse_events("split_mock.sse.txt"))
    assert live.speeches == starts
    assert live.counts()[SPEAKING] == 0
