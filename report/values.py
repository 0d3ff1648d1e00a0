"""The values of one quantity: exact ones of a bundle, or a histogram of Prometheus.

What comes in: numbers, or bucket edges with counts. What goes out: the same questions
answered for both, each with how far a histogram's answer may be off. It must not know what is
measured nor where it was stored.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_BINS: Final = 40


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of numbers, both ends included; `high` may be infinite."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often values fell between neighbouring edges: len(counts) = len(edges) − 1."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Values(Protocol):
    """At least one value of one quantity, in one unit."""

    @property
    def n(self) -> int:
        """How many there are."""

    def mean(self) -> float:
        """Their arithmetic mean; exact for a histogram as well, which carries the sum."""

    def above(self, limit: float) -> tuple[int, int]:
        """The least and the most values that can lie above `limit`; the same when exact."""

    def below(self, limit: float) -> tuple[int, int]:
        """The same of values below `limit`."""

    def sample(self, most: int) -> list[float]:
        """At most `most` of the values, spread evenly over them."""


class Exact:
    """Values as they were measured."""

    def __init__(self, values: array[float]) -> None:
        self._values = values

    @property
    def n(self) -> int:
        """See `Values.n`."""
        return len(self._values)

    def mean(self) -> float:
        """See `Values.mean`."""
        return math.fsum(self._values) / len(self._values)

    def above(self, limit: float) -> tuple[int, int]:
        """See `Values.above`."""
        count = sum(map(limit.__lt__, self._values))
        return count, count

    def below(self, limit: float) -> tuple[int, int]:
        """See `Values.below`."""
        count = sum(map(limit.__gt__, self._values))
        return count, count

    def sample(self, most: int) -> list[float]:
        """See `Values.sample`; every k-th in the order of the records."""
        n = len(self._values)
        if n <= most:
            return list(self._values)
        return [self._values[i * n // most] for i in range(most)]


@dataclass(frozen=True)
class Histogram:
    """Counts of values in (edge before, edge], the last edge infinite; and their sum.

    `floor` is the least value possible, the lower edge of the first bucket: 0 for a time, minus
    infinity for a signed quantity.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    floor: float = 0.0

    @property
    def n(self) -> int:
        """See `Values.n`."""
        return sum(self.counts)

    def mean(self) -> float:
        """See `Values.mean`."""
        return self.total / self.n

    def rank(self, rank: int) -> tuple[float, Interval]:
        """The `rank`-th smallest value (from 1): an estimate, and where it certainly lies.

        The estimate is interpolated inside the bucket, as Prometheus' histogram_quantile does.
        It is infinite in a bucket without end.
        """
        sums = list(accumulate(self.counts))
        bucket = bisect_left(sums, rank)
        low = self.edges[bucket - 1] if bucket else self.floor
        high = self.edges[bucket]
        before = sums[bucket - 1] if bucket else 0
        if math.isinf(high) or math.isinf(low):
            return (high if math.isinf(high) else low), Interval(low, high)
        part = (rank - before) / self.counts[bucket]
        return low + (high - low) * part, Interval(low, high)

    def above(self, limit: float) -> tuple[int, int]:
        """See `Values.above`."""
        # Whole buckets above the limit are certain, the one that holds it is not.
        first = bisect_left(self.edges, limit)
        certain = sum(self.counts[first + 1 :])
        if first < len(self.edges) and self.edges[first] == limit:
            return certain, certain
        return certain, certain + self.counts[first]

    def below(self, limit: float) -> tuple[int, int]:
        """See `Values.below`."""
        # A bucket holds its upper edge, so even a limit that is an edge leaves its bucket open.
        first = bisect_left(self.edges, limit)
        certain = sum(self.counts[:first])
        return certain, certain + self.counts[first]

    def sample(self, most: int) -> list[float]:
        """See `Values.sample`; values are taken to lie evenly inside their buckets, those of
        a bucket without end at its other edge."""
        n = self.n
        size = min(n, most)
        values = []
        for i in range(size):
            value, within = self.rank((2 * i + 1) * n // (2 * size) + 1)
            if math.isinf(value):
                value = within.low if math.isinf(within.high) else within.high
            values.append(value)
        return values

    def distribution(self) -> Distribution:
        """From the first bucket that holds something to the last, without endless ones."""
        lows = (self.floor, *self.edges)
        held = [
            i
            for i, count in enumerate(self.counts)
            if count and math.isfinite(self.edges[i]) and math.isfinite(lows[i])
        ]
        if not held:
            return Distribution((), ())
        first, last = held[0], held[-1]
        return Distribution(lows[first : last + 2], self.counts[first : last + 1])


def distribution(ordered: Sequence[float]) -> Distribution:
    """Sorted exact values in bins of equal width, from the least to the 99.5th percentile.

    The few values beyond it would squeeze all others into one bin; they are in the last bin.
    """
    low, high = ordered[0], ordered[math.ceil(0.995 * len(ordered)) - 1]
    bins = max(1, min(_BINS, round(math.sqrt(len(ordered)))))
    if not high > low:
        return Distribution((low, ordered[-1]), (len(ordered),))
    edges = tuple(low + (high - low) * i / bins for i in range(bins + 1))
    upper = [bisect_right(ordered, edge) for edge in edges[1:-1]]
    return Distribution(
        edges, tuple(b - a for a, b in zip([0, *upper], [*upper, len(ordered)], strict=True))
    )
