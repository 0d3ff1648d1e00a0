"""A result → `report.md`.

What comes in: a `Result`. What goes out: the text of the report: a warning where the run
proves nothing about performance, the benchmark page's template filled in, its results table
with our row, and then everything the run measured, with boundaries and reasons.
It must not compute anything about the run: what is not in the `Result` is not in the report.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from exporter import stages
from exporter.gauges import MemoryScope
from exporter.stages import InputKind, Kind, Outcome, Phase, Stage, Startup
from report import page
from report.absence import Missing
from report.extras import NOTHING, Extras
from report.figures import GIB, exact, figure, gib
from report.page import Fact
from report.published import origin
from report.result import MOCK_MODEL, StageResult, key_unit
from report.row import row
from report.statistics import values_for_interval
from report.summary import P95, P99, Quantile, Statistics, values_for_rank
from report.tables import inline, table
from report.turn_table import value_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from report.external import External
    from report.page import Column
    from report.published import Beside
    from report.records import MemoryForecast, Turn
    from report.result import Result

NOT_MEASURED: Final = "n/m"
"""A cell of the results table that has no value; a footnote gives the reason."""

_PROMPT_SHOWN: Final = 120
_NONE: Final = "–"

_BOUNDARY: Final = {
    InputKind.TEXT: "text: from the request that carries the text, as it is sent",
    InputKind.SPEECH: "speech: from the last speech audio, as it is sent",
    InputKind.AUDIO_UPLOAD: "uploaded audio: from the beginning of the upload",
}

STAGE_HEADINGS: Final = (
    *("stage", "n", "p50", "95 % CI", "p95", "95 % CI of p95", "p99", "min", "max", "unit"),
    *("source", "boundary", "owner"),
)
NUMBERS: Final = frozenset({*STAGE_HEADINGS[1:9], "value"})


def render(result: Result, extras: Extras = NOTHING) -> str:
    """The whole report; ends with a newline."""
    verdict = result.verdict
    lines = [
        f"# Benchmark run {inline(result.run_id)}",
        "",
        *_warning(result),
        *([f"**Invalid: {inline(result.invalid)}**", ""] if result.invalid else []),
        f"Verdict: {verdict.status} ({verdict.reason})",
        "",
        "## Result",
        "",
        *_template(result),
        "",
        "## Test results",
        "",
        *_page_table(result),
        "",
        *_objectives(extras),
        *_references(extras),
        *_externals(extras),
        "## Measured turns",
        "",
        *_measured(result),
        "",
        "## Sessions with a measured turn",
        "",
        *_stages(result.sessions),
        "",
        "## The run as a whole",
        "",
        *_run(result),
        "",
        "## Warmup",
        "",
        *_warmup(result),
        "",
        "## Turns that were not completed",
        "",
        *(_failures(result) or ["None."]),
    ]
    return "\n".join(lines) + "\n"


# --- the warning on top --------------------------------------------------------------------


def _warning(result: Result) -> list[str]:
    lines = warning(result)
    return [f"> **{lines[0]}**", f"> {lines[1]}", ""] if lines else []


def warning(result: Result) -> list[str]:
    """What a reader of a run that proves nothing must know first, in two lines of plain text."""
    mock = result.facts.model == MOCK_MODEL
    if not (mock or result.synthetic or result.stand_ins):
        return []
    if mock:
        sentence = page.MOCK
    elif result.synthetic:
        sentence = page.SYNTHETIC
    else:
        sentence = "Parts of this deployment are not real; figures that include them prove nothing."
    named = [inline(part) for part in result.stand_ins]
    if not named:
        named = [f"the model `{MOCK_MODEL}`" if mock else "model output, which is made up"]
    return [sentence, f"Stand-ins: {'; '.join(named)}."]


# --- the page's template -------------------------------------------------------------------


def title(result: Result) -> str:
    """The template's title without its mark of a heading."""
    facts = result.facts
    return page.TITLE.format(
        model=_known(facts.model, "unknown model"),
        backend=_known(facts.backend, "unknown backend"),
        hardware=_known(facts.hardware, "no accelerator seen"),
        date=facts.date,
    ).removeprefix("### ")


def fact_lines(result: Result) -> list[tuple[str, str]]:
    """The template's lines that are neither metrics nor notes: name and text."""
    return [(name.removesuffix(":"), text) for name, text in _facts(result).items()]


def _template(result: Result) -> list[str]:
    by_key = {**result.turns, **result.sessions}
    by_fact = _facts(result)
    lines = [f"### {title(result)}", ""]
    for line in page.TEMPLATE:
        if isinstance(line, Stage):
            lines.append(f"{page.bullet(line)} {_in_words(by_key[line.key])}")
        elif line is Fact.NOTES:
            lines += [page.bullet(line), *(f"  - {note}" for note in notes(result))]
        else:
            lines.append(f"{page.bullet(line)} {by_fact[line]}")
    return lines


def _facts(result: Result) -> dict[Fact, str]:
    """The template's lines that are neither metrics nor the list of notes."""
    facts = result.facts
    return {
        Fact.OPENTALKING: _known(facts.opentalking),
        Fact.BACKEND: _known(facts.backend_revision),
        Fact.HARDWARE: _hardware(result),
        Fact.MODEL: (
            f"{_known(facts.model)}; weights: {_known(facts.weights)}; quantization: "
            f"{_known(facts.quantization)}; caching: {_known(facts.caching)}"
        ),
        Fact.AVATAR: _known(facts.avatar),
        Fact.AUDIO: _audio(result),
        Fact.STARTUP: _startup(result),
    }


def _hardware(result: Result) -> str:
    facts = result.facts
    parts = []
    if isinstance(facts.hardware, Missing):
        parts.append(f"no accelerator seen ({inline(facts.hardware.reason)})")
    else:
        parts.append(inline(facts.hardware))
        parts.append(_known(facts.driver, "driver unknown"))
        parts += [] if isinstance(facts.runtime, Missing) else [inline(facts.runtime)]
    parts.append(_known(facts.os, "operating system unknown"))
    if not isinstance(facts.cpus, Missing):
        parts.append(f"{facts.cpus} CPUs")
    if not isinstance(facts.cpu_limit, Missing):
        parts.append(f"limited to {figure(facts.cpu_limit)} CPUs")
    if not isinstance(facts.memory_bytes, Missing):
        parts.append(f"{figure(facts.memory_bytes / GIB)} GiB memory")
    if not isinstance(facts.memory_limit_bytes, Missing):
        parts.append(f"limited to {figure(facts.memory_limit_bytes / GIB)} GiB")
    return "; ".join(parts)


def _audio(result: Result) -> str:
    facts = result.facts
    if not isinstance(facts.audio, Missing):
        return inline(facts.audio)
    if isinstance(facts.prompt, Missing):
        return _known(facts.audio)
    prompt = textwrap.shorten(facts.prompt, _PROMPT_SHOWN, placeholder=" …")
    return f"none; the input is the text “{inline(prompt)}”"


def _startup(result: Result) -> str:
    turns = ", ".join(f"{count} {startup}" for startup, count in result.startups.items())
    return "; ".join(
        (
            f"measured turns: {turns or 'none completed'}",
            f"warmup before them: {_seconds(result.warmup_s)}",
            f"cold start: {_seconds(result.cold_start_s)}",
        )
    )


def notes(result: Result) -> list[str]:
    """The template's notes, one line each."""
    facts, turns = result.facts, result.turns
    lines = [f"outcome: {_outcome(result)}", f"input: {_input(result)}"]
    lines += [
        f"`{stage.key}`, {stage.title}, {stage.boundaries}: {_in_words(turns[stage.key])}"
        for stage in (
            *(stages.TTFA, stages.PERCEIVED_TTFA),
            *(stages.TTFV, stages.PERCEIVED_TTFV),
            *(stages.FIRST_TURN_TOTAL, stages.GENERATION, stages.TURN_COMPLETION),
        )
    ]
    lines += [f"A/V drift: {_drift(result)}", f"external figures: {_external(result)}"]
    lines.append(f"VRAM: {_memory_basis(result)}")
    if not isinstance(result.clock_uncertainty_seconds, Missing):
        error = figure(result.clock_uncertainty_seconds * 1000.0)
        lines.append(f"clocks: a client's marks are within ±{error} ms on the exporter's clock")
    lines += [f"source {inline(name)}: {state}" for name, state in _unhealthy(result)]
    if cold := result.startups.get(Startup.COLD):
        lines.append(f"cold measured turns, counted and not summarised with the others: {cold}")
    lines += [inline(remark) for remark in result.remarks]
    if result.unphased:
        lines.append(f"turns that were not the benchmark's, left out: {result.unphased}")
    told = {"mode": facts.mode, "tester": facts.tester, "remarks": facts.notes}
    lines += [f"{name}: {inline(v)}" for name, v in told.items() if not isinstance(v, Missing)]
    return lines


def _outcome(result: Result) -> str:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result.outcomes.items())
    asked = "" if isinstance(result.repeat, Missing) else f"; asked for: {result.repeat}"
    return f"{result.verdict.reason} ({counts or 'there was none'}){asked}"


def _input(result: Result) -> str:
    if not result.inputs:
        return "no client told how it was given"
    return "; ".join(_BOUNDARY[kind] for kind in result.inputs)


def _drift(result: Result) -> str:
    bases = "; ".join(inline(basis) for basis in result.drift_bases) or "none stated"
    return f"positive means sound early (ITU-R BT.1359); basis: {bases}"


def _external(result: Result) -> str:
    """Values that the backend owns, and that we measured all the same."""
    ours = [
        f"`{found.stage.key}`"
        for found in result.turns.values()
        if isinstance(found.statistics, Statistics) and "OpenTalking" not in found.stage.owner
    ]
    if not ours:
        return "none among these"
    return (
        f"none among these; {', '.join(ours)} belong to the synthesis backend and were "
        "measured here from OpenTalking's side, not by the backend's own benchmark"
    )


def _memory_basis(result: Result) -> str:
    memory = result.memory
    match memory.scope:
        case None:
            reason = memory.peak.reason if isinstance(memory.peak, Missing) else ""
            return f"not measured: {inline(reason)}"
        case MemoryScope.PROCESS:
            basis = "the target's processes"
        case MemoryScope.DEVICE_DELTA:
            basis = f"the whole device less its baseline. {' '.join(page.DEVICE_MEMORY)}"
        case MemoryScope.DEVICE:
            first, _, last = page.DEVICE_MEMORY
            basis = f"the whole device, whoever uses it. {first} {last}"
    return f"device {inline(memory.device or 'unnamed')}, {basis}"


def _unhealthy(result: Result) -> Iterable[tuple[str, str]]:
    for name, health in result.sources.items():
        if not health.up:
            yield name, f"down ({inline(health.reason or 'no reason given')})"
        if health.dropped:
            yield name, f"dropped {health.dropped} events"


# --- the page's results table --------------------------------------------------------------


def _page_table(result: Result) -> list[str]:
    cells = row(result)
    n = result.turns[stages.TTFA.key].of
    shown = map(inline, cells_of(cells))
    lines = [
        f"Times and rates are medians over the completed measured turns ({n}).",
        "",
        # Not padded: this is the page's own line, to be pasted below its rows.
        f"| {' | '.join(cells)} |",
        "|" + "---|" * len(cells),
        f"| {' | '.join(shown)} |",
    ]
    missing: dict[str, str] = {
        column: cell.reason for column, cell in cells.items() if isinstance(cell, Missing)
    }
    if missing:
        lines += ["", f"{NOT_MEASURED}, not measured:", "", *_by_reason(missing)]
    return lines


def cells_of(cells: Mapping[Column, str | Missing]) -> list[str]:
    """The texts of a row."""
    return [NOT_MEASURED if isinstance(cell, Missing) else cell for cell in cells.values()]


def _by_reason(missing: Mapping[str, str]) -> list[str]:
    """Bullets of what is missing for one reason each, in order of appearance."""
    groups: dict[str, list[str]] = {}
    for name, reason in missing.items():
        groups.setdefault(reason, []).append(name)
    return [f"- {', '.join(names)}: {inline(reason)}" for reason, names in groups.items()]


# --- what stands beside --------------------------------------------------------------------

REFERENCE_HEADINGS: Final = ("column", "published", "ours", "ours ÷ published")
EXTERNAL_HEADINGS: Final = ("figure", "value")


def _objectives(extras: Extras) -> list[str]:
    if not extras.checks:
        return []
    rows = [[inline(one.claim), one.status, inline(one.evidence)] for one in extras.checks]
    return ["## Objectives", "", *table(("objective", "verdict", "evidence"), rows), ""]


def _references(extras: Extras) -> list[str]:
    lines: list[str] = []
    for one in extras.references:
        lines += [
            f"## Beside the published {inline(one.published.name)}",
            "",
            f"From “{one.published.section}” of {origin()}. {inline(one.published.words)}".rstrip(),
            "",
        ]
        rows = reference_rows(one)
        if rows:
            lines += [*table(REFERENCE_HEADINGS, rows, frozenset(REFERENCE_HEADINGS[1:])), ""]
        if one.mismatches:
            lines += ["**The settings differ:**", ""]
            lines += [*(f"- {inline(text)}" for text in one.mismatches), ""]
    return lines


def reference_rows(one: Beside) -> list[list[str]]:
    """Column, their figure, ours, and the ratio."""
    return [
        [
            column,
            theirs,
            NOT_MEASURED if isinstance(ours, Missing) else ours,
            _NONE if isinstance(ours, Missing) or not float(theirs) else _ratio(ours, theirs),
        ]
        for column, theirs, ours in one.figures
    ]


def _ratio(ours: str, theirs: str) -> str:
    return f"{float(ours) / float(theirs):.2f}"


def _externals(extras: Extras) -> list[str]:
    lines: list[str] = []
    for one in extras.externals:
        lines += [
            f"## External: {one.tool}",
            "",
            "Measured by the backend's own tool, at its own boundary; in no figure above. "
            f"Source: {inline(one.file)}, SHA-256 {one.sha256}.",
            "",
            *table(EXTERNAL_HEADINGS, external_rows(one), frozenset(EXTERNAL_HEADINGS[1:])),
            "",
        ]
    return lines


def external_rows(one: External) -> list[list[str]]:
    """Name and figure, as the tool has them."""
    return [[inline(name), exact(value)] for name, value in one.figures]


# --- what was measured ---------------------------------------------------------------------


def _measured(result: Result) -> list[str]:
    lines = [
        f"p95 and p99 are nearest ranks, given from {values_for_rank(P95)} and "
        f"{values_for_rank(P99)} values on, each with the order statistics that hold it with "
        f"95 % confidence, which takes {values_for_interval(0.5)} values for p50, "
        f"{values_for_interval(0.95)} for p95 ({_NONE}: fewer). ±: read from a histogram, the "
        "exact value lies within. A stage seen in some turns only shows how many of them.",
    ]
    for kind, title in (
        (Kind.ELEMENTARY, "Stages"),
        (Kind.COMPOSITE, "Composites"),
        (Kind.SAMPLE, "Samples"),
    ):
        found = {key: one for key, one in result.turns.items() if one.stage.kind is kind}
        lines += ["", f"### {title}", "", *_stages(found)]
    return lines


def _stages(found: Mapping[str, StageResult]) -> list[str]:
    """A table of what was seen, and under it why the rest was not."""
    rows = [
        stage_row(one, one.statistics)
        for one in found.values()
        if isinstance(one.statistics, Statistics)
    ]
    blocks = [table(STAGE_HEADINGS, rows, NUMBERS)] if rows else []
    gaps = [
        f"- `{key}`: missing in {one.of - one.statistics.n} of {one.of}: {inline(one.gap.reason)}"
        for key, one in found.items()
        if one.gap and isinstance(one.statistics, Statistics)
    ]
    if gaps:
        blocks.append(gaps)
    missing = {
        f"`{key}`": one.statistics.reason
        for key, one in found.items()
        if isinstance(one.statistics, Missing)
    }
    if missing:
        blocks.append(["Not measured:", "", *_by_reason(missing)])
    return [line for block in blocks for line in (*block, "")][:-1]


def stage_row(one: StageResult, statistics: Statistics) -> list[str]:
    """The cells under `STAGE_HEADINGS`."""
    stage, n = one.stage, statistics.n
    source = ", ".join(one.sources) or "unknown"
    basis = f" ({', '.join(one.bases)})" if one.bases else ""
    return [
        f"`{stage.key}`",
        str(n) if n == one.of else f"{n} of {one.of}",
        _quantile(statistics.p50),
        _interval(statistics.p50),
        _quantile(statistics.p95),
        _interval(statistics.p95),
        _quantile(statistics.p99),
        _extreme(statistics.minimum),
        _extreme(statistics.maximum),
        key_unit(stage),
        inline(source + basis),
        stage.boundaries,
        stage.owner,
    ]


def _quantile(found: Quantile | Missing) -> str:
    if isinstance(found, Missing):
        return _NONE
    if found.within is None:
        return figure(found.value)
    error = max(found.value - found.within.low, found.within.high - found.value)
    return f"{figure(found.value)} ±{figure(error)}"


def _interval(found: Quantile | Missing) -> str:
    if isinstance(found, Missing) or isinstance(found.confidence, Missing):
        return _NONE
    low, high = found.confidence.low, found.confidence.high
    return f"{figure(low)} – {figure(high)}"


def _extreme(value: float | Missing) -> str:
    return _NONE if isinstance(value, Missing) else figure(value)


def _run(result: Result) -> list[str]:
    memory = result.memory
    of = f" (device {inline(memory.device or 'unnamed')}, scope {memory.scope})"
    lines = [
        _run_line(stages.COLD_START, _seconds(result.cold_start_s)),
        _run_line(stages.WARMUP, _seconds(result.warmup_s)),
        *(
            _run_line(
                stage,
                f"not measured: {inline(value.reason)}"
                if isinstance(value, Missing)
                else f"{gib(value)} GiB{of}",
            )
            for stage, value in (
                (stages.IDLE_VRAM, memory.idle),
                (stages.PEAK_VRAM, memory.peak),
            )
        ),
        f"- sessions until the device's memory is full: {_forecast(result.memory_forecast)}",
    ]
    depth = result.queue_depth
    if isinstance(depth, Missing):
        return [
            *lines,
            _run_line(stages.QUEUE_DEPTH, f"not measured: {inline(depth.reason)}"),
        ]
    lines += [
        _run_line(
            stages.QUEUE_DEPTH,
            f"{inline(series.label) or 'all queues'}: {_statistics(series.statistics)}",
        )
        for series in depth
    ]
    return lines


def _forecast(found: MemoryForecast | Missing) -> str:
    if isinstance(found, Missing):
        return f"not forecast: {inline(found.reason)}"
    fit, each = found.sessions_fit, found.per_session_bytes
    return (
        f"{fit.estimate:.0f} ({found.confidence:.0%} confidence: {fit.lower:.0f} to "
        f"{fit.upper:.0f}), at {gib(each.estimate)} GiB a session ({gib(each.lower)} to "
        f"{gib(each.upper)}), from readings with {found.points} numbers of sessions "
        f"(device {inline(found.device)})"
    )


def _run_line(stage: Stage, value: str) -> str:
    return f"- {stage.title}, {stage.boundaries}: {value}"


def _warmup(result: Result) -> list[str]:
    if not result.warmup_turns:
        return ["None."]
    lines: list[str] = []
    for turn in result.warmup_turns:
        if lines:
            lines.append("")
        lines.append(f"{_named(turn)}: {turn.outcome}, {turn.startup or 'startup unknown'}.")
        rows = [
            [
                f"`{stage.key}`",
                figure(turn.values[stage.key]),
                key_unit(stage),
                inline(value_source(stage, turn)) or "unknown",
            ]
            for stage in stages.STAGES.values()
            if stage.key in turn.values
        ]
        if rows:
            lines += ["", *table(("stage", "value", "unit", "source"), rows, NUMBERS)]
    return lines


def _failures(result: Result) -> list[str]:
    lines = [_failure(turn) for turn in result.unfinished]
    measured = sum(turn.phase is Phase.MEASURED for turn in result.unfinished)
    lost = sum(result.outcomes.values()) - result.outcomes.get(Outcome.COMPLETED, 0)
    # A window of Prometheus knows how many there were, and none of them.
    return lines + ([f"- and {lost - measured} more, not listed"] if lost > measured else [])


def _failure(turn: Turn) -> str:
    parts = [f"- {turn.phase} {_named(turn)}: {turn.outcome}"]
    if turn.error:
        code, message = turn.error.code, turn.error.message
        parts.append(inline(": ".join(part for part in (code, message) if part)))
    if turn.marks:
        parts.append(f"last seen: {inline(max(turn.marks, key=lambda mark: turn.marks[mark]))}")
    if turn.trace_id:
        parts.append(f"trace {inline(turn.trace_id)}")
    return "; ".join(part for part in parts if part)


def _named(turn: Turn) -> str:
    return f"turn {turn.turn} of session {inline(turn.session)}"


# --- values in words -----------------------------------------------------------------------


def _known(value: str | Missing, otherwise: str | None = None) -> str:
    if not isinstance(value, Missing):
        return inline(value)
    return f"unknown: {inline(value.reason)}" if otherwise is None else otherwise


def _in_words(one: StageResult) -> str:
    if isinstance(one.statistics, Missing):
        return f"not measured: {inline(one.statistics.reason)}"
    return _statistics(one.statistics)


def _statistics(found: Statistics) -> str:
    median = _quantile(found.p50)
    if isinstance(found.minimum, Missing) or isinstance(found.maximum, Missing):
        return f"{median} (median of {found.n})"
    if found.n == 1:
        return f"{median} (one value)"
    low, high = figure(found.minimum), figure(found.maximum)
    return f"{median} (median of {found.n}; min {low}, max {high})"


def _seconds(value: float | Missing) -> str:
    if isinstance(value, Missing):
        return f"not measured: {inline(value.reason)}"
    return f"{exact(value)} s"
