"""Intended starts: Poisson's, recorded ones, and another machine's clock."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from loadgen.load.arrivals import ArrivalsError, LeastDelay, parse


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process():
    arrivals = parse("poisson:4", random.Random(3))
    instants = arrivals.until(5_000.0)
    gaps = [b - a for a, b in pairwise(instants)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.25, rel=0.03)
    # An exponential distribution's deviation is its mean; even spacing would have none.
    deviation = math.sqrt(sum((g - mean) ** 2 for g in gaps) / len(gaps))
    assert deviation == pytest.approx(mean, rel=0.05)
    assert not arrivals.over


def test_asking_in_small_steps_tells_each_arrival_once():
    whole = parse("poisson:10", random.Random(5)).until(20.0)
    arrivals = parse("poisson:10", random.Random(5))
    steps = [instant for second in range(1, 21) for instant in arrivals.until(second)]
    assert steps == whole


def test_recorded_arrivals_are_taken_as_they_are(tmp_path):
    path = tmp_path / "arrivals.txt"
    path.write_text("# from last Monday\n0\n0.5\n0.5  # two at once\n\n3.25\n")
    arrivals = parse(str(path), random.Random(1))
    assert arrivals.until(0.5) == [0.0]
    assert arrivals.until(3.0) == [0.5, 0.5]
    assert not arrivals.over
    assert arrivals.until(100.0) == [3.25]
    assert arrivals.over


@pytest.mark.parametrize(
    ("specification", "problem"),
    [
        ("poisson:", "the rate is not a number"),
        ("poisson:0", "the rate is not a number"),
        ("poisson:nan", "the rate is not a number"),
        ("poisson:1001", "at most 1000"),
        ("/nowhere/at.all", "neither poisson:RATE nor a file"),
    ],
)
def test_a_wrong_specification_is_refused(specification, problem):
    with pytest.raises(ArrivalsError, match=problem):
        parse(specification, random.Random(1))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no arrival"),
        ("1\nx\n", ":2: 'x' is not a number"),
        ("1\n-2\n", ":2: '-2' is not a number"),
        ("2\n1\n", ":2: 1 is before the line above it"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(tmp_path, content, problem):
    path = tmp_path / "arrivals.txt"
    path.write_text(content)
    with pytest.raises(ArrivalsError, match=problem):
        parse(str(path), random.Random(1))


def test_a_receiver_that_falls_behind_does_not_shift_what_it_was_told():
    clock = LeastDelay()
    # Their clock is 100 s ahead; the way takes 1 ms.
    assert clock.place(150.0, sent=148.0, received=48.001) == pytest.approx(50.001)
    # This message lay 700 ms before it was taken.
    assert clock.place(151.0, sent=149.0, received=49.7) == pytest.approx(51.001)
    # A quicker one is nearer to the truth.
    assert clock.place(152.0, sent=150.0, received=50.0002) == pytest.approx(52.0002)
