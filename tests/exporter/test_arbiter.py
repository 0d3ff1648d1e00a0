import pytest

from exporter import arbiter as module
from exporter import stages, upstream
from exporter.arbiter import HELD_S, SAME_EVENT_S, EventArbiter
from exporter.observations import TargetEvent
from exporter.stages import Source
from exporter.turns import TurnAssembler
from tests.recordings import sse_events

BUS, AGENT, SSE = Source.BUS, Source.AGENT, Source.SSE
STARTED, MEDIA = upstream.SPEECH_STARTED, upstream.SPEECH_MEDIA_STARTED
TIMING, ENDED = upstream.SPEECH_TIMING, upstream.SPEECH_ENDED

AWAY = "the bus is lost"
BACK = "the bus is back"


def event(source, name, at, session="s"):
    return TargetEvent(at, source, session, name, {"text": "x"} if name == ENDED else {})


def play(arbiter, script):
    """What counts of a script of (source, event, at), (AWAY, since) and (BACK, began, ended)."""
    counted = []
    for step in script:
        match step:
            case (str(what), since) if what == AWAY:
                counted += [(e.source, e.name, e.at) for e in arbiter.bus_lost(since)]
            case (str(what), began, ended) if what == BACK:
                arbiter.bus_returned(began, ended)
            case (source, name, at):
                if arbiter.take(event(source, name, at)):
                    counted.append(step)
    return counted


@pytest.mark.parametrize(
    ("script", "lost"),
    [
        pytest.param(
            [(BUS, STARTED, 10.0), (SSE, STARTED, 10.01), (BUS, ENDED, 12.0), (SSE, ENDED, 12.01)],
            {1, 3},
            id="the better source is believed while it is there",
        ),
        pytest.param(
            [(SSE, STARTED, 10.0), (BUS, STARTED, 10.01), (SSE, ENDED, 12.5), (BUS, ENDED, 12.6)],
            {1, 2},
            id="a better source takes over in the middle of a turn",
        ),
        pytest.param(
            [(SSE, STARTED, 10.0), (SSE, ENDED, 10.2), (AGENT, STARTED, 10.0),
             (AGENT, ENDED, 10.2)],
            {2, 3},
            id="a better source that comes in batches takes over",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (AWAY, 10.1), (SSE, STARTED, 10.02), (SSE, ENDED, 12.0)],
            {2},
            id="while the bus is away a relay counts, but not what the bus had brought",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (SSE, STARTED, 10.01), (SSE, MEDIA, 10.5), (SSE, ENDED, 12.0),
             (AWAY, 10.1)],
            {1},
            id="a dead bus is noticed late: what was relayed meanwhile counts then",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (AWAY, 10.1), (SSE, ENDED, 12.0), (BACK, 10.1, 12.4),
             (BUS, STARTED, 20.0), (SSE, STARTED, 20.01)],
            {5},
            id="when the bus is back it alone is believed",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (AWAY, 10.1), (BACK, 10.1, 12.4), (SSE, ENDED, 12.0)],
            set(),
            id="what a relay saw in the gap counts though it comes after the bus is back",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (AWAY, 10.1), (BACK, 10.1, 12.0), (SSE, ENDED, 12.1),
             (BUS, ENDED, 12.11)],
            {4},
            id="as the bus returns a relay may be ahead of it",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (AWAY, 10.1), (BACK, 10.1, 12.0), (BUS, ENDED, 12.1),
             (SSE, ENDED, 12.11)],
            {4},
            id="as the bus returns a relay may be behind it",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (AWAY, 10.1), (AGENT, ENDED, 12.0), (SSE, ENDED, 12.01),
             (AGENT, STARTED, 12.5), (SSE, STARTED, 12.51)],
            {3, 5},
            id="of two relays in the gap each event counts once",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (SSE, STARTED, 10.01), (AWAY, 10.1), (SSE, ENDED, 11.0),
             (SSE, STARTED, 11.2), (SSE, ENDED, 11.8), (SSE, STARTED, 12.0)],
            {1},
            id="short answers in a row are not taken for one",
        ),
        pytest.param(
            [(BUS, STARTED, 10.0), (AWAY, 10.1), (BACK, 10.1, 11.0), (BUS, ENDED, 11.5),
             (AWAY, 11.6), (SSE, STARTED, 13.0), (BACK, 11.6, 14.0), (BUS, ENDED, 15.9),
             (SSE, ENDED, 15.91)],
            {8},
            id="the bus goes twice",
        ),
    ],
)  # fmt: skip
def test_each_event_counts_once(script, lost):
    steps = [s for s in script if s[0] not in (AWAY, BACK)]
    counted = play(EventArbiter(), script)
    expected = [s for i, s in enumerate(script) if i not in lost and s in steps]
    assert sorted(counted, key=script.index) == expected


def test_sessions_are_judged_by_themselves():
    arbiter = EventArbiter()
    assert arbiter.take(event(BUS, STARTED, 10.0, "a"))
    assert arbiter.take(event(SSE, STARTED, 10.0, "b"))
    assert not arbiter.take(event(SSE, STARTED, 10.0, "a"))


def test_what_did_not_count_is_counted():
    arbiter = EventArbiter()
    play(arbiter, [(BUS, STARTED, 10.0), (SSE, STARTED, 10.01), (SSE, ENDED, 12.0), (AWAY, 10.1)])
    assert (arbiter.repeated, arbiter.recovered) == (2, 1)


def test_what_was_relayed_long_before_the_bus_was_lost_does_not_come_back():
    arbiter = EventArbiter()
    play(arbiter, [(BUS, STARTED, 10.0), (SSE, ENDED, 12.0), (SSE, STARTED, 13.0 + HELD_S)])
    assert [e.at for e in arbiter.bus_lost(11.0)] == [13.0 + HELD_S]
    assert arbiter.bus_lost(11.0) == []


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "SESSIONS_REMEMBERED", 10)
    arbiter = EventArbiter()
    for number in range(50):
        for step in range(100):
            arbiter.take(event(BUS, STARTED, 10.0 + step, f"s{number}"))
            arbiter.take(event(SSE, STARTED, 10.0 + step, f"s{number}"))
    assert len(arbiter._sessions) == 10
    for session in arbiter._sessions.values():
        assert len(session.recent) <= module.RECENT_OF_A_SESSION
        assert len(session.held) <= module.HELD_OF_A_SESSION


@pytest.mark.parametrize("lost_at", range(12))
@pytest.mark.parametrize("noticed_after", [0.0, 1.0, 12.0])
def test_a_recorded_session_that_a_client_relays_survives_a_bus_that_goes_and_comes(
    lost_at, noticed_after
):
    """The bus dies at any of a recording's events, and is back 5 s after it was noticed."""
    recording = [
        (at, name, data) for at, name, data in sse_events("split_mock.sse.txt") if name != "ping"
    ]
    first = next(i for i, (_, name, _) in enumerate(recording) if name == STARTED)
    died = recording[first + lost_at][0] + 0.001
    noticed, back = died + noticed_after, died + noticed_after + 5.0
    steps = []
    for at, name, data in recording:
        session = data.get("session_id", "-")
        if at < died or at > back:
            steps.append((at, TargetEvent(at, BUS, session, name, data)))
        steps.append((at + 0.01, TargetEvent(at + 0.01, SSE, session, name, data)))
    steps += [(noticed, AWAY), (back, BACK)]
    arbiter, assembler, counted, turns = EventArbiter(), TurnAssembler(), [], []
    for _, step in sorted(steps, key=lambda step: step[0]):
        if step == AWAY:
            counted += arbiter.bus_lost(died)
        elif step == BACK:
            arbiter.bus_returned(died, back)
        elif arbiter.take(step):
            counted.append(step)
    for seen in counted:
        turns += assembler.feed(seen)
    wanted = [name for _, name, _ in recording]
    assert sorted(e.name for e in counted) == sorted(wanted)
    assert len(turns) == wanted.count(STARTED)
    assert stages.Outcome.INCOMPLETE not in {t.outcome for t in turns}


def test_a_copy_that_comes_later_than_the_limit_is_another_event():
    arbiter = EventArbiter()
    script = [(BUS, ENDED, 10.0), (AWAY, 10.0), (SSE, ENDED, 10.0 + SAME_EVENT_S + 0.1)]
    assert len(play(arbiter, script)) == 2
