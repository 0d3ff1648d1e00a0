"""Against lines whose slope is known, and an interval computed by hand."""

import random

import pytest

from exporter import gauges
from exporter.forecast import MemoryForecast, NoForecastError, fit
from exporter.observations import Reading, Readings

GIB = 2.0**30


def test_a_straight_line_is_found_exactly():
    growth = fit({n: 2 * GIB + n * GIB for n in range(1, 6)}, total=24 * GIB)
    assert growth.per_session.bounds() == pytest.approx(
        {"estimate": GIB, "lower": GIB, "upper": GIB}
    )
    assert growth.sessions_fit.estimate == 22
    assert growth.points == 5


def test_the_interval_is_that_of_the_textbook():
    """x = 1..4, y = 2, 4, 5, 8: b = 1.9, s² = 0.35, Σ(x−x̄)² = 5, t(0.975, 2) = 4.303."""
    growth = fit({1: 2.0, 2: 4.0, 3: 5.0, 4: 8.0}, total=42.75)
    half = 4.303 * (0.35 / 5) ** 0.5
    assert growth.per_session.estimate == pytest.approx(1.9)
    assert growth.per_session.lower == pytest.approx(1.9 - half)
    assert growth.per_session.upper == pytest.approx(1.9 + half)
    # From the centroid (2.5, 4.75) there are 38 to go.
    assert growth.sessions_fit.estimate == 22
    assert growth.sessions_fit.lower == int(2.5 + 38 / (1.9 + half))
    assert growth.sessions_fit.upper == int(2.5 + 38 / (1.9 - half))


def test_the_interval_holds_the_true_slope_as_often_as_it_says():
    rng = random.Random(1)
    runs = 400
    held = 0
    for _ in range(runs):
        points = {n: 100.0 + 10.0 * n + rng.gauss(0, 3.0) for n in range(1, 9)}
        slope = fit(points, total=1e6).per_session
        held += slope.lower <= 10.0 <= slope.upper
    # 95 % of 400 is 380; five standard deviations of the count are 22.
    assert 358 <= held <= 400


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ({}, "different numbers of sessions, there are 0"),
        ({1: 1.0, 2: 2.0}, "a line takes memory at 3 different numbers of sessions, there are 2"),
        ({1: 5.0, 2: 5.0, 3: 5.0}, "does not grow"),
        ({1: 5.0, 2: 9.0, 3: 4.0, 4: 8.0}, "does not grow"),
        ({1: 9.0, 2: 8.0, 3: 7.0}, "does not grow"),
    ],
)
def test_data_that_do_not_allow_it_give_the_reason(points, reason):
    with pytest.raises(NoForecastError, match=reason):
        fit(points, total=100.0)


def memory(used, total=100.0, device="0", source="nvidia:memory"):
    labels = {"device": device}
    scoped = {**labels, "scope": "device", "group": "all"}
    readings = (
        Reading(gauges.VRAM_TOTAL.name, total, labels),
        Reading(gauges.VRAM_USED.name, used, scoped),
        Reading(gauges.VRAM_USED.name, 1e9, {**scoped, "scope": "process", "group": "other"}),
    )
    return Readings(1.0, source, readings)


def levels(readings):
    return {(r.name, r.labels["device"], r.labels["bound"]): r.value for r in readings.readings}


def fed(*steps):
    """A forecast that has seen (sessions, bytes used); and what it last told."""
    forecast, told = MemoryForecast(), None
    for sessions, used in steps:
        told = forecast.feed(memory(used), sessions) or told
    return forecast, told


UP = ((0, 5.0), (1, 20.0), (2, 30.0), (3, 40.0))


def test_the_model_that_the_first_session_loads_is_not_in_the_slope():
    _, told = fed(*UP)
    found = levels(told)
    assert found[(gauges.VRAM_PER_SESSION.name, "0", "estimate")] == pytest.approx(10.0)
    # (100 − 10) ÷ 10 = 9 sessions fit, of which 3 are live.
    assert found[(gauges.VRAM_SESSIONS_LEFT.name, "0", "estimate")] == 6


def test_the_highest_memory_with_a_number_of_sessions_is_its_point():
    _, told = fed(*UP[:3], (3, 31.0), (3, 40.0), (3, 38.0))
    assert levels(told)[(gauges.VRAM_PER_SESSION.name, "0", "estimate")] == pytest.approx(10.0)


def test_memory_that_closed_sessions_leave_behind_says_nothing():
    forecast, _ = fed(*UP, (2, 40.0), (1, 40.0), (0, 40.0))
    [found] = forecast.describe()["memory_forecast"]
    assert found["per_session_bytes"]["estimate"] == pytest.approx(10.0)
    assert found["points"] == 3


def test_a_target_that_starts_again_starts_a_new_line():
    forecast, _ = fed(*UP, (0, 5.0), (1, 50.0))
    assert forecast.describe()["memory_forecast"] == []
    assert forecast.describe()["memory_forecast_absent"] == (
        "device 0: a line takes memory at 3 different numbers of sessions, there are 1"
    )


def test_one_session_gives_no_forecast_and_no_series():
    forecast, told = fed((0, 5.0), (1, 20.0), (1, 21.0))
    assert told is None
    assert forecast.describe()["memory_forecast"] == []


def test_it_tells_only_what_is_new():
    forecast, _ = fed(*UP)
    assert forecast.feed(memory(40.0), 3) is None
    assert forecast.feed(memory(40.0), 2) is not None


def test_a_device_that_cannot_be_read_any_more_has_no_forecast():
    forecast, _ = fed(*UP)
    assert forecast.feed(Readings(2.0, "another"), 3) is None
    told = forecast.feed(Readings(2.0, "nvidia:memory"), 3)
    assert told is not None
    assert told.readings == ()


def test_every_device_has_its_own_line():
    forecast = MemoryForecast()
    told = None
    for sessions in (1, 2, 3):
        both = memory(10.0 * sessions).readings + memory(7.0, device="1").readings
        told = forecast.feed(Readings(1.0, "nvidia:memory", both), sessions) or told
    assert {device for _, device, _ in levels(told)} == {"0"}


def test_without_readings_it_says_so():
    described = MemoryForecast().describe()
    assert described == {"memory_forecast": [], "memory_forecast_absent": "no memory was read"}
