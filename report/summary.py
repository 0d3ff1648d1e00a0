"""Many values of one quantity → the few numbers a report shows.

What comes in: numbers. What goes out: `Statistics`.
It must not know what the numbers measure.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from report.absence import Missing

if TYPE_CHECKING:
    from collections.abc import Sequence

P95_NEEDS: Final = 20
"""Values from which on a 95th percentile is given: with fewer, the nearest rank is simply the
largest value (⌈0.95·n⌉ = n for n < 20), and a maximum under another name misleads."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What `n` ≥ 1 values come to, in the unit of the values."""

    n: int
    median: float
    """The middle value, or the mean of the two middle ones."""
    p95: float | Missing
    """Nearest rank: the ⌈0.95·n⌉-th smallest value, hence one that was measured."""
    minimum: float
    maximum: float


def summarise(values: Sequence[float]) -> Statistics:
    """Statistics of at least one finite value."""
    ordered = sorted(values)
    n = len(ordered)
    return Statistics(
        n=n,
        median=statistics.median(ordered),
        # 19 and 20 keep the rank in whole numbers: 0.95 has no exact binary form.
        p95=ordered[math.ceil(19 * n / 20) - 1]
        if n >= P95_NEEDS
        else Missing(f"p95 by nearest rank needs {P95_NEEDS} values, there are {n}"),
        minimum=ordered[0],
        maximum=ordered[-1],
    )
