"""A bundle → the result of its run: pure, and the same for the same bundle.

What comes in: a verified `Bundle`. What goes out: a `Result`, every value of a run that a
report can show, or `Missing` with the reason in its place. It must not know the benchmark
page's wording, nor any format a result is written in.

Three rules hold throughout. Warmup and measured turns are never summarised together. Only a
completed turn gives values; every other one counts among the outcomes. What nobody saw has a
reason and no number.

How each quantity is computed follows OpenTalking's published rows; `exporter.stages` says
where their way and the benchmark page's words differ.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeVar

from exporter import stages
from exporter.stages import InputKind, Outcome, Phase, Scope, Stage
from report.absence import Missing, not_seen, why
from report.memory import Memory, Span, forecast, memory
from report.records import Accelerator, Session, Turn
from report.summary import Statistics, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from report.bundle import Bundle
    from report.records import MemoryForecast, Run, SourceHealth, Target, Timing

T = TypeVar("T")

FAILURES: Final = frozenset({Outcome.FAILED, Outcome.VANISHED, Outcome.NO_MEDIA, Outcome.TIMEOUT})
"""Outcomes that are the target's; an interrupted turn was ended by its user, and an incomplete
one by the exporter's stop."""

MOCK_MODEL: Final = "mock"
"""OpenTalking's model that animates nothing."""

_NOT_TOLD: Final = Missing("not told to the benchmark")
_NO_MEASURED: Final = Missing("no measured turn was completed")
_MARKS: Final = "marks"
"""The source of a value that the exporter computed from two marks."""
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
    manifest_sha256: str
    """Identifies the bundle: the manifest holds the hash of each of its files."""
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
    """Every warmup or measured turn that was not completed."""
    sources: Mapping[str, SourceHealth]


def summarise_bundle(bundle: Bundle) -> Result:
    """The result of a run. Raises nothing: a verified bundle has a result, if an empty one."""
    warmup = tuple(turn for turn in bundle.turns if turn.phase is Phase.WARMUP)
    measured = tuple(turn for turn in bundle.turns if turn.phase is Phase.MEASURED)
    completed = tuple(turn for turn in measured if turn.outcome is Outcome.COMPLETED)
    outcomes = _counted(turn.outcome for turn in measured)
    span = _span(measured)
    run, manifest = bundle.run, bundle.manifest
    used = memory(bundle.samples, bundle.target, run.gpu_index, _idle_span(warmup, span), span)
    return Result(
        run_id=manifest.run_id,
        manifest_sha256=bundle.sha256,
        recorded_by=" ".join(filter(None, (manifest.tool, manifest.version)))
        or Missing("the manifest does not say"),
        verdict=_verdict(outcomes),
        facts=_facts(run, bundle.target, completed),
        synthetic=bool(run.synthetic),
        stand_ins=run.stand_ins or (),
        repeat=_told(run.repeat),
        outcomes=outcomes,
        unphased=sum(turn.phase is None for turn in bundle.turns),
        startups=_counted(turn.startup or "unknown" for turn in completed),
        inputs=_distinct(turn.input for turn in measured),
        turns={s.key: _turn_stage(s, completed) for s in _of_scope(Scope.TURN)},
        sessions=_sessions(bundle.sessions, measured),
        cold_start_s=run.cold_start.seconds
        if run.cold_start
        else Missing("the target was already running"),
        warmup_s=_warmup_seconds(warmup),
        memory=used,
        memory_forecast=forecast(used, bundle.target),
        queue_depth=_queue_depth(bundle, span),
        video=_video(completed),
        drift_bases=_distinct(turn.drift.basis for turn in completed if turn.drift),
        clock_uncertainty_seconds=max(
            (
                turn.clock.client_uncertainty_seconds
                for turn in completed
                if turn.clock and turn.clock.client_uncertainty_seconds is not None
            ),
            default=Missing("no client told how well its clock is known"),
        ),
        warmup_turns=warmup,
        unfinished=tuple(t for t in warmup + measured if t.outcome is not Outcome.COMPLETED),
        sources=dict(sorted(bundle.target.sources.items())),
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


def value_source(stage: Stage, turn: Turn) -> str:
    """Where a turn's value of a stage came from; empty when nobody told.

    A value computed from marks names who saw each of them, since one that the exporter only
    `estimated` deserves less trust.
    """
    source = turn.value_sources.get(stage.key, "")
    seers = [turn.mark_sources.get(mark, "unknown") for mark in (stage.start, stage.end) if mark]
    if source == _MARKS and seers:
        return f"{source} ({' → '.join(seers)})"
    return source


def _of_scope(scope: Scope) -> tuple[Stage, ...]:
    return tuple(stage for stage in stages.STAGES.values() if stage.scope is scope)


def _distinct(items: Iterable[T | None]) -> tuple[T, ...]:
    """The different items that are not None, in order of appearance."""
    return tuple(dict.fromkeys(item for item in items if item is not None))


def _counted(items: Iterable[T]) -> dict[T, int]:
    return dict(sorted(Counter(items).items(), key=lambda item: (-item[1], str(item[0]))))


def _told(value: T | None) -> T | Missing:
    return _NOT_TOLD if value is None or value == "" else value


def _verdict(outcomes: Mapping[Outcome, int]) -> Verdict:
    total, completed = sum(outcomes.values()), outcomes.get(Outcome.COMPLETED, 0)
    reason = f"{completed} of {total} measured turns completed"
    if any(outcome in FAILURES for outcome in outcomes):
        return Verdict(Status.FAILED, reason)
    return Verdict(Status.GOOD if completed else Status.NOT_ENOUGH_DATA, reason)


# --- stages --------------------------------------------------------------------------------


def _stage_result(
    stage: Stage,
    records: Sequence[Turn] | Sequence[Session],
    nothing: Missing,
    sources: tuple[str, ...],
    bases: tuple[str, ...],
) -> StageResult:
    values = [record.values[stage.key] for record in records if stage.key in record.values]
    lacking = [record.absent for record in records if stage.key not in record.values]
    reason = why(stage, lacking) if lacking else nothing
    return StageResult(
        stage=stage,
        statistics=summarise(values) if values else reason,
        of=len(records),
        gap=reason if values and lacking else None,
        sources=sources,
        bases=bases,
    )


def _turn_stage(stage: Stage, completed: Sequence[Turn]) -> StageResult:
    seen = [turn for turn in completed if stage.key in turn.values]
    return _stage_result(
        stage,
        completed,
        Missing(stage.unseen) if stage.unseen else _NO_MEASURED,
        _distinct(value_source(stage, turn) or None for turn in seen),
        _distinct(
            turn.bases.get(name)
            for turn in seen
            for name in (stage.key, stage.start, stage.end)
            if name is not None
        ),
    )


def _sessions(records: Sequence[Session], measured: Sequence[Turn]) -> dict[str, StageResult]:
    """A session counts when it held a measured turn: one that held only the warmup met a
    target that was not warm yet."""
    held = {turn.session for turn in measured}
    counted = [record for record in records if record.session in held]
    return {
        stage.key: _stage_result(
            stage,
            counted,
            Missing("no session with a measured turn was recorded"),
            _distinct(sight.source.value for sight in stage.sights),
            (),
        )
        for stage in _of_scope(Scope.SESSION)
    }


# --- times ---------------------------------------------------------------------------------


def _times(turn: Turn) -> list[float]:
    return [time for mark, time in turn.marks.items() if mark in stages.MARKS]


def _span(turns: Sequence[Turn]) -> Span | Missing:
    """From the first input to the last thing seen of any of the turns, failed ones included:
    the target worked on those as well."""
    begins = [turn.marks.get(stages.INPUT, min(_times(turn))) for turn in turns if _times(turn)]
    ends = [max(_times(turn)) for turn in turns if _times(turn)]
    return Span(min(begins), max(ends)) if begins else Missing("no measured turn was seen")


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
    return why(stages.WARMUP, [first.absent]) if value is None else value


def _queue_depth(bundle: Bundle, span: Span | Missing) -> tuple[Series, ...] | Missing:
    readings = [s for s in bundle.samples if s.name == stages.QUEUE_DEPTH.key]
    if not readings:
        return not_seen(stages.QUEUE_DEPTH)
    if isinstance(span, Missing):
        return span
    groups: dict[str, list[float]] = {}
    for reading in readings:
        if span.holds(reading.unix):
            label = ", ".join(f"{name}={value}" for name, value in sorted(reading.labels.items()))
            groups.setdefault(label, []).append(reading.value)
    if not groups:
        return Missing("no reading during the measured turns")
    return tuple(Series(label, summarise(groups[label])) for label in sorted(groups))


# --- facts ---------------------------------------------------------------------------------


def _facts(run: Run, target: Target, completed: Sequence[Turn]) -> Facts:
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
        model=_agreed(run.model, (turn.model for turn in completed)),
        backend=_agreed(run.backend, (turn.backend for turn in completed)),
        avatar=_agreed(run.avatar, (turn.avatar for turn in completed)),
        technique=_told(run.technique),
        weights=_told(run.weights),
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
        mode=_told(run.mode or target.mode),
        input=_told(run.input),
        prompt=_told(run.prompt),
        audio=_told(run.audio),
        tester=_told(run.tester),
        notes=_told(run.notes),
    )


def _agreed(told: str | None, seen: Iterable[str | None]) -> str | Missing:
    """What the benchmark was told, else what was seen, when that is one thing."""
    if told:
        return told
    found = _distinct(seen)
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


def _video(completed: Sequence[Turn]) -> Video:
    return Video(
        resolution=_common(completed, _resolution),
        fps=_common(completed, lambda timing: timing.output_fps),
        chunk_ms=_common(completed, _chunk_ms),
    )


def _resolution(timing: Timing) -> str | None:
    if not timing.output_width or not timing.output_height:
        return None
    return f"{timing.output_width:g}×{timing.output_height:g}"


def _chunk_ms(timing: Timing) -> float | None:
    # A rate below 1 Hz is none, and dividing by a tiny one would leave the finite numbers.
    if not timing.chunk_samples or not timing.sample_rate or timing.sample_rate < 1.0:
        return None
    return timing.chunk_samples / timing.sample_rate * 1000.0


def _common(completed: Sequence[Turn], field: Callable[[Timing], T | None]) -> T | Missing:
    """What the turns agree on; upstream leaves a field null, or zero, that it does not know."""
    if not completed:
        return _NO_MEASURED
    timings = [turn.timing for turn in completed if turn.timing]
    if not timings:
        # The fields travel in the same event as the RTF, so they need the same switch.
        return not_seen(stages.RTF)
    found = _distinct(field(timing) or None for timing in timings)
    if len(found) > 1:
        return Missing(f"the measured turns differ: {', '.join(map(str, found))}")
    return found[0] if found else Missing("speech.timing does not say")
