import pytest

from exporter import stages, upstream
from exporter.live import SILENT_S, LiveSessions, SessionState
from exporter.observations import ClockBasis, SessionSeen, TargetEvent, TurnOpened, TurnReported
from exporter.stages import InputKind, Outcome, Source
from tests.recordings import sse_events

IDLE, SPEAKING, QUEUED = SessionState.IDLE, SessionState.SPEAKING, SessionState.QUEUED


def event(name, session="s", at=1.0, **data):
    return TargetEvent(at, Source.BUS, session, name, data)


def reported(drift_ms, session="s", at=1.0):
    opened = TurnOpened(at, session, "1", at, InputKind.TEXT, None, ClockBasis(0.0, 0.0))
    samples = {} if drift_ms is None else {stages.AV_DRIFT.key: drift_ms}
    return TurnReported(opened, marks={}, outcome=Outcome.COMPLETED, samples=samples)


@pytest.fixture
def live():
    return LiveSessions()


def test_a_session_speaks_between_its_events(live):
    live.feed(event(upstream.SPEECH_STARTED))
    assert live.counts() == {QUEUED: 0, IDLE: 0, SPEAKING: 1}
    live.feed(event(upstream.SPEECH_ENDED))
    assert live.counts() == {QUEUED: 0, IDLE: 1, SPEAKING: 0}
    assert (live.seen, live.speeches) == (1, 1)


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


def test_the_worst_drift_keeps_its_sign(live):
    assert live.drifts() is None
    for session, drift in (("a", 20.0), ("b", -130.0), ("c", 5.0), ("d", None)):
        live.feed(reported(drift, session))
    assert live.drifts() == pytest.approx((-0.130, 0.005))


def test_the_drift_of_a_closed_session_is_withdrawn(live):
    live.feed(reported(20.0))
    live.feed(SessionSeen(2.0, "s", outcome=Outcome.COMPLETED))
    assert live.drifts() is None


def test_a_recording_ends_idle(live):
    for at, name, data in sse_events("split_mock.sse.txt"):
        live.feed(TargetEvent(at, Source.SSE, data.get("session_id", "-"), name, data))
    starts = sum(n == upstream.SPEECH_STARTED for _, n, _ in sse_events("split_mock.sse.txt"))
    assert live.speeches == starts
    assert live.counts()[SPEAKING] == 0
