"""Readings over time → as many points as a plot can show.

What comes in: times and values in any order. What goes out: series of at most `POINTS`
points. It must not know how they are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

POINTS: Final = 120


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot."""

    label: str
    points: tuple[tuple[float, float], ...]
    """(seconds since the Unix epoch, value), ascending."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """One plot: lines of one unit over one stretch of time."""

    title: str
    unit: str
    series: tuple[Series, ...]

    def without_empty(self) -> Timeline:
        """The same without lines that have no point."""
        return Timeline(self.title, self.unit, tuple(one for one in self.series if one.points))


def thinned(times: Sequence[float], values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """The readings, or with more than `POINTS` the median of each of as many equal spans of
    time, at its middle; a span without a reading has no point, nor has a NaN."""
    at, value = np.asarray(times, np.float64), np.asarray(values, np.float64)
    known = ~(np.isnan(at) | np.isnan(value))
    at, value = at[known], value[known]
    if len(at) <= POINTS:
        return tuple(sorted(zip(at.tolist(), value.tolist(), strict=True)))
    begin = float(at.min())
    width = (float(at.max()) - begin) / POINTS or 1.0
    span = np.minimum(((at - begin) / width).astype(np.uint8), POINTS - 1)
    # Sorting numbers of one byte takes linear time, and leaves those of a span side by side.
    spans = np.split(value[np.argsort(span, kind="stable")], np.bincount(span).cumsum()[:-1])
    return tuple(
        (begin + (i + 0.5) * width, float(np.median(found)))
        for i, found in enumerate(spans)
        if len(found)
    )
