"""A result → `report.html`.

What comes in: a `Result` and what stands beside it. What goes out: one page with plots. It must
not compute anything about the run: what is not in the `Result` is not on the page.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from exporter import stages
from exporter.stages import Kind
from report import svg, web
from report.absence import Missing
from report.extras import NOTHING, Extras
from report.figures import figure, gib
from report.markdown import (
    EXTERNAL_HEADINGS,
    NUMBERS,
    REFERENCE_HEADINGS,
    STAGE_HEADINGS,
    cells_of,
    external_rows,
    fact_lines,
    notes,
    reference_rows,
    stage_row,
    title,
    warning,
)
from report.page import Column
from report.result import key_unit
from report.row import row
from report.slo import Status as SloStatus
from report.summary import Quantile, Statistics
from report.svg import Bar, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from report.records import Turn
    from report.result import Result, StageResult

_TILES: Final = (
    *(stages.PERCEIVED_TTFA, stages.PERCEIVED_TTFV, stages.TTFA, stages.TTFV),
    *(stages.FIRST_TURN_TOTAL, stages.RENDER_FPS, stages.PLAYBACK_FPS, stages.AV_DRIFT),
)
_DISTRIBUTIONS: Final = (*(stages.PERCEIVED_TTFA, stages.PERCEIVED_TTFV, stages.TTFA, stages.TTFV),)
_CODE: Final = re.compile(r"(?<!\\)`([^`]*)(?<!\\)`")
_ESCAPED: Final = re.compile(r"\\([|<`])")


def render(result: Result, extras: Extras = NOTHING) -> str:
    """The whole page; the same for the same result."""
    name = title(result)
    body = [
        f"<header><h1>{web.text(name)}</h1>",
        f'<p class="soft">{web.text(result.run_id)}, {web.text(result.origin)}. '
        f"Verdict: {web.text(result.verdict.status)} ({web.text(result.verdict.reason)})</p>",
        *(f'<p class="warn">{web.text(line)}</p>' for line in warning(result)),
        "</header>",
        *_section("At a glance", [f'<div class="tiles">{"".join(_tiles(result))}</div>']),
        *_section("Where the time goes", _waterfalls(result)),
        *_section("How it is distributed", _grid(_distributions(result))),
        *_section("Over time", _grid(_timelines(result))),
        *_section("Slowest turns", _slowest(result)),
        *_section("Objectives", _objectives(extras)),
        *_section("Beside published results", _references(extras)),
        *_section("External figures of the backend", _externals(extras)),
        *_section("Stages", [_stages((*result.turns.values(), *result.sessions.values()))]),
        *_section("Test results", [_page_row(result)]),
        *_section("What was measured", [web.facts(_plain(fact_lines(result)))]),
        *_section("Notes", [_list(text for _, text in _plain(("", n) for n in notes(result)))]),
    ]
    return web.page(f"Talkscope: {name}", body)


def _section(name: str, parts: Iterable[str]) -> list[str]:
    """A section, or nothing when it would be empty."""
    found = [part for part in parts if part]
    return [f"<section><h2>{web.text(name)}</h2>", *found, "</section>"] if found else []


def _plain(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Texts of the Markdown report without its marks."""
    return [(name, _ESCAPED.sub(r"\1", _CODE.sub(r"\1", text))) for name, text in pairs]


def _grid(cards: Iterable[str]) -> list[str]:
    found = list(cards)
    return [f'<div class="grid">{"".join(found)}</div>'] if found else []


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{web.text(item)}</li>' for item in items)}</ul>"


# --- numbers -------------------------------------------------------------------------------


def _tiles(result: Result) -> Iterable[str]:
    for stage in _TILES:
        found = result.turns[stage.key].statistics
        if isinstance(found, Statistics):
            unit = key_unit(stage)
            # Of a rate the 95th percentile is the good end, of drift neither.
            slow = found.p95 if stage.better == "lower" else None
            p95 = f"p95 {figure(slow.value)}, " if isinstance(slow, Quantile) else ""
            yield web.tile(stage.title, f"{figure(found.median)} {unit}", f"{p95}n = {found.n}")
    peak = result.memory.peak
    if not isinstance(peak, Missing):
        yield web.tile("peak VRAM", f"{gib(peak)} GiB", f"device {result.memory.device}")
    done = sum(result.outcomes.values())
    if done:
        completed = result.outcomes.get(stages.Outcome.COMPLETED, 0)
        yield web.tile("turns completed", f"{completed} of {done}", "")


def _stages(found: Iterable[StageResult]) -> str:
    rows = [
        stage_row(one, one.statistics) for one in found if isinstance(one.statistics, Statistics)
    ]
    return web.table(STAGE_HEADINGS, [[c.replace("`", "") for c in r] for r in rows], NUMBERS)


def _page_row(result: Result) -> str:
    return web.table(tuple(Column), [cells_of(row(result))])


# --- plots ---------------------------------------------------------------------------------


def _waterfalls(result: Result) -> list[str]:
    """The medians of the elementary stages, one after the other as in a turn."""
    bars = []
    at = 0.0
    for stage in stages.turn_intervals():
        found = result.turns[stage.key].statistics
        if stage.kind is Kind.ELEMENTARY and isinstance(found, Statistics):
            bars.append(Bar(stage.title, at, at + max(found.median, 0.0)))
            at = bars[-1].end
    if not bars:
        return []
    name = "Medians of the stages, laid end to end"
    return [web.card(name, svg.waterfall(bars, "ms", name))]


def _distributions(result: Result) -> Iterable[str]:
    for stage in _DISTRIBUTIONS:
        one = result.turns[stage.key]
        if one.distribution is None or not isinstance(one.statistics, Statistics):
            continue
        found = one.statistics
        rules = [Rule("p50", found.median)]
        if isinstance(found.p95, Quantile):
            rules.append(Rule("p95", found.p95.value))
        unit = key_unit(stage)
        plot = svg.histogram(one.distribution, rules, unit, stage.title)
        yield web.card(stage.title, plot, f'<p class="soft">{web.text(stage.boundaries)}</p>')


def _timelines(result: Result) -> Iterable[str]:
    for plot in result.timelines:
        shown = plot.without_empty()
        if shown.series:
            name = f"{plot.title}, {plot.unit}"
            yield web.card(name, svg.lines(shown, name), svg.legend(shown))


def _slowest(result: Result) -> list[str]:
    parts: list[str] = []
    for turn in result.slowest:
        bars = list(_bars(turn))
        if not bars:
            continue
        slow = next(
            f"{stage.title} {figure(turn.values[stage.key])} ms"
            for stage in (stages.PERCEIVED_TTFV, stages.FIRST_TURN_TOTAL, stages.TTFV)
            if stage.key in turn.values
        )
        trace = f", trace {turn.trace_id}" if turn.trace_id else ""
        name = f"{slow}: turn {turn.turn} of session {turn.session}{trace}"
        plot = svg.waterfall(bars, "ms", name)
        # The slowest is open, so that it is there in print.
        opened = "" if parts else " open"
        parts.append(f"<details{opened}><summary>{web.text(name)}</summary>{plot}</details>")
    return parts


def _bars(turn: Turn) -> Iterable[Bar]:
    """A turn's elementary stages where they were, in ms from its input or its first mark."""
    zero = turn.marks.get(stages.INPUT, min(turn.marks.values(), default=0.0))
    for stage in stages.turn_intervals():
        between = stages.value_between(stage, turn.marks)
        if stage.kind is Kind.ELEMENTARY and between is not None and between >= 0.0:
            assert stage.start is not None
            start = (turn.marks[stage.start] - zero) * 1000.0
            yield Bar(stage.title, start, start + between)


# --- what stands beside --------------------------------------------------------------------


def _objectives(extras: Extras) -> list[str]:
    if not extras.checks:
        return []
    colour = {SloStatus.PASS: "good", SloStatus.FAIL: "bad", SloStatus.OPEN: "soft"}
    rows = "".join(
        f"<tr><td>{web.text(one.claim)}</td><td class={colour[one.status]}>{one.status}</td>"
        f'<td class="wrap">{web.text(one.evidence)}</td></tr>'
        for one in extras.checks
    )
    return [f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>']


def _references(extras: Extras) -> Iterable[str]:
    for one in extras.references:
        yield f"<h3>{web.text(one.published.name)} ({web.text(one.published.section)})</h3>"
        yield f"<p>{web.text(one.published.words)}</p>" if one.published.words else ""
        yield web.table(REFERENCE_HEADINGS, reference_rows(one), frozenset(REFERENCE_HEADINGS[1:]))
        if one.mismatches:
            yield '<p class="warn">The settings differ:</p>' + _list(one.mismatches)


def _externals(extras: Extras) -> Iterable[str]:
    for one in extras.externals:
        yield f"<h3>{web.text(one.tool)}</h3>"
        yield f'<p class="soft">{web.text(one.file)}, SHA-256 {one.sha256}</p>'
        yield web.table(EXTERNAL_HEADINGS, external_rows(one), frozenset(EXTERNAL_HEADINGS[1:]))
