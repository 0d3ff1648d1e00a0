"""Statistics against computations of another kind."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.absence import Missing
from report.statistics import (
    binomial_cdf,
    holm,
    more_failures,
    rank_interval,
    share_is_above,
    share_is_below,
    shift,
    side_for_change,
    values_for_interval,
    values_for_share,
)
from report.summary import (
    P95,
    Quantile,
    Statistics,
    summarise,
    summarise_histogram,
    values_for_rank,
)
from report.values import Exact, Histogram, Interval, distribution


def p95(values: list[float]) -> float:
    found = summarise(values).p95
    assert isinstance(found, Quantile)
    return found.value


VALUES = st.floats(min_value=-1e9, max_value=1e9)


@given(st.lists(VALUES, min_size=1, max_size=60))
def test_median_and_extremes_agree_with_the_statistics_module(values: list[float]) -> None:
    found = summarise(values)
    quartiles = statistics.quantiles([*values, *values], n=4, method="inclusive")
    assert found.n == len(values)
    assert found.median == pytest.approx(quartiles[1])
    assert (found.minimum, found.maximum) == (min(values), max(values))


@given(st.lists(VALUES, min_size=values_for_rank(P95), max_size=200))
def test_p95_is_the_smallest_value_that_covers_95_percent(values: list[float]) -> None:
    covering = [v for v in values if 100 * sum(w <= v for w in values) >= 95 * len(values)]
    assert p95(values) == min(covering)


def test_p95_of_twenty_values_is_the_nineteenth() -> None:
    assert p95([float(v) for v in range(1, 21)]) == 19.0
    assert p95([float(v) for v in range(1, 101)]) == 95.0


def test_p95_of_fewer_than_twenty_values_is_missing_with_the_reason() -> None:
    found = summarise([1.0] * 19)
    assert found.p95 == Missing("p95 by nearest rank needs 20 values, there are 19")


# --- intervals of quantiles ----------------------------------------------------------------


@given(st.integers(1, 300), st.floats(0.001, 0.999), st.data())
def test_binomial_cdf_is_the_sum_of_its_terms(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    terms = [math.comb(n, i) * p**i * (1.0 - p) ** (n - i) for i in range(k + 1)]
    assert binomial_cdf(k, n, p) == pytest.approx(math.fsum(terms), abs=1e-9)


def test_binomial_cdf_of_a_million_trials_is_nearly_normal() -> None:
    n, p = 1_000_000, 0.95
    k = round(n * p - 1.96 * math.sqrt(n * p * (1 - p)))
    assert binomial_cdf(k, n, p) == pytest.approx(0.025, abs=5e-4)


@pytest.mark.parametrize(("p", "n"), [(0.5, 6), (0.95, 72), (0.99, 368)])
def test_an_interval_takes_as_many_values_as_theory_says(p: float, n: int) -> None:
    assert values_for_interval(p) == n
    assert rank_interval(n - 1, p) is None
    low, high = rank_interval(n, p) or (0, 0)
    assert 1 <= low < high <= n


@pytest.mark.parametrize(("n", "p"), [(30, 0.5), (100, 0.5), (100, 0.95), (500, 0.99)])
def test_intervals_hold_the_true_quantile_in_95_of_100_samples(n: int, p: float) -> None:
    # Of uniform numbers the p-quantile is p. NumPy draws and sorts; ranks are ours.
    low, high = rank_interval(n, p) or (0, 0)
    drawn = np.sort(np.random.default_rng(1).random((4000, n)), axis=1)
    held = np.mean((drawn[:, low - 1] <= p) & (drawn[:, high - 1] >= p))
    assert 0.95 - 0.01 <= held <= 0.99


def test_59_values_without_one_above_prove_a_p95_and_58_do_not() -> None:
    assert share_is_below(0, 59, 0.05)
    assert not share_is_below(0, 58, 0.05)
    assert values_for_share(0, 0, 0.05) == values_for_share(0, 12, 0.05) == 59


def test_as_many_values_as_are_asked_for_prove_the_claim() -> None:
    for above, n in ((2, 100), (9, 100), (4, 100)):
        need = values_for_share(above, n, 0.05)
        assert need is not None
        proves = share_is_below if above / n < 0.05 else share_is_above
        assert proves(round(above / n * need), need, 0.05)
    assert values_for_share(5, 100, 0.05) is None


# --- two samples ---------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(8, 60), st.integers(8, 60))
def test_the_shift_is_numpys_median_of_all_differences(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(10.0, 2.0, n), generator.normal(11.0, 3.0, m)
    differences = np.sort(np.subtract.outer(b, a).ravel())
    found = shift(a.tolist(), b.tolist())
    # Of an even number of differences ours is the lower of the two middle ones.
    assert found.estimate == pytest.approx(differences[math.ceil(n * m / 2) - 1])
    half = 1.959964 * math.sqrt(n * m * (n + m + 1) / 12.0)
    assert found.low == pytest.approx(differences[max(math.ceil(n * m / 2 - half), 1) - 1])
    assert found.high == pytest.approx(differences[min(math.ceil(n * m / 2 + half), n * m) - 1])


def test_p_of_a_small_sample_is_near_the_exact_one() -> None:
    generator = random.Random(3)
    a = [generator.gauss(0.0, 1.0) for _ in range(8)]
    b = [generator.gauss(1.2, 1.0) for _ in range(8)]
    pooled = a + b

    def u(of: tuple[int, ...]) -> int:
        rest = [pooled[i] for i in range(16) if i not in of]
        return sum(pooled[i] > other for i in of for other in rest)

    seen = abs(u(tuple(range(8, 16))) - 32)
    ways = [abs(u(chosen) - 32) >= seen for chosen in itertools.combinations(range(16), 8)]
    assert shift(a, b).p == pytest.approx(sum(ways) / len(ways), abs=0.01)


def test_equal_values_have_no_shift_and_no_significance() -> None:
    found = shift([5.0] * 20, [5.0] * 20)
    assert (found.estimate, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_values_a_side_are_those_of_the_textbook() -> None:
    generator = random.Random(4)
    a, b = ([generator.gauss(100.0, 10.0) for _ in range(400)] for _ in range(2))
    # 2·(z₀.₉₇₅ + z₀.₈)²·σ²/δ² ÷ 0.955 = 329 for σ = 10 and δ = 2.24.
    assert side_for_change(shift(a, b), 400, 400, 2.24) == pytest.approx(329, rel=0.15)


def test_holm_multiplies_and_never_falls() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert corrected == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_more_failures_is_the_hypergeometric_tail(n: int, m: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    whole = math.comb(n + m, x + y)
    tail = sum(math.comb(m, k) * math.comb(n, x + y - k) for k in range(y, min(x + y, m) + 1))
    assert more_failures(x, n, y, m) == pytest.approx(tail / whole, abs=1e-9)


# --- histograms ----------------------------------------------------------------------------

EDGES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, math.inf)


def histogram(values: list[float]) -> Histogram:
    counts, _ = np.histogram(values, bins=[-1e-12, *EDGES])
    # NumPy's bins are closed on the left; no drawn value is an edge.
    return Histogram(EDGES, tuple(int(c) for c in counts), math.fsum(values))


@given(st.lists(st.floats(0.001, 4.99).filter(lambda v: v not in EDGES), min_size=1, max_size=400))
def test_a_histograms_quantiles_hold_the_exact_ones(values: list[float]) -> None:
    exact = summarise(values)
    found = summarise_histogram(histogram(values))
    assert isinstance(found, Statistics)
    assert found.n == exact.n
    assert found.mean == pytest.approx(exact.mean)
    for ours, true in ((found.p50, exact.p50), (found.p95, exact.p95), (found.p99, exact.p99)):
        if isinstance(true, Quantile):
            assert isinstance(ours, Quantile)
            assert ours.within is not None
            assert ours.within.low <= true.value <= ours.within.high
            assert ours.within.low <= ours.value <= ours.within.high
            if isinstance(true.confidence, Interval):
                assert isinstance(ours.confidence, Interval)
                assert ours.confidence.low <= true.confidence.low
                assert ours.confidence.high >= true.confidence.high


@given(
    st.lists(st.floats(0.001, 9.0).filter(lambda v: v not in EDGES), min_size=1, max_size=200),
    st.floats(0.0, 10.0),
)
def test_a_histogram_bounds_how_many_lie_above(values: list[float], limit: float) -> None:
    low, high = histogram(values).above(limit)
    assert low <= Exact(array("d", values)).above(limit)[0] <= high
    assert histogram(values).above(0.5)[0] == histogram(values).above(0.5)[1]


def test_a_median_beyond_the_last_edge_is_not_a_number() -> None:
    assert summarise_histogram(Histogram(EDGES, (0, 0, 0, 0, 0, 0, 3), 30.0)) == Missing(
        "the median lies above the last bucket's edge, 5"
    )


@given(st.lists(VALUES, min_size=1, max_size=300))
def test_every_value_is_in_a_bin(values: list[float]) -> None:
    found = distribution(sorted(values))
    assert sum(found.counts) == len(values)
    assert len(found.edges) == len(found.counts) + 1
