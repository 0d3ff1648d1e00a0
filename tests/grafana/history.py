"""A past for Prometheus: turns in, an OpenMetrics text with timestamps out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from exporter.stages import Stage


def openmetrics(
    stage: Stage, labels: str, turns: NDArray[np.float64], times: NDArray[np.int64]
) -> str:
    """The stage's histogram as a scrape at each time would have found it.

    `turns`: seconds, a row for each of the `times` (Unix), the turns since the time before.
    """
    lines = [f"# TYPE {stage.family} histogram"]
    for edge in (*stage.buckets, math.inf):
        counts = np.cumsum((turns <= edge).sum(axis=1))
        if counts[-1] == 0:
            continue
        le = "+Inf" if math.isinf(edge) else repr(edge)
        name = f'{stage.family}_bucket{{{labels},le="{le}"}}'
        lines += [f"{name} {count} {at}" for count, at in zip(counts, times, strict=True)]
    for part, values in (
        ("count", turns.shape[1] * (1 + np.arange(len(times)))),
        ("sum", np.cumsum(turns.sum(axis=1))),
    ):
        name = f"{stage.family}_{part}{{{labels}}}"
        lines += [f"{name} {value} {at}" for value, at in zip(values, times, strict=True)]
    return "\n".join([*lines, "# EOF", ""])
