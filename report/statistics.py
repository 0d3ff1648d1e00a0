"""What a number of turns can prove: order statistics, Mann-Whitney, exact tests.

What comes in: numbers and counts. What goes out: intervals, p-values and how many values a
claim needs. It must not know what the numbers measure, nor what a verdict is.

Confidence is 95 % two-sided throughout, so 97.5 % in either direction. Nothing here draws
random numbers, so the same data gives the same verdict.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIDENCE: Final = 0.95
_TAIL: Final = (1.0 - CONFIDENCE) / 2.0
_Z: Final = NormalDist().inv_cdf(1.0 - _TAIL)
_Z_POWER: Final = NormalDist().inv_cdf(0.8)
"""Sample sizes are those that reach a verdict four times in five."""

_BISECTIONS: Final = 48
"""Halvings of the range of differences; what is left is below a float's precision of it."""

SMALLEST_SIDE: Final = 8
"""Values a side from which on the normal approximation of Mann-Whitney's U holds to two
digits (Mann & Whitney 1947, table 1)."""


# --- order statistics ----------------------------------------------------------------------


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X ≤ k) of n trials that succeed with probability p.

    By the regularised incomplete beta function, I₁₋ₚ(n − k, k + 1) (DLMF 8.17.5).
    """
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    return _incomplete_beta(n - k, k + 1.0, 1.0 - p)


def rank_interval(n: int, p: float) -> tuple[int, int] | None:
    """Ranks (from 1) of the two order statistics that hold the p-quantile with 95 % confidence.

    None when n values cannot tell. Distribution-free (David & Nagaraja, Order Statistics,
    7.1): the number of values below the quantile is binomial.
    """
    if n < values_for_interval(p):
        return None
    low = _first(0, n, lambda r: binomial_cdf(r, n, p) > _TAIL)
    high = _first(1, n, lambda r: binomial_cdf(r - 1, n, p) >= 1.0 - _TAIL)
    return max(low, 1), high


def values_for_interval(p: float) -> int:
    """Values from which on the p-quantile has a 95 % confidence interval: 6, 72, 368 for
    the 50th, 95th and 99th percentile."""
    return math.ceil(math.log(_TAIL) / math.log(max(p, 1.0 - p)))


def _first(low: int, high: int, holds: object) -> int:
    """The least number in [low, high] for which a monotonic condition holds."""
    assert callable(holds)
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    return front * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Lentz's evaluation of the continued fraction (Numerical Recipes, 6.4)."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    fraction = d
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0)),
        ):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return fraction


# --- a claim about one quantile ------------------------------------------------------------


def share_is_below(above: int, n: int, share: float) -> bool:
    """Whether `above` of `n` prove, one-sided at 95 %, that less than `share` lie above."""
    return n > 0 and binomial_cdf(above, n, share) <= 1.0 - CONFIDENCE


def share_is_above(above: int, n: int, share: float) -> bool:
    """Whether `above` of `n` prove, one-sided at 95 %, that more than `share` lie above."""
    return n > 0 and 1.0 - binomial_cdf(above - 1, n, share) <= 1.0 - CONFIDENCE


def values_for_share(above: int, n: int, share: float) -> int | None:
    """Values that prove which side of `share` the fraction above lies on, if it stays as seen.

    With nothing above this is the least for any claim: 59 for a share of 5 %. None when the
    fraction seen is the share itself: no number settles that. At most a billion.
    """
    seen = above / n if n else 0.0
    if seen == share:
        return None
    proves = share_is_below if seen < share else share_is_above
    need = 1
    while not proves(round(seen * need), need, share):
        need *= 2
        if need > 1_000_000_000:
            return None
    return _first(need // 2, need, lambda m: proves(round(seen * m), m, share))


# --- two samples ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one sample lies above another, in the unit of both."""

    estimate: float
    """Hodges-Lehmann: the median of all differences between a value of each."""
    low: float
    high: float
    """Its 95 % confidence interval (Moses), from Mann-Whitney's U."""
    p: float
    """Two-sided p-value of Mann-Whitney's U, corrected for ties and continuity."""


def shift(before: Sequence[float], after: Sequence[float]) -> Shift:
    """The shift from `before` to `after`, each at least `SMALLEST_SIDE` values."""
    a, b = sorted(before), sorted(after)
    n, m = len(a), len(b)
    spread = math.sqrt(n * m * (n + m + 1) / 12.0)
    middle = n * m / 2.0
    return Shift(
        estimate=_difference_of_rank(a, b, middle),
        low=_difference_of_rank(a, b, middle - _Z * spread),
        high=_difference_of_rank(a, b, middle + _Z * spread),
        p=_mann_whitney(a, b),
    )


def _difference_of_rank(a: Sequence[float], b: Sequence[float], rank: float) -> float:
    """The difference b − a that `rank` of all the differences lie below; both are sorted."""
    low, high = b[0] - a[-1], b[-1] - a[0]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        # A difference is at most `middle` where b's value is at most a's plus it.
        if sum(bisect_right(b, value + middle) for value in a) < rank:
            low = middle
        else:
            high = middle
    return high


def _mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    n, m = len(a), len(b)
    u = sum(bisect_left(a, value) + bisect_right(a, value) for value in b) / 2.0
    total = n + m
    pooled = sorted([*a, *b])
    ties = start = 0
    while start < total:
        end = bisect_right(pooled, pooled[start], lo=start)
        ties += (end - start) ** 3 - (end - start)
        start = end
    variance = n * m / 12.0 * ((total + 1) - ties / (total * (total - 1)))
    if variance <= 0.0:
        return 1.0
    distance = max(abs(u - n * m / 2.0) - 0.5, 0.0)
    return math.erfc(distance / math.sqrt(2.0 * variance))


def side_for_change(found: Shift, before: int, after: int, change: float) -> int:
    """Values a side with which a change as large as `change` would be told from none.

    The interval shrinks with the root of the number of values; it has to leave room for an
    estimate that is off, in four of five repetitions. Follows from the interval that was
    found, so it assumes nothing of the distribution.
    """
    half = (found.high - found.low) / 2.0
    both = 2.0 / (1.0 / before + 1.0 / after)
    wanted = both * (half * (1.0 + _Z_POWER / _Z) / change) ** 2
    return max(math.ceil(wanted), SMALLEST_SIDE)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for being many (Holm 1979): the chance of any false one stays."""
    corrected: dict[str, float] = {}
    worst = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p) in enumerate(ordered):
        worst = max(worst, min(1.0, p * (len(ordered) - place)))
        corrected[name] = worst
    return corrected


def more_failures(failed_before: int, before: int, failed_after: int, after: int) -> float:
    """One-sided p-value that failures did not become more frequent (Fisher's exact test)."""
    total, failed = before + after, failed_before + failed_after
    whole = _log_choose(total, failed)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_choose(after, k) + _log_choose(before, failed - k) - whole)
            for k in range(max(failed_after, failed - before), min(failed, after) + 1)
        ),
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
