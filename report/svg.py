"""Plots as inline SVG.

What comes in: bars, bins and lines as numbers with their labels. What goes out: SVG text that
takes its colours from the page's style sheet. It must not know what is plotted.

All plots share one width, `WIDTH`, near that of a phone, so that scaled to a phone their text
stays readable. Every shape carries its numbers as a title, which browsers show on hovering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final

from report.figures import figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from report.timeline import Timeline
    from report.values import Distribution

WIDTH: Final = 400
_HEIGHT: Final = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 12, 26
_ROW: Final = 22
_COLOURS: Final = 6
"""Line colours that the style sheet has."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a waterfall, in the unit of its axis."""

    label: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Rule:
    """A vertical line that marks a value."""

    label: str
    value: float


def waterfall(bars: Sequence[Bar], unit: str, title: str) -> str:
    """Bars one below the other along one axis, each with its name above it and its length."""
    low = min(0.0, *(bar.start for bar in bars))
    high = max(bar.end for bar in bars)
    x = _scale(low, high, 8.0, WIDTH - _RIGHT)
    height = _ROW * len(bars) + _BOTTOM
    body = []
    for row, bar in enumerate(bars):
        top = row * _ROW
        length = f"{figure(bar.end - bar.start)} {unit}"
        left, width = x(bar.start), max(x(bar.end) - x(bar.start), 1.0)
        # The text goes to the side where there is room.
        at, anchor = (left, "start") if left < WIDTH / 2 else (left + width, "end")
        body.append(
            f"<g><title>{escape(bar.label)}: {length}, from {figure(bar.start)}</title>"
            f'<text x="{at:.1f}" y="{top + 10}" text-anchor="{anchor}">{escape(bar.label)} '
            f"{length}</text>"
            f'<rect class="bar" x="{left:.1f}" y="{top + 13}" width="{width:.1f}" height="6"/></g>'
        )
    return _svg(height, title, [*_x_axis(_ticks(low, high), x, height, unit), *body])


def histogram(found: Distribution, rules: Sequence[Rule], unit: str, title: str) -> str:
    """Bins as bars, whose areas are the counts, with marked values."""
    low, high = found.edges[0], found.edges[-1]
    if not high > low:
        low, high = low - 0.5, high + 0.5
    densities = [
        count / max(b - a, (high - low) * 1e-9)
        for count, a, b in zip(found.counts, found.edges, found.edges[1:], strict=False)
    ]
    x = _scale(low, high, 8.0, WIDTH - _RIGHT)
    y = _scale(0.0, max(densities), _HEIGHT - _BOTTOM, 28.0)
    body = []
    for count, density, a, b in zip(
        found.counts, densities, found.edges, found.edges[1:], strict=False
    ):
        if count:
            left, top = x(a), y(density)
            width = max(x(b) - left - 0.5, 0.5)
            body.append(
                f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
                f'height="{_HEIGHT - _BOTTOM - top:.1f}"><title>{figure(a)} – {figure(b)} {unit}: '
                f"{count}</title></rect>"
            )
    for place, rule in enumerate(rules):
        at = x(min(max(rule.value, low), high))
        anchor = "end" if at > WIDTH / 2 else "start"
        body.append(
            f'<line class="rule" x1="{at:.1f}" x2="{at:.1f}" y1="{12 * place + 4}" '
            f'y2="{_HEIGHT - _BOTTOM}"/><text x="{at + (-3 if anchor == "end" else 3):.1f}" '
            f'y="{12 * place + 12}" text-anchor="{anchor}">{escape(rule.label)} '
            f"{figure(rule.value)} {unit}</text>"
        )
    return _svg(_HEIGHT, title, [*_x_axis(_ticks(low, high), x, _HEIGHT, unit), *body])


def lines(plot: Timeline, title: str) -> str:
    """Lines over time, with points where there are few."""
    points = [point for one in plot.series for point in one.points]
    begin, end = min(at for at, _ in points), max(at for at, _ in points)
    if not end > begin:
        begin, end = begin - 1.0, end + 1.0
    low = min(0.0, *(value for _, value in points))
    high = max(0.0, *(value for _, value in points))
    if not high > low:
        high = low + 1.0
    x = _scale(begin, end, _LEFT, WIDTH - _RIGHT)
    y = _scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    body = [
        f'<line class="tick" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" '
        f'y2="{y(tick):.1f}"/><text x="{_LEFT - 4}" y="{y(tick) + 3:.1f}" '
        f'text-anchor="end">{figure(tick)}</text>'
        for tick in _ticks(low, high)
    ]
    for share in (0.0, 0.5, 1.0):
        at = begin + share * (end - begin)
        anchor = {0.0: "start", 1.0: "end"}.get(share, "middle")
        body.append(
            f'<text x="{x(at):.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">'
            f"{_clock(at, end - begin)}</text>"
        )
    for number, one in enumerate(plot.series):
        colour = number % _COLOURS
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in one.points)
        body.append(f'<polyline class="line c{colour}" points="{path}"/>')
        if len(one.points) <= 60:
            body += [
                f'<circle class="dot c{colour}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2.2">'
                f"<title>{escape(one.label)}: {figure(value)} {plot.unit}</title></circle>"
                for at, value in one.points
            ]
    return _svg(_HEIGHT, title, body)


def legend(plot: Timeline) -> str:
    """The names of the lines with their colours; nothing for one line."""
    if len(plot.series) < 2:
        return ""
    entries = (
        f'<span><i class="c{number % _COLOURS}"></i>{escape(one.label)}</span>'
        for number, one in enumerate(plot.series)
    )
    return f'<p class="legend">{"".join(entries)}</p>'


def _svg(height: int, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: begin + (value - low) / span * (end - begin)


def _x_axis(
    ticks: Sequence[float], x: Callable[[float], float], height: int, unit: str
) -> list[str]:
    base = height - _BOTTOM
    shown = [tick for tick in ticks if 8.0 <= x(tick) <= WIDTH - _RIGHT]
    parts = []
    for place, tick in enumerate(shown):
        anchor = "middle"
        if x(tick) < 20.0:
            anchor = "start"
        elif x(tick) > WIDTH - 30.0:
            anchor = "end"
        name = f"{figure(tick)} {unit}" if place == len(shown) - 1 else figure(tick)
        parts.append(
            f'<line class="tick" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="0" y2="{base}"/>'
            f'<text x="{x(tick):.1f}" y="{base + 14}" text-anchor="{anchor}">{name}</text>'
        )
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers: steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or 1.0
    rough = 10.0 ** math.floor(math.log10(span / 4.0))
    step = next((rough * m for m in (5.0, 2.0) if span / (rough * m) >= 4.0), rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _clock(unix: float, span: float) -> str:
    form = "%H:%M:%S" if span < 6 * 3600 else "%m-%d %H:%M" if span < 90 * 86400 else "%Y-%m-%d"
    return datetime.fromtimestamp(unix, tz=UTC).strftime(form)
