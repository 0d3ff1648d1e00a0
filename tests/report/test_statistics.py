"""Statistics against computations of another kind."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.absence import Missing
from report.summary import P95, Quantile, summarise, values_for_rank


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
