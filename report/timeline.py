"""Readings over time → as many points as a plot can show.

What comes in: (time, value) pairs in any order. What goes out: series of at most `POINTS`
points. It must not know how they are drawn.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def thinned(readings: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The readings, or with more than `POINTS` the median of each of as many equal spans of
    time, at its middle; a span without a reading has no point."""
    ordered = sorted(readings)
    if len(ordered) <= POINTS:
        return tuple(ordered)
    begin, end = ordered[0][0], ordered[-1][0]
    if not end > begin:
        return ((begin, statistics.median(value for _, value in ordered)),)
    width = (end - begin) / POINTS
    bins: list[list[float]] = [[] for _ in range(POINTS)]
    for at, value in ordered:
        bins[min(int((at - begin) / width), POINTS - 1)].append(value)
    return tuple(
        (begin + (i + 0.5) * width, statistics.median(values))
        for i, values in enumerate(bins)
        if values
    )
