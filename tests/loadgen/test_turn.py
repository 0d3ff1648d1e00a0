"""When a turn is over and how it ended: the rules alone, on a clock of their own."""

from __future__ import annotations

import math

import pytest

from exporter.stages import Outcome
from loadgen.sse import Event
from loadgen.turn import TurnLimits, TurnWatch
from tests.recordings import sse_events

LIMITS = TurnLimits(accepted=15.0, media=5.0, quiet=0.6, transcript=60.0, turn=180.0)


def event(name, at, **data):
    return Event(name, data, at, 0.0)


def watch(*events, accepted=0.1):
    turn = TurnWatch(0.0, LIMITS)
    if accepted is not None:
        turn.accepted(accepted)
    for one in events:
        turn.on_event(one)
    return turn


def falls(turn, first=None, last=None):
    """(when, how) the turn ends if nothing more happens."""
    at, verdict = turn.pending(first_audio=first, last_audio=last)
    return at, verdict.outcome


STARTED = event("speech.started", 0.2, text="Hi")
PLAYS = event("speech.media_started", 0.8)
ENDED = event("speech.ended", 2.3, text="Hi there")
CUT_OFF = event("speech.ended", 2.3)


def test_playback_outlasts_generation():
    turn = watch(STARTED, PLAYS, ENDED)
    assert falls(turn, first=0.9, last=2.2) == (pytest.approx(2.9), Outcome.COMPLETED)
    assert falls(turn, first=0.9, last=8.9) == (pytest.approx(9.5), Outcome.COMPLETED)


def test_a_pause_within_the_answer_does_not_end_it():
    assert falls(watch(STARTED, PLAYS), first=0.9, last=1.0) == (180.0, Outcome.TIMEOUT)


def test_an_accepted_input_without_an_event_vanishes():
    assert falls(watch()) == (pytest.approx(15.1), Outcome.VANISHED)


def test_nothing_vanishes_before_it_was_accepted():
    assert falls(watch(accepted=None)) == (180.0, Outcome.TIMEOUT)


def test_a_slow_language_model_is_waited_for():
    assert falls(watch(STARTED)) == (180.0, Outcome.TIMEOUT)


def test_playback_without_packets():
    assert falls(watch(STARTED, PLAYS)) == (pytest.approx(5.8), Outcome.NO_MEDIA)
    assert falls(watch(STARTED, PLAYS, ENDED)) == (pytest.approx(5.8), Outcome.NO_MEDIA)


def test_an_end_without_sound_is_a_failure_after_a_moment_of_grace():
    # RTP may come after the event that was published later.
    at, outcome = falls(watch(STARTED, ENDED))
    assert (at, outcome) == (pytest.approx(2.9), Outcome.FAILED)


def test_an_end_without_text_is_an_interruption():
    assert falls(watch(STARTED, PLAYS, CUT_OFF), 0.9, 2.2) == (2.9, Outcome.INTERRUPTED)
    assert falls(watch(STARTED, CUT_OFF)) == (pytest.approx(2.9), Outcome.INTERRUPTED)


def test_the_late_end_of_an_earlier_answer_is_not_this_ones():
    turn = watch(CUT_OFF)
    assert falls(turn)[1] is Outcome.VANISHED
    assert turn.ended_at is None


def test_an_error_ends_it_at_once_with_the_targets_own_words():
    turn = watch(STARTED, PLAYS, event("error", 1.5, code="SPEAK_FAILED", message="no GPU"))
    at, verdict = turn.pending(first_audio=0.9, last_audio=1.4)
    assert at == -math.inf
    assert verdict.failure is not None
    assert (verdict.failure.code, verdict.failure.message) == ("SPEAK_FAILED", "no GPU")


def test_an_expired_session_fails_its_turn():
    turn = watch(STARTED, event("session.expired", 1.0, message="session_expired"))
    assert falls(turn) == (-math.inf, Outcome.FAILED)


def test_sound_that_never_falls_silent_meets_the_limit_of_the_turn():
    assert falls(watch(STARTED, PLAYS, ENDED), first=0.9, last=179.9) == (180.0, Outcome.TIMEOUT)


def replayed(name):
    """The verdict on a recording's first speech, without any sound."""
    turn = None
    for at, event_name, data in sse_events(name):
        if event_name == "speech.started" and turn is None:
            turn = TurnWatch(at, LIMITS)
            turn.accepted(at)
        if turn is not None:
            turn.on_event(Event(event_name, data, at, at))
            if event_name in ("speech.ended", "error"):
                break
    return turn


def test_recorded_failures():
    failed = replayed("err_omnirt_fail.sse.txt")
    assert falls(failed) == (-math.inf, Outcome.FAILED)
    silent = replayed("err_tts_down.sse.txt")
    assert falls(silent)[1] is Outcome.FAILED
    # LLM down: an apology is spoken, and nothing says that it is one.
    sorry = replayed("err_llm_down.sse.txt")
    assert falls(sorry, first=sorry.ended_at, last=sorry.ended_at)[1] is Outcome.COMPLETED
