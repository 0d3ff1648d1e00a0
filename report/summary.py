"""Many values of one quantity → the few numbers a report shows.

What comes in: exact values or a histogram. What goes out: `Statistics`.
It must not know what the numbers measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from report.absence import Missing
from report.statistics import rank_interval, values_for_interval
from report.values import Histogram, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

P50: Final = Fraction(1, 2)
P95: Final = Fraction(19, 20)
P99: Final = Fraction(99, 100)
"""Fractions keep a rank in whole numbers: 0.95 has no exact binary form."""


def values_for_rank(p: Fraction) -> int:
    """Values from which on a percentile is given: with fewer, the nearest rank is simply the
    largest value (⌈p·n⌉ = n), and a maximum under another name misleads. 20 for p95, 100
    for p99."""
    return math.ceil(1 / (1 - p))


@dataclass(frozen=True, slots=True)
class Quantile:
    """One quantile of the values, in their unit."""

    value: float
    confidence: Interval | Missing
    """Where the quantile of the population lies with 95 % confidence."""
    within: Interval | None = None
    """From a histogram: where the values' own quantile certainly lies. None when exact."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What `n` ≥ 1 values come to, in the unit of the values."""

    n: int
    mean: float
    p50: Quantile
    """The middle value, or the mean of the two middle ones."""
    p95: Quantile | Missing
    """Nearest rank: the ⌈0.95·n⌉-th smallest value, hence one that was measured."""
    p99: Quantile | Missing
    minimum: float | Missing
    maximum: float | Missing

    @property
    def median(self) -> float:
        """The value of `p50`."""
        return self.p50.value


def summarise(values: Sequence[float]) -> Statistics:
    """Statistics of at least one finite value."""
    return summarise_ordered(sorted(values))


def summarise_ordered(ordered: Sequence[float]) -> Statistics:
    """Statistics of at least one finite value; they are sorted already."""
    n = len(ordered)

    def quantile(p: Fraction) -> Quantile | Missing:
        missing = _too_few(n, p)
        return missing or Quantile(ordered[_rank(n, p) - 1], _confidence(ordered, p))

    return Statistics(
        n=n,
        mean=math.fsum(ordered) / n,
        p50=Quantile((ordered[(n - 1) // 2] + ordered[n // 2]) / 2.0, _confidence(ordered, P50)),
        p95=quantile(P95),
        p99=quantile(P99),
        minimum=ordered[0],
        maximum=ordered[-1],
    )


def summarise_histogram(values: Histogram) -> Statistics | Missing:
    """Statistics of a histogram's values; each quantile says where the exact one lies."""
    n = values.n
    lower, upper = values.rank((n + 1) // 2), values.rank(n // 2 + 1)
    for value, within in (lower, upper):
        if math.isinf(value):
            return Missing(f"the median lies {_beyond(within)}")

    def confidence(p: Fraction) -> Interval | Missing:
        ranks = rank_interval(n, float(p))
        if ranks is None:
            return _no_interval(n, p)
        low, high = (values.rank(rank)[1] for rank in ranks)
        return Interval(low.low, high.high)

    def quantile(p: Fraction) -> Quantile | Missing:
        if missing := _too_few(n, p):
            return missing
        value, within = values.rank(_rank(n, p))
        if math.isinf(value):
            return Missing(f"lies {_beyond(within)}")
        return Quantile(value, confidence(p), within)

    unseen = Missing("a histogram keeps no single value")
    return Statistics(
        n=n,
        mean=values.mean(),
        p50=Quantile(
            (lower[0] + upper[0]) / 2.0,
            confidence(P50),
            Interval(lower[1].low, upper[1].high),
        ),
        p95=quantile(P95),
        p99=quantile(P99),
        minimum=unseen,
        maximum=unseen,
    )


def _beyond(within: Interval) -> str:
    if math.isinf(within.high):
        return f"above the last bucket's edge, {within.low:g}"
    return f"below the first bucket's edge, {within.high:g}"


def _rank(n: int, p: Fraction) -> int:
    return math.ceil(p * n)


def _too_few(n: int, p: Fraction) -> Missing | None:
    needs = values_for_rank(p)
    if n >= needs:
        return None
    name = f"p{float(100 * p):g}"
    return Missing(f"{name} by nearest rank needs {needs} values, there are {n}")


def _no_interval(n: int, p: Fraction) -> Missing:
    needs = values_for_interval(float(p))
    return Missing(f"a 95 % confidence interval needs {needs} values, there are {n}")


def _confidence(ordered: Sequence[float], p: Fraction) -> Interval | Missing:
    ranks = rank_interval(len(ordered), float(p))
    if ranks is None:
        return _no_interval(len(ordered), p)
    return Interval(ordered[ranks[0] - 1], ordered[ranks[1] - 1])
