"""A result → its row of the benchmark page's results table.

What comes in: a `Result`. What goes out: one cell a column, as text in the page's own style,
or `Missing`. It must not know Markdown or CSV.

Times and rates are medians over the completed measured turns; the rows on the page are of one
turn each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter import stages
from report.absence import Missing
from report.figures import exact, gib
from report.page import Column, UpstreamColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    from report.result import Result


def row(result: Result) -> dict[Column, str | Missing]:
    """All twenty cells in the page's order."""
    facts, video = result.facts, result.video
    return {
        Column.DATE: facts.date,
        Column.MODEL: facts.model,
        Column.TECHNIQUE: facts.technique,
        Column.BACKEND: facts.backend,
        Column.HARDWARE: facts.hardware,
        Column.OS: facts.os,
        Column.DRIVER: facts.driver,
        Column.COMMIT: _commits(facts.opentalking, facts.backend_revision),
        Column.INPUT: facts.input,
        Column.RESOLUTION: video.resolution,
        Column.FPS: _cell(video.fps, exact),
        Column.CHUNK: _cell(video.chunk_ms, lambda value: f"{value:.0f}ms"),
        Column.COLD_START: _cell(result.cold_start_s, exact),
        Column.WARMUP: _cell(result.warmup_s, exact),
        Column.TTFA: _cell(result.turns[stages.TTFA.key].median, exact),
        Column.TTFV: _cell(result.turns[stages.TTFV.key].median, exact),
        Column.FIRST_TURN: _cell(result.turns[stages.FIRST_TURN_TOTAL.key].median, exact),
        Column.STEADY_FPS: _cell(result.turns[stages.STEADY_FPS.key].median, exact),
        Column.IDLE_VRAM: _cell(result.memory.idle, gib),
        Column.PEAK_VRAM: _cell(result.memory.peak, gib),
    }


def upstream_row(result: Result) -> dict[UpstreamColumn, str | Missing]:
    """The cells of upstream's `result.csv`: the page's, and tester and RTF besides."""
    cells = row(result)
    own: dict[str, str | Missing] = {
        UpstreamColumn.TESTER.name: result.facts.tester,
        UpstreamColumn.RTF.name: _cell(result.turns[stages.RTF.key].median, exact),
    }
    return {
        column: own[column.name] if column.name in own else cells[Column[column.name]]
        for column in UpstreamColumn
    }


def _cell(value: float | Missing, text: Callable[[float], str]) -> str | Missing:
    return value if isinstance(value, Missing) else text(value)


def _commits(opentalking: str | Missing, backend: str | Missing) -> str | Missing:
    """Both, as the page's rows have them; an unknown one is said to be."""
    if isinstance(opentalking, Missing) and isinstance(backend, Missing):
        return opentalking
    known = ("unknown" if isinstance(part, Missing) else part for part in (opentalking, backend))
    return " + ".join(known)
