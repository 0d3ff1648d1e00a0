"""Readings over time → as many points as a plot can show.

What comes in: times and values in any order. What goes out: series of at most `POINTS`
points. It must not know how they are drawn.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

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
    known = [at for at, value in zip(times, values, strict=True) if at == at and value == value]
    if not known:
        return ()
    begin, end = min(known), max(known)
    count = len(known)
    del known
    readings = zip(times, values, strict=True)
    if count <= POINTS:
        return tuple(sorted((at, value) for at, value in readings if at == at and value == value))
    width = (end - begin) / POINTS or 1.0
    # Not sorted: a million readings would take seconds.
    bins: list[list[float]] = [[] for _ in range(POINTS + 1)]
    for at, value in readings:
        if at == at and value == value:
            bins[int((at - begin) / width)].append(value)
    bins[POINTS - 1] += bins.pop()
    return tuple(
        (begin + (i + 0.5) * width, statistics.median(found))
        for i, found in enumerate(bins)
        if found
    )
