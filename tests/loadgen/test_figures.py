"""Statistics, freezes, playout and bandwidth against values worked out by hand."""

from __future__ import annotations

import pytest

from loadgen.media.bitrate import BandwidthEstimator
from loadgen.media.freezes import FreezeDetector
from loadgen.media.load import ReceiveLoad
from loadgen.media.playout import listen
from loadgen.media.statistics import SourceStatistics, jitter_s

# --- RFC 3550 --------------------------------------------------------------------------------


def counted(packets, clock_hz=90_000):
    statistics = SourceStatistics(clock_hz)
    for sequence, timestamp, arrival in packets:
        statistics.add(sequence, timestamp, 100, arrival)
    return statistics


def test_loss_is_what_sequence_numbers_promise_less_what_came():
    statistics = counted((n, n * 3_600, n * 0.04) for n in range(100) if n % 10 != 5)
    assert (statistics.expected, statistics.packets, statistics.lost) == (100, 90, 10)
    assert statistics.fraction_lost() == 10 * 256 // 100
    # Nothing came since.
    assert statistics.fraction_lost() == 0


def test_counting_goes_on_across_the_wrap_and_with_stragglers():
    numbers = [65_534, 0, 65_535, 1, 2]
    statistics = counted((n % 65_536, 0, 0.0) for n in numbers)
    assert (statistics.expected, statistics.lost) == (5, 0)
    assert statistics.highest == 65_536 + 2


def test_jitter_is_a_sixteenth_of_each_deviation():
    # Arrivals deviate from the media clock by +8, then 0 ms against the packet before.
    statistics = counted([(0, 0, 0.0), (1, 3_600, 0.048), (2, 7_200, 0.088)])
    first = 0.008 / 16
    assert statistics.jitter_s == pytest.approx(first - first / 16)
    assert statistics.jitter_units == int(statistics.jitter_s * 90_000)


def test_packets_of_one_picture_and_pauses_are_no_jitter():
    statistics = counted([(0, 0, 0.0), (1, 0, 0.003), (2, 3_600, 0.04)])
    assert statistics.jitter_s == pytest.approx(0)
    paused = counted([(0, 0, 0.0), (1, 960, 5.0), (2, 1_920, 5.02)], clock_hz=48_000)
    assert paused.jitter_s == pytest.approx(0)


def test_jitter_of_a_speech():
    assert jitter_s([(0.0, 0.0)]) is None
    assert jitter_s([(0.0, 0.0), (0.048, 0.04)]) == pytest.approx(0.0005)


# --- freezes ---------------------------------------------------------------------------------


def freezes(*durations):
    detector = FreezeDetector()
    at = 0.0
    detector.show(at)
    for duration in durations:
        at += duration
        detector.show(at)
    return detector


@pytest.mark.parametrize(
    ("usual", "long", "frozen"),
    [
        (0.04, 0.189, False),  # d + 150 ms is more than 3 d
        (0.04, 0.191, True),
        (0.1, 0.299, False),  # 3 d is more than d + 150 ms
        (0.1, 0.301, True),
    ],
)
def test_a_freeze_by_the_w3c_threshold(usual, long, frozen):
    detector = freezes(*[usual] * 30, long)
    assert detector.count == int(frozen)
    assert detector.seconds == pytest.approx(long if frozen else 0.0)


def test_only_the_last_thirty_pictures_are_averaged():
    # The mean is 40 ms again, whatever was before.
    assert freezes(*[0.2] * 40, *[0.04] * 30, 0.2).count == 1
    assert freezes(*[0.04] * 30, *[0.2] * 30, 0.2).count >= 1


def test_nothing_is_a_freeze_before_there_is_a_usual_duration():
    assert freezes(0.04, 3.0).count == 0


def test_the_longest_gap():
    assert freezes(0.04, 0.5, 0.04).longest_gap == pytest.approx(0.5)
    assert FreezeDetector().longest_gap is None


# --- playout ---------------------------------------------------------------------------------


def sounds(count=50, *, lost=(), late=None):
    late = late or {}
    return [(n * 0.02 + late.get(n, 0.0), n * 0.02) for n in range(count) if n not in lost]


def test_sound_on_time_has_no_gaps():
    assert listen(sounds(), 0.02) == listen(sounds(late={7: 0.079}), 0.02)
    assert listen(sounds(), 0.02).concealed_s == 0


def test_a_lost_packet_is_concealed():
    heard = listen(sounds(lost={10, 11, 30}), 0.02)
    assert (heard.gaps, heard.concealed_s) == (2, pytest.approx(0.06))


def test_sound_that_comes_too_late_is_waited_for_once():
    # From packet 20 on all is 300 ms late, of which the buffer takes 80.
    heard = listen(sounds(late=dict.fromkeys(range(20, 50), 0.3)), 0.02)
    assert (heard.gaps, heard.concealed_s) == (1, pytest.approx(0.22))


def test_silence_that_nobody_sent_has_no_gaps():
    assert listen([], 0.02).gaps == 0


# --- bandwidth -------------------------------------------------------------------------------


def estimates(transit, seconds=20.0, size=5_000):
    """What is estimated of 1 Mbit/s whose packets take `transit(t)` seconds."""
    estimator = BandwidthEstimator()
    told = []
    for n in range(round(seconds * 25)):
        sent = 60.0 + n / 25
        estimate = estimator.add(
            int(sent * (1 << 18)) & 0xFFFFFF, 1_000.0 + sent + transit(n / 25), size
        )
        if estimate is not None:
            told.append(estimate)
    return told


def test_an_easy_path_is_estimated_ever_higher_up_to_half_as_much_again():
    told = estimates(lambda t: 0.02)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.5e6, rel=0.05)


def test_a_queue_that_builds_up_lowers_the_estimate_below_what_arrives():
    told = estimates(lambda t: 0.02 + max(0.0, t - 10.0) * 0.05)
    assert min(told) < 0.9e6


def test_a_single_late_picture_is_no_queue():
    told = estimates(lambda t: 0.3 if 10.0 <= t < 10.1 else 0.02)
    assert min(told[-8:]) > 1e6


# --- load ------------------------------------------------------------------------------------


def test_a_window_of_load_holds_what_happened_since_the_last():
    load = ReceiveLoad()
    load.note(0.0, 10, 0)
    load.note(0.02, 5, 3)
    window = load.take()
    assert (window.delays_s, window.packets, window.dropped) == ([0.0, 0.02], 15, 3)
    assert load.take().delays_s == []
