"""PromQL from the catalogue: a stage in, an expression out.

It must not know panels, dashboards or files. Names of families and labels come from
`exporter.stages`; a rename there changes every expression here.
"""

from __future__ import annotations

from typing import Final

from exporter.stages import Scope, Stage, Startup

BY_TARGET: Final = "model, backend"
"""Labels that a comparison must not mix."""

TARGET_VARIABLES: Final = 'model=~"$model", backend=~"$backend"'
"""Selector of the dashboards' variables, for families that carry model and backend."""

RATE: Final = "$__rate_interval"
"""Grafana's word for a window that holds at least four samples."""

COUNTED: Final = "Counted over the rate interval: four scrapes, or a step of the graph if longer."
"""What a panel says of `added` over that window."""


def family(stage: Stage) -> str:
    """The stage's Prometheus family; raises ValueError for one that is not exported."""
    if stage.family is None:
        raise ValueError(f"{stage.key} is not exported")
    return stage.family


def chosen(stage: Stage) -> str:
    """Selector of a dashboard's variables, as far as the stage's family has their labels."""
    startup = ', startup=~"$startup"' if stage.scope is Scope.TURN else ""
    return f"{TARGET_VARIABLES}{startup}"


def steady() -> str:
    """Selector of turns that are neither cold nor warm: the only ones to compare over time."""
    return f'startup="{Startup.STEADY.value}"'


def buckets(stage: Stage, selector: str, window: str, by: str = "") -> str:
    """Rates of the stage's buckets, summed over everything but `le` and `by`."""
    labels = f"le, {by}" if by else "le"
    return f"sum by ({labels}) (rate({family(stage)}_bucket{{{selector}}}[{window}]))"


def quantile(q: float, stage: Stage, selector: str, window: str, by: str = "") -> str:
    """A quantile over a window, seconds or the stage's base unit."""
    return f"histogram_quantile({q}, {buckets(stage, selector, window, by)})"


def increase(stage: Stage, part: str, selector: str, window: str, by: str = "") -> str:
    """Increase of `sum` or `count` over a window, summed over everything but `by`."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (increase({family(stage)}_{part}{{{selector}}}[{window}]))"


def mean(stage: Stage, selector: str, window: str, by: str = "") -> str:
    """Arithmetic mean over a window: exact, where a quantile is interpolated in a bucket."""
    total = increase(stage, "sum", selector, window, by)
    return f"{total} / {increase(stage, 'count', selector, window, by)}"


def share_above(stage: Stage, edge: float, selector: str, window: str, by: str = "") -> str:
    """Share (0 to 1) of values above `edge`; raises ValueError unless it is a bucket's edge."""
    if edge not in stage.buckets:
        raise ValueError(f"{edge} is no bucket edge of {stage.key}: {stage.buckets}")
    grouped = f" by ({by})" if by else ""
    edges = f'{selector}, le="{edge}"' if selector else f'le="{edge}"'
    within = f"sum{grouped} (rate({family(stage)}_bucket{{{edges}}}[{window}]))"
    every = f"sum{grouped} (rate({family(stage)}_count{{{selector}}}[{window}]))"
    return f"1 - {within} / {every}"


def added(counter: str, by: str, selector: str = "", window: str = RATE) -> str:
    """How much a counter rose over a window, summed over everything but `by`.

    Where `increase` sees nothing: a series that begins with its first event, such as an error
    whose code never came before. A restart of who counts shows as nothing.
    """
    now = f"sum by ({by}) ({counter}{{{selector}}})"
    before = f"sum by ({by}) ({counter}{{{selector}}} offset {window})"
    return f"clamp_min({now} - ({before} or 0 * {now}), 0)"


def off_zero(expr: str, label: str) -> str:
    """The series that are above 0; when there is none, one at 0 whose `label` says "none"."""
    return f'{expr} > 0 or on () label_replace(vector(0), "{label}", "none", "", "")'
