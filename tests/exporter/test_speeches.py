"""The latest speech of each session, as the agent told."""

from __future__ import annotations

from exporter.observations import PipelineReported, TargetStarted
from exporter.speeches import LatestSpeeches
from exporter.stages import Outcome


def told(session, *, video=1, audio=2, entered=10.0):
    return PipelineReported(
        at=entered + 1,
        session=session,
        entered=entered,
        marks={},
        outcome=Outcome.COMPLETED,
        first_video=video,
        first_audio=audio,
    )


def test_the_latest_speech_counts():
    speeches = LatestSpeeches()
    speeches.feed(told("a", video=5, audio=6))
    speeches.feed(told("a", video=7, audio=8, entered=20.0))
    speeches.feed(TargetStarted(30.0))
    assert speeches.of("a") == (20.0, 7, 8)
    assert speeches.of("b") is None


def test_a_speech_without_timestamps_hides_the_one_before():
    speeches = LatestSpeeches()
    speeches.feed(told("a"))
    speeches.feed(told("a", video=None, entered=20.0))
    assert speeches.of("a") is None


def test_sessions_are_forgotten_after_thousands_of_others():
    speeches = LatestSpeeches()
    for number in range(2_001):
        speeches.feed(told(str(number)))
    assert speeches.of("0") is None
    assert speeches.of("2000") is not None
