"""A bundle → the result of its run: pure, and the same for the same bundle.

What comes in: a verified `Bundle`. What goes out: a `Result`, every value of a run that a
report can show, or `Missing` with the reason in its place. It must not know the benchmark
page's wording, nor any format a result is written in.

What nobody saw has a reason and no number; which turns count is `report.turn_table`'s.

How each quantity is computed follows OpenTalking's published rows; `exporter.stages` says
where their way and the benchmark page's words differ.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from exporter import gauges, stages
from exporter.stages import InputKind, Outcome, Scope, Stage
from report.absence import Missing, not_seen, why
from report.figures import GIB
from report.lines import mapped
from report.memory import Memory, Span, forecast, memory
from report.records import Accelerator, Session, Turn
from report.summary import Statistics, summarise, summarise_ordered
from report.timeline import Series as Line
from report.timeline import Timeline, thinned
from report.turn_lines import TURN_STAGES
from report.turn_table import TurnTable
from report.values import Distribution, Exact, Values, distribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from report.bundle import Bundle
    from report.records import MemoryForecast, Run, SourceHealth, Target
    from report.samples import Samples

T = TypeVar("T")

TIMELINES: Final[tuple[tuple[str, tuple[Stage, ...]], ...]] = (
    (
        "Time to first audio and video",
        (stages.PERCEIVED_TTFA, stages.PERCEIVED_TTFV, stages.TTFA, stages.TTFV),
    ),
    ("Frame rate", (stages.RENDER_FPS, stages.PLAYBACK_FPS)),
    ("A/V drift", (stages.AV_DRIFT,)),
)
"""Stages of a turn that are plotted over time: title, and the lines of one plot."""

FAILURES: Final = frozenset({Outcome.FAILED, Outcome.VANISHED, Outcome.NO_MEDIA, Outcome.TIMEOUT})
"""Outcomes that are the target's; an interrupted turn was ended by its user, and an incomplete
one by the exporter's stop."""

MOCK_MODEL: Final = "mock"
"""OpenTalking's model that animates nothing."""

_NOT_TOLD: Final = Missing("not told to the benchmark")
_NO_MEASURED: Final = Missing("no measured turn was completed")
_MANY: Final = 50_000
"""Turns from which on columns are sorted on all processors."""
_COMMIT: Final = re.compile(r"[0-9a-f]{9,64}", re.ASCII)
_COMMIT_SHOWN: Final = 8
"""Digits of a commit in the page's rows."""


class Status(StrEnum):
    """What the run is worth as a whole."""

    GOOD = "good"
    FAILED = "failed"
    NOT_ENOUGH_DATA = "not enough data"

    @property
    def exit_status(self) -> int:
        """Exit status of a command that ends with this verdict."""
        return {Status.GOOD: 0, Status.FAILED: 1, Status.NOT_ENOUGH_DATA: 2}[self]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failed` when any measured turn failed, vanished, stayed without media or timed out;
    else `not enough data` when none was completed; else `good`."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage over the records that could have carried it, in the unit of its key."""

    stage: Stage
    statistics: Statistics | Missing
    of: int
    """Completed measured turns, or sessions with a measured turn."""
    gap: Missing | None
    """Why `of` − n records lack the value, when some have it and some do not."""
    sources: tuple[str, ...]
    """Where the values came from; for one computed from marks, who saw the two."""
    bases: tuple[str, ...]
    """How the value or its marks were found, where there is more than one way."""
    values: Values | None = None
    """What the statistics are of; None when there is nothing."""
    distribution: Distribution | None = None

    @property
    def median(self) -> float | Missing:
        """Median, or why there is none."""
        return self.statistics if isinstance(self.statistics, Missing) else self.statistics.median


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one level while the measured turns ran."""

    label: str
    """The labels that tell this series from others, `name=value` and sorted."""
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class Video:
    """The output as `speech.timing` of the completed measured turns describes it."""

    resolution: str | Missing
    """`W×H` in pixels."""
    fps: float | Missing
    """Nominal frames a second."""
    chunk_ms: float | Missing
    """Audio per synthesis chunk: chunk_samples ÷ sample_rate, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured, on what and by whom."""

    date: str
    """Day on which the run started, in UTC, as the page writes it: 2026/5/20."""
    model: str | Missing
    backend: str | Missing
    avatar: str | Missing
    technique: str | Missing
    weights: str | Missing
    quantization: str | Missing
    caching: str | Missing
    """Which caches were kept, and how, as the tester says."""
    hardware: str | Missing
    """Accelerators; several of one kind as `NAME ×8`."""
    driver: str | Missing
    runtime: str | Missing
    """What runs on the driver, such as `CUDA 12.8`."""
    os: str | Missing
    cpus: int | Missing
    memory_bytes: float | Missing
    cpu_limit: float | Missing
    """Processors' worth of time that a control group allows."""
    memory_limit_bytes: float | Missing
    opentalking: str | Missing
    """Commit, or `release VERSION` where only that is known."""
    backend_revision: str | Missing
    """The same of the synthesis backend."""
    mode: str | Missing
    input: str | Missing
    """The page's Input column."""
    prompt: str | Missing
    audio: str | Missing
    tester: str | Missing
    notes: str | Missing


@dataclass(frozen=True, slots=True)
class Result:
    """Everything a report shows. Mappings of stages are keyed and ordered as the catalogue."""

    run_id: str
    manifest_sha256: str | Missing
    """Identifies the bundle: the manifest holds the hash of each of its files."""
    origin: str
    """What the numbers were read from, in words."""
    recorded_by: str | Missing
    """Program and version that recorded the bundle."""
    verdict: Verdict
    facts: Facts
    synthetic: bool
    """Whether model output was made up."""
    stand_ins: tuple[str, ...]
    """Parts of the deployment that are not real."""
    repeat: int | Missing
    """Measured turns that were asked for."""
    outcomes: Mapping[Outcome, int]
    """Measured turns by outcome; no zero entries."""
    unphased: int
    """Turns of nobody's benchmark, left out of everything."""
    startups: Mapping[str, int]
    """Completed measured turns by `Startup`, or by `unknown`."""
    inputs: tuple[InputKind, ...]
    """How the measured inputs reached the target; empty when no client told."""
    turns: Mapping[str, StageResult]
    """Stages of a turn, over the completed measured turns."""
    sessions: Mapping[str, StageResult]
    """Stages of a session, over the sessions with a measured turn."""
    cold_start_s: float | Missing
    warmup_s: float | Missing
    memory: Memory
    memory_forecast: MemoryForecast | Missing
    queue_depth: tuple[Series, ...] | Missing
    video: Video
    drift_bases: tuple[str, ...]
    clock_uncertainty_seconds: float | Missing
    """Largest uncertainty of a client's clock over the completed measured turns."""
    warmup_turns: tuple[Turn, ...]
    unfinished: tuple[Turn, ...]
    """The first warmup or measured turns that were not completed."""
    sources: Mapping[str, SourceHealth]
    slowest: tuple[Turn, ...] = ()
    """Some completed measured turns, the slowest first."""
    timelines: tuple[Timeline, ...] = ()
    remarks: tuple[str, ...] = ()
    """What a reader must know of how the numbers were had, beyond the above."""
    invalid: str | None = None
    """Why the run measured its generator and not the target, if so."""
    table: TurnTable | None = None
    """The turns one by one, where they are known."""


def summarise_bundle(bundle: Bundle) -> Result:
    """The result of a run. Raises nothing: a verified bundle has a result, if an empty one."""
    table = bundle.turns
    warmup = tuple(table.warmup)
    span = (
        Span(table.begin, table.end)
        if table.begin <= table.end
        else Missing("no measured turn was seen")
    )
    run, manifest = bundle.run, bundle.manifest
    used = memory(bundle.samples, bundle.target, run.gpu_index, _idle_span(warmup, span), span)
    outcomes = _counted(table.outcomes)
    return Result(
        run_id=manifest.run_id,
        manifest_sha256=bundle.sha256,
        origin="run bundle",
        recorded_by=" ".join(filter(None, (manifest.tool, manifest.version)))
        or Missing("the manifest does not say"),
        verdict=verdict(outcomes),
        facts=_facts(run, bundle.target, table),
        synthetic=bool(run.synthetic),
        stand_ins=run.stand_ins or (),
        repeat=told(run.repeat),
        outcomes=outcomes,
        unphased=table.unphased,
        startups=_counted(table.startups),
        inputs=tuple(table.inputs),
        turns=_turn_stages(table),
        sessions=_sessions(bundle.sessions, table.sessions),
        cold_start_s=run.cold_start.seconds
        if run.cold_start
        else Missing("the target was already running"),
        warmup_s=_warmup_seconds(warmup),
        memory=used,
        memory_forecast=forecast(used, bundle.target),
        queue_depth=_queue_depth(bundle, span),
        video=_video(table),
        drift_bases=tuple(table.drift_bases),
        clock_uncertainty_seconds=Missing("no client told how well its clock is known")
        if table.clock_uncertainty is None
        else table.clock_uncertainty,
        warmup_turns=warmup,
        unfinished=tuple(t for t in (*warmup, *table.failed) if t.outcome is not Outcome.COMPLETED),
        sources=dict(sorted(bundle.target.sources.items())),
        slowest=table.slowest,
        timelines=_timelines(bundle),
        remarks=(),
        invalid=run.invalid,
        table=table,
    )


def key_unit(stage: Stage) -> str:
    """The unit of a number beside the stage's key, for people: ms, s, bytes, frames/s…"""
    if stage.unit is stages.Unit.SECONDS:
        return "s" if stage.to_base(1.0) == 1.0 else "ms"
    return {
        stages.Unit.FRAMES_PER_SECOND: "frames/s",
        stages.Unit.RATIO: "ratio",
        stages.Unit.BYTES: "bytes",
        stages.Unit.COUNT: "items",
    }[stage.unit]


def _of_scope(scope: Scope) -> tuple[Stage, ...]:
    return tuple(stage for stage in stages.STAGES.values() if stage.scope is scope)


def _distinct(items: Iterable[T | None]) -> tuple[T, ...]:
    """The different items that are not None, in order of appearance."""
    return tuple(dict.fromkeys(item for item in items if item is not None))


def _counted(counts: Mapping[T, int]) -> dict[T, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))


def told(value: T | None) -> T | Missing:
    """The value, unless the benchmark was not told it."""
    return _NOT_TOLD if value is None or value == "" else value


def verdict(outcomes: Mapping[Outcome, int]) -> Verdict:
    """What measured turns with these outcomes are worth as a whole."""
    total, completed = sum(outcomes.values()), outcomes.get(Outcome.COMPLETED, 0)
    reason = f"{completed} of {total} measured turns completed"
    if any(outcome in FAILURES for outcome in outcomes):
        return Verdict(Status.FAILED, reason)
    return Verdict(Status.GOOD if completed else Status.NOT_ENOUGH_DATA, reason)


# --- stages --------------------------------------------------------------------------------


def _turn_stages(table: TurnTable) -> dict[str, StageResult]:
    columns = [table.column(stage.key) for stage in TURN_STAGES]
    summaries = mapped(_summary, columns) if table.completed >= _MANY else map(_summary, columns)
    found = {}
    for stage, column, (statistics, bins) in zip(TURN_STAGES, columns, summaries, strict=True):
        lacking = table.reasons[stage.key]
        nothing = Missing(stage.unseen) if stage.unseen else _NO_MEASURED
        reason = why(stage, lacking) if lacking else nothing
        found[stage.key] = StageResult(
            stage=stage,
            statistics=statistics or reason,
            of=table.completed,
            gap=reason if statistics and lacking else None,
            sources=tuple(table.sources[stage.key]),
            bases=tuple(table.bases[stage.key]),
            values=Exact(column) if column else None,
            distribution=bins,
        )
    return found


def _summary(column: array[float]) -> tuple[Statistics | None, Distribution | None]:
    if not column:
        return None, None
    ordered = array("d", np.sort(np.frombuffer(column)).tobytes())
    return summarise_ordered(ordered), distribution(ordered)


def _sessions(records: Sequence[Session], held: set[str]) -> dict[str, StageResult]:
    """A session counts when it held a measured turn: one that held only the warmup met a
    target that was not warm yet."""
    counted = [record for record in records if record.session in held]
    found = {}
    for stage in _of_scope(Scope.SESSION):
        key = stage.key
        column = array("d", (one.values[key] for one in counted if key in one.values))
        lacking = Counter(one.absent.get(key, "") for one in counted if key not in one.values)
        nothing = Missing("no session with a measured turn was recorded")
        reason = why(stage, lacking) if lacking else nothing
        statistics, bins = _summary(column)
        found[key] = StageResult(
            stage=stage,
            statistics=statistics or reason,
            of=len(counted),
            gap=reason if statistics and lacking else None,
            sources=_distinct(sight.source.value for sight in stage.sights),
            bases=(),
            values=Exact(column) if column else None,
            distribution=bins,
        )
    return found


# --- times ---------------------------------------------------------------------------------


def _times(turn: Turn) -> list[float]:
    return [time for mark, time in turn.marks.items() if mark in stages.MARKS]


def _idle_span(warmup: Sequence[Turn], measured: Span | Missing) -> Span | Missing:
    """From the last thing seen of the warmup to the first measured input."""
    ends = [max(_times(t)) for t in warmup if t.outcome is Outcome.COMPLETED and _times(t)]
    if not ends:
        return Missing("no warmup turn was completed")
    return measured if isinstance(measured, Missing) else Span(max(ends), measured.begin)


def _warmup_seconds(warmup: Sequence[Turn]) -> float | Missing:
    """Of the first warmup turn: a second one meets a target that is warm."""
    if not warmup:
        return Missing("the run had no warmup turn")
    first = warmup[0]
    if first.outcome is not Outcome.COMPLETED:
        return Missing(f"the warmup turn was not completed: {first.outcome}")
    value = first.values.get(stages.WARMUP.key)
    if value is None:
        value = stages.value_between(stages.WARMUP, first.marks)
    return why(stages.WARMUP, [first.absent.get(stages.WARMUP.key, "")]) if value is None else value


def _queue_depth(bundle: Bundle, span: Span | Missing) -> tuple[Series, ...] | Missing:
    levels = bundle.samples.of(stages.QUEUE_DEPTH.key)
    if not levels:
        return not_seen(stages.QUEUE_DEPTH)
    if isinstance(span, Missing):
        return span
    groups = {
        label_text(level.labels): [value for at, value in level.readings if span.holds(at)]
        for level in levels
    }
    if not any(groups.values()):
        return Missing("no reading during the measured turns")
    return tuple(
        Series(label, summarise(groups[label])) for label in sorted(groups) if groups[label]
    )


def label_text(labels: Mapping[str, str]) -> str:
    """`name=value`, sorted."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _timelines(bundle: Bundle) -> tuple[Timeline, ...]:
    table, samples = bundle.turns, bundle.samples
    shown = [stage for _, of in TIMELINES for stage in of]
    columns = [table.over_time(stage.key) for stage in shown]
    lines = mapped(_line, columns) if table.completed >= _MANY else map(_line, columns)
    points = {stage.key: line for stage, line in zip(shown, lines, strict=True)}
    plots = [
        Timeline(
            title, key_unit(of[0]), tuple(Line(stage.title, points[stage.key]) for stage in of)
        )
        for title, of in TIMELINES
    ]
    plots += level_timelines(samples)
    return tuple(plots)


def _line(column: tuple[array[float], array[float]]) -> tuple[tuple[float, float], ...]:
    return thinned(*column)


def level_timelines(samples: Samples) -> list[Timeline]:
    """Plots of the levels: accelerator memory and queues."""
    return [
        Timeline(
            title,
            unit,
            tuple(
                Line(
                    label_text(level.labels) or "all",
                    tuple((at, value * scale) for at, value in thinned(level.times, level.values)),
                )
                for level in samples.of(name)
            ),
        )
        for title, unit, name, scale in (
            ("Accelerator memory", "GiB", gauges.VRAM_USED.name, 1.0 / GIB),
            ("Queue depth", "items", gauges.QUEUE_LEVEL.name, 1.0),
        )
    ]


# --- facts ---------------------------------------------------------------------------------


def _facts(run: Run, target: Target, table: TurnTable) -> Facts:
    started = datetime.fromtimestamp(run.started_unix, tz=UTC)
    host = target.host
    unknown_host = Missing("the exporter does not say")
    unlimited = Missing("no control group limits it, as far as the exporter sees")
    devices = [
        device
        for device in target.accelerators
        if run.gpu_index is None or device.index == run.gpu_index
    ]
    return Facts(
        date=f"{started.year}/{started.month}/{started.day}",
        model=_agreed(run.model, table.models),
        backend=_agreed(run.backend, table.backends),
        avatar=_agreed(run.avatar, table.avatars),
        technique=told(run.technique),
        weights=told(run.weights),
        quantization=told(run.quantization),
        caching=told(run.caching),
        hardware=_hardware(devices, target),
        driver=_driver(devices, target),
        runtime=", ".join(_distinct(device.runtime or None for device in devices))
        or _unseen_accelerator(target),
        os=(host.os if host else None) or unknown_host,
        cpus=(host.cpus if host else None) or unknown_host,
        memory_bytes=(host.memory_bytes if host else None) or unknown_host,
        cpu_limit=(host.cpu_limit if host else None) or unlimited,
        memory_limit_bytes=(host.memory_limit_bytes if host else None) or unlimited,
        opentalking=_revision(run.opentalking_commit, run.opentalking_version),
        backend_revision=_revision(run.backend_commit, run.backend_version),
        mode=told(run.mode or target.mode),
        input=told(run.input),
        prompt=told(run.prompt),
        audio=told(run.audio),
        tester=told(run.tester),
        notes=told(run.notes),
    )


def _agreed(known: str | None, seen: Iterable[str]) -> str | Missing:
    """What the benchmark was told, else what was seen, when that is one thing."""
    if known:
        return known
    found = tuple(seen)
    if len(found) > 1:
        return Missing(f"the measured turns differ: {', '.join(found)}")
    return found[0] if found else _NOT_TOLD


def _revision(commit: str | None, version: str | None) -> str | Missing:
    if commit:
        return commit[:_COMMIT_SHOWN] if _COMMIT.fullmatch(commit) else commit
    return f"release {version}" if version else _NOT_TOLD


def _unseen_accelerator(target: Target) -> Missing:
    if target.accelerators:
        found = ", ".join(str(device.index) for device in target.accelerators)
        return Missing(f"the GPU index given is not among those seen: {found}")
    return Missing(target.accelerators_absent or "the exporter saw no accelerator")


def _hardware(devices: Sequence[Accelerator], target: Target) -> str | Missing:
    names = Counter(device.name for device in devices)
    if not names:
        return _unseen_accelerator(target)
    return ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in names.items())


def _driver(devices: Sequence[Accelerator], target: Target) -> str | Missing:
    """As the page's rows word it: `driver 570.133.07`, `cann driver`."""
    if not devices:
        return _unseen_accelerator(target)
    drivers = _distinct(device.driver or None for device in devices)
    if not drivers:
        return Missing("the accelerator's library does not say")
    return ", ".join(name if "driver" in name else f"driver {name}" for name in drivers)


def _video(table: TurnTable) -> Video:
    return Video(
        resolution=_common(table, (f"{width:g}×{height:g}" for width, height in table.resolutions)),
        fps=_common(table, table.frame_rates),
        chunk_ms=_common(table, table.chunks_ms),
    )


def _common(table: TurnTable, seen: Iterable[T]) -> T | Missing:
    """What the turns agree on; upstream leaves a field null, or zero, that it does not know."""
    if not table.completed:
        return _NO_MEASURED
    if not table.timed:
        # The fields travel in the same event as the RTF, so they need the same switch.
        return not_seen(stages.RTF)
    found = tuple(seen)
    if len(found) > 1:
        return Missing(f"the measured turns differ: {', '.join(map(str, found))}")
    return found[0] if found else Missing("speech.timing does not say")
