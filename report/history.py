"""A folder of bundles → a trend page and the results table again.

What comes in: a folder. What goes out: the results of its bundles in order of time, a page with
one point a run, and the benchmark page's table with one row a run. It must not know how a single
run is reported.

A bundle that cannot be read does not hide the others: it is listed with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from exporter import stages
from report import bundle as bundles
from report import svg, web
from report.absence import Missing
from report.errors import BundleError, InputError
from report.figures import GIB, figure
from report.markdown import cells_of, title, warning
from report.page import Column
from report.result import Result, summarise_bundle
from report.row import row
from report.summary import Statistics
from report.tables import inline
from report.timeline import Series, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from exporter.stages import Stage

_PLOTS: Final[tuple[tuple[str, str, tuple[Stage, ...]], ...]] = (
    ("Time to first audio (TTFA)", "ms", (stages.PERCEIVED_TTFA, stages.TTFA)),
    ("Time to first video (TTFV)", "ms", (stages.PERCEIVED_TTFV, stages.TTFV)),
    ("Frame rate", "frames/s", (stages.RENDER_FPS, stages.STEADY_FPS, stages.PLAYBACK_FPS)),
)
_HEADINGS: Final = (
    *("date", "OpenTalking", "backend", "model", "hardware", "turns"),
    *("TTFA p50/ms", "TTFV p50/ms", "render FPS", "peak VRAM/GiB"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of the history."""

    name: str
    """Of its folder or archive."""
    started: float
    """Seconds since the Unix epoch."""
    result: Result


@dataclass(frozen=True, slots=True)
class History:
    """The runs of a folder by time, and what could not be read."""

    entries: tuple[Entry, ...]
    unread: tuple[tuple[str, str], ...]
    """Name and reason."""


def read(folder: Path) -> History:
    """Every bundle in a folder: a folder of its own, one below it (`RUN/bundle`), or a `.tar.gz`.

    Raises `InputError` when there is none.
    """
    if not folder.is_dir():
        raise InputError(str(folder), "is no folder", "give the one that holds the bundles")
    entries, unread, seen = [], [], set()
    for path in _bundles(folder):
        name = str(path.relative_to(folder))
        try:
            bundle = bundles.read(path)
        except BundleError as error:
            unread.append((name, str(error)))
            continue
        # A run's folder often holds its bundle and the archive of it.
        if bundle.sha256 not in seen:
            seen.add(bundle.sha256)
            entries.append(Entry(name, bundle.run.started_unix, summarise_bundle(bundle)))
    if not entries and not unread:
        raise InputError(str(folder), "holds no bundle", "give the folder that holds the bundles")
    entries.sort(key=lambda entry: (entry.started, entry.name))
    return History(tuple(entries), tuple(unread))


def _bundles(folder: Path) -> list[Path]:
    manifests = (*folder.glob("*/manifest.json"), *folder.glob("*/*/manifest.json"))
    archives = (*folder.glob("*.tar.gz"), *folder.glob("*/*.tar.gz"))
    return sorted(path.parent for path in manifests) + sorted(archives)


def table(history: History) -> str:
    """The benchmark page's results table, a row a run, as Markdown; ends with a newline."""
    lines = [f"| {' | '.join(Column)} |", "|" + "---|" * len(Column)]
    lines += [f"| {' | '.join(map(inline, cells_of(row(e.result))))} |" for e in history.entries]
    lines += [f"\nNot read: {inline(name)}: {inline(reason)}" for name, reason in history.unread]
    return "\n".join(lines) + "\n"


def page(history: History) -> str:
    """The trend page: a plot a quantity, a line for each model on each hardware."""
    plots = [plot for plot in _timelines(history.entries) if plot.series]
    cards = [
        web.card(f"{plot.title}, {plot.unit}", svg.lines(plot, plot.title), svg.legend(plot))
        for plot in plots
    ]
    made_up = sum(bool(warning(entry.result)) for entry in history.entries)
    body = [
        f"<header><h1>Benchmark history</h1><p class='soft'>{len(history.entries)} runs. Points "
        "are medians of a run; lines join runs of one model, backend and hardware.</p>",
        f'<p class="warn">{made_up} of them are of a mock, a synthetic model or with stand-ins; '
        "those prove nothing about performance and are marked.</p>"
        if made_up
        else "",
        "</header>",
        f'<section><h2>Trend</h2><div class="grid">{"".join(cards)}</div></section>',
        "<section><h2>Runs</h2>",
        web.table(_HEADINGS, [_run(entry) for entry in history.entries], frozenset(_HEADINGS[5:])),
        "</section><section><h2>Test results</h2>",
        web.table(tuple(Column), [cells_of(row(entry.result)) for entry in history.entries]),
        "</section>",
    ]
    if history.unread:
        body += ["<section><h2>Not read</h2>", web.facts(history.unread), "</section>"]
    return web.page("Talkscope: benchmark history", body)


def _setting(result: Result) -> str:
    """What runs must share to be one line: the template's title without the date."""
    name = title(result).rpartition(" / ")[0]
    return f"{name} (made up)" if warning(result) else name


def _timelines(entries: Sequence[Entry]) -> Iterable[Timeline]:
    settings = list(dict.fromkeys(_setting(entry.result) for entry in entries))
    for name, unit, of in _PLOTS:
        series = []
        for stage in of:
            for setting in settings:
                points = tuple(
                    (entry.started, found.median)
                    for entry in entries
                    if _setting(entry.result) == setting
                    and isinstance(found := entry.result.turns[stage.key].statistics, Statistics)
                )
                if points:
                    series.append(Series(f"{stage.title}: {setting}", points))
        yield Timeline(name, unit, tuple(series))
    memory = []
    for setting in settings:
        points = tuple(
            (entry.started, peak / GIB)
            for entry in entries
            if _setting(entry.result) == setting
            and not isinstance(peak := entry.result.memory.peak, Missing)
        )
        if points:
            memory.append(Series(setting, points))
    yield Timeline("Peak VRAM", "GiB", tuple(memory))


def _run(entry: Entry) -> list[str]:
    result, facts = entry.result, entry.result.facts

    def median(stage: Stage) -> str:
        found = result.turns[stage.key].statistics
        return figure(found.median) if isinstance(found, Statistics) else "n/m"

    peak = result.memory.peak
    known = (facts.opentalking, facts.backend_revision, facts.model, facts.hardware)
    return [
        datetime.fromtimestamp(entry.started, tz=UTC).strftime("%Y-%m-%d %H:%M"),
        *("unknown" if isinstance(part, Missing) else part for part in known),
        str(result.turns[stages.TTFA.key].of),
        median(stages.TTFA),
        median(stages.TTFV),
        median(stages.RENDER_FPS),
        "n/m" if isinstance(peak, Missing) else figure(peak / GIB),
    ]
