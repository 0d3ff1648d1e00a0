"""A window of Prometheus → the same `Result` that a bundle gives.

What comes in: a Prometheus, a window and which turns of it count. What goes out: a `Result`
whose quantiles say within which bounds the exact ones lie. It must not know the benchmark
page's wording, nor any format a result is written in.

One query a panel, whatever the number of stages and steps: all histograms, turns, restarts of the
exporter, scrapes, accelerator memory, queues.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from exporter import gauges, stages
from exporter.stages import Instrument, Outcome, Scope, Stage, Startup
from report.absence import Missing
from report.counters import Instance, Lives, growth, instance, lives
from report.errors import PrometheusError
from report.memory import Span, memory
from report.prometheus import Found, Range
from report.records import Sample, Target
from report.result import (
    TIMELINES,
    Facts,
    Result,
    Series,
    StageResult,
    Video,
    key_unit,
    label_text,
    level_timelines,
    verdict,
)
from report.samples import Samples
from report.summary import summarise, summarise_histogram
from report.timeline import Series as Line
from report.timeline import Timeline
from report.turn_lines import TURN_STAGES
from report.values import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from report.prometheus import Prometheus

STRETCHES: Final = 168
"""Most stretches a window is cut into; of seven days, one an hour."""

SHORTEST: Final = 15.0
"""Seconds of a stretch, at least: Prometheus scrapes no more often as a rule."""

UNKNOWN: Final = "unknown"
"""The exporter's label of a model or backend that nobody told."""

_BUCKET, _SUM, _TOTAL = "_bucket", "_sum", "_total"
_MANY: Final = 5
"""Scrapes of a stretch from which on a few missing ones can be told."""

_BEFORE: Final = "1d"
"""How far before the window an exporter counts as having been there."""

_NOT_HELD: Final = Missing("Prometheus does not hold it")
_NO_VALUE: Final = Missing("no value in the window")
_NO_IDLE: Final = Missing("a window has no time that is known to be idle")

_HISTOGRAMS: Final = {
    stage.family: stage
    for stage in stages.STAGES.values()
    if stage.instrument is Instrument.HISTOGRAM and stage.family
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which turns of the window count."""

    model: str | None = None
    backend: str | None = None
    run: str | None = None
    """Value of the label `run`, which a scrape configuration may set."""


def read(prometheus: Prometheus, begin: float, end: float, chosen: Selection) -> Result:
    """The result of the turns between two instants (seconds since the epoch).

    Raises `PrometheusError`: when Prometheus cannot be asked, when it never scraped an
    exporter, or when the window mixes models or backends.
    """
    if not begin < end:
        raise PrometheusError(prometheus.url, "the window ends before it begins", "swap its ends")
    cuts = min(max(math.ceil((end - begin) / SHORTEST), 1), STRETCHES)
    # Prometheus counts in milliseconds: a step of fractions would not end at the window's end.
    step = max(math.floor(1000.0 * (end - begin) / cuts), 1) / 1000.0
    when = Range(end - cuts * step, end, step)
    place = {"run": chosen.run}
    turn = {**place, "model": chosen.model, "backend": chosen.backend}
    seen = _exporters(prometheus, when, place)
    known = seen.lives
    turns = [
        (one.labels, growth(one, known))
        for one in prometheus.over(_selector(gauges.TURNS.family + _TOTAL, turn), when)
    ]
    families = "|".join(_HISTOGRAMS)
    histograms = _Histograms(
        prometheus.over(_selector(f"({families})({_BUCKET}|{_SUM})", turn), when), known
    )
    _refuse_mixture(prometheus, (*_named(turns), *histograms.settings()))
    levels = _levels(prometheus, when, place)
    outcomes: Counter[Outcome] = Counter()
    for labels, grown in turns:
        if labels["outcome"] in set(Outcome) and (count := round(sum(grown))):
            outcomes[Outcome(labels["outcome"])] += count
    ordered = dict(sorted(outcomes.items(), key=lambda item: (-item[1], str(item[0]))))
    span = Span(begin, end)
    found = {stage.key: histograms.stage(stage) for stage in _HISTOGRAMS.values()}
    return Result(
        run_id=f"{_text(begin)} to {_text(end)}",
        manifest_sha256=Missing("a window of Prometheus has none"),
        origin=f"Prometheus at {prometheus.url}",
        recorded_by=_NOT_HELD,
        verdict=verdict(ordered),
        facts=_facts(begin, histograms.settings() or _named(turns)),
        synthetic=False,
        stand_ins=(),
        repeat=Missing("a window asks for none"),
        outcomes=ordered,
        unphased=0,
        startups=histograms.startups(),
        inputs=(),
        turns={stage.key: found.get(stage.key, _absent(stage)) for stage in TURN_STAGES},
        sessions={
            stage.key: found.get(stage.key, _absent(stage))
            for stage in stages.STAGES.values()
            if stage.scope is Scope.SESSION
        },
        cold_start_s=Missing("a window has none"),
        warmup_s=Missing("a window has none"),
        memory=memory(levels, Target(None, None, None, None), None, _NO_IDLE, span),
        memory_forecast=_NOT_HELD,
        queue_depth=_queues(levels),
        video=Video(_NOT_HELD, _NOT_HELD, _NOT_HELD),
        drift_bases=(),
        clock_uncertainty_seconds=_NOT_HELD,
        warmup_turns=(),
        unfinished=(),
        sources={},
        timelines=_timelines(histograms, levels, when),
        remarks=(*_remarks(when), *seen.remarks, *histograms.remarks()),
    )


# --- queries -------------------------------------------------------------------------------


def _selector(name: str, matchers: Mapping[str, str | None]) -> str:
    """A selector by a regular expression of the name and by equal labels."""
    told = [f'__name__=~"{name}"']
    told += [f'{label}="{_quoted(value)}"' for label, value in matchers.items() if value]
    return "{" + ",".join(told) + "}"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@dataclass(frozen=True, slots=True)
class _Exporters:
    lives: Lives
    remarks: tuple[str, ...]


def _exporters(prometheus: Prometheus, when: Range, place: Mapping[str, str | None]) -> _Exporters:
    """Restarts and gaps of the exporters that were scraped in the window."""
    seen = _selector(gauges.SESSIONS_SEEN.family + _TOTAL, place)
    stretch = f"[{max(when.step, 1.0):.0f}s]"
    steady = prometheus.over(seen, when)
    scrapes = prometheus.over(f"count_over_time({seen}{stretch})", when)
    if not any(value for one in scrapes for value in one.values[1:]):
        raise PrometheusError(
            prometheus.url,
            f"holds no scrape of an exporter between {_text(when.start)} and {_text(when.end)}",
            "check the window, --run, and that it scrapes the exporter",
        )
    resets = prometheus.over(f"resets({seen}{stretch})", when)
    before = prometheus.at(f"last_over_time({seen}[{_BEFORE}])", when.start)
    known = lives(steady, resets, before)
    remarks = []
    if known.count:
        remarks.append(
            f"the exporter was restarted {known.count} times: turns between the last reading "
            f"before a restart and the restart (up to {_duration(when.step)}) are not counted"
        )
    if known.older:
        remarks.append(
            "the window begins in a gap: turns are counted from the first reading after it on"
        )
    remarks += _gaps(scrapes, when)
    return _Exporters(known, tuple(remarks))


def _gaps(scrapes: Sequence[Found], when: Range) -> list[str]:
    """Stretches in which an exporter was scraped less than usual: less than nine of ten times,
    where a stretch has many scrapes, else not at all for three intervals."""
    by: dict[Instance, list[float]] = {
        instance(one.labels): [value or 0.0 for value in one.values[1:]] for one in scrapes
    }
    thin = set()
    for counts in by.values():
        seen = [i for i, count in enumerate(counts) if count]
        if not seen:
            continue
        first, usual = seen[0], statistics.median(counts[i] for i in seen)
        if usual >= _MANY:
            thin |= {i for i, c in enumerate(counts) if i > first and c < 0.9 * usual - 1.0}
            continue
        distances = [b - a for a, b in pairwise([*seen, len(counts)])]
        longest = 3.0 * max(statistics.median(distances), 1.0)
        for last, distance in zip(seen, distances, strict=True):
            if distance > longest:
                thin |= set(range(last + 1, last + distance))
    if not thin:
        return []
    at = _text(when.start + min(thin) * when.step)
    return [
        f"scrapes are missing in {len(thin)} of {when.steps} stretches of "
        f"{_duration(when.step)}, first after {at}: counts bridge such a gap, levels do not"
    ]


def _levels(prometheus: Prometheus, when: Range, place: Mapping[str, str | None]) -> Samples:
    """The highest reading of each level in each stretch, at its end."""
    samples = Samples()
    stretch = f"[{max(when.step, 1.0):.0f}s]"
    for gauge in (gauges.VRAM_USED, gauges.QUEUE_LEVEL):
        for one in prometheus.over(
            f"max_over_time({_selector(gauge.family, place)}{stretch})", when
        ):
            labels = {name: one.labels[name] for name in gauge.labels if name in one.labels}
            for at, value in zip(when.instants[1:], one.values[1:], strict=True):
                if value is not None:
                    samples.add(Sample(at, gauge.name, value, labels))
    return samples


# --- histograms ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """A histogram of one label set: edge → growth by stretch, and the growth of the sum."""

    labels: Mapping[str, str]
    buckets: dict[float, list[float]]
    sums: list[float]

    @property
    def count(self) -> float:
        """Values in the window."""
        return sum(self.buckets.get(math.inf, ()))


class _Histograms:
    """All histograms of the window, those of cold turns and of unknown models set apart."""

    def __init__(self, found: Sequence[Found], known: Lives) -> None:
        parts: dict[tuple[str, tuple[tuple[str, str], ...]], _Part] = {}
        for one in found:
            name = one.labels["__name__"]
            family = name.removesuffix(_BUCKET).removesuffix(_SUM)
            labels = {k: v for k, v in one.labels.items() if k not in {"__name__", "le"}}
            part = parts.setdefault((family, tuple(sorted(labels.items()))), _Part(labels, {}, []))
            grown = growth(one, known)
            if name.endswith(_SUM):
                part.sums.extend(grown)
            else:
                part.buckets[float(one.labels["le"])] = grown
        self._cold = 0
        self._unnamed = 0
        self._by_stage: dict[str, list[_Part]] = defaultdict(list)
        for (family, _), part in parts.items():
            if not part.count:
                continue
            stage = _HISTOGRAMS[family]
            if part.labels.get("startup") == Startup.COLD:
                self._cold = max(self._cold, round(part.count))
            else:
                self._by_stage[stage.key].append(part)
        self._set_unknown_apart()

    def _set_unknown_apart(self) -> None:
        """Values whose model nobody told do not join those of a model that is known."""
        if not any(model != UNKNOWN for model, _ in self.settings()):
            return
        for key, parts in self._by_stage.items():
            named = [part for part in parts if part.labels.get("model") != UNKNOWN]
            self._unnamed += round(sum(part.count for part in parts if part not in named))
            self._by_stage[key] = named

    def settings(self) -> tuple[tuple[str, str], ...]:
        """The models with their backends that have values."""
        return tuple(
            dict.fromkeys(
                (part.labels.get("model", UNKNOWN), part.labels.get("backend", UNKNOWN))
                for parts in self._by_stage.values()
                for part in parts
            )
        )

    def startups(self) -> dict[str, int]:
        """Turns by startup, by the stage that saw most of them."""
        best: Counter[str] = Counter()
        for key, parts in self._by_stage.items():
            if stages.STAGES[key].scope is Scope.TURN:
                seen: Counter[str] = Counter()
                for part in parts:
                    seen[part.labels.get("startup", UNKNOWN)] += round(part.count)
                best = max(best, seen, key=Counter.total)
        if self._cold:
            best[Startup.COLD] = self._cold
        return dict(sorted(best.items(), key=lambda item: (-item[1], item[0])))

    def remarks(self) -> Iterable[str]:
        """What was set apart."""
        if self._unnamed:
            yield f"values of no known model, left out: {self._unnamed}"

    def stage(self, stage: Stage) -> StageResult:
        """A stage over the whole window."""
        values = self._whole(stage, self._by_stage.get(stage.key, []), None)
        if values is None:
            return _absent(stage)
        statistics = summarise_histogram(values)
        bins = values.distribution()
        return StageResult(
            stage=stage,
            statistics=statistics,
            of=values.n,
            gap=None,
            sources=("histogram",),
            bases=(),
            values=values,
            distribution=bins if bins.counts else None,
        )

    def medians(self, stage: Stage, when: Range) -> Iterable[tuple[float, float]]:
        """(middle of a stretch, median) of each stretch with values."""
        parts = self._by_stage.get(stage.key, [])
        for stretch, begin in enumerate(when.instants[:-1]):
            values = self._whole(stage, parts, stretch)
            if values is not None:
                middle, _ = values.rank((values.n + 1) // 2)
                if math.isfinite(middle):
                    yield begin + when.step / 2.0, middle

    def _whole(self, stage: Stage, parts: list[_Part], stretch: int | None) -> Histogram | None:
        """Parts joined, in the key's unit; a signed stage's parts by who leads."""
        counts: Counter[tuple[float, float]] = Counter()
        total = 0.0
        for part in parts:
            sign = -1.0 if part.labels.get("leads") == _PICTURE else 1.0
            edges = sorted(part.buckets)
            total += sign * _of(part.sums, stretch)
            below, low = 0.0, 0.0
            for edge in edges:
                cumulative = _of(part.buckets[edge], stretch)
                ends = (low, edge) if sign > 0 else (-edge, -low)
                counts[ends[0], ends[1]] += round(max(cumulative - below, 0.0))
                below, low = max(cumulative, below), edge
        if not counts.total():
            return None
        ordered = sorted(counts)
        floor = ordered[0][0]
        return Histogram(
            edges=tuple(stage.from_base(high) for _, high in ordered),
            counts=tuple(counts[ends] for ends in ordered),
            total=stage.from_base(total),
            floor=stage.from_base(floor),
        )


_PICTURE: Final = "picture"
"""The exporter's label of a drift whose picture is early, hence negative."""


def _of(grown: Sequence[float], stretch: int | None) -> float:
    return sum(grown) if stretch is None else grown[stretch] if grown else 0.0


def _absent(stage: Stage) -> StageResult:
    reason = _NO_VALUE
    if stage.unseen:
        reason = Missing(stage.unseen)
    elif stage.instrument is Instrument.REPORT_ONLY:
        reason = Missing("not exported to Prometheus; only a run bundle has it")
    return StageResult(stage, reason, 0, None, (), ())


# --- the rest ------------------------------------------------------------------------------


def _named(
    turns: Sequence[tuple[Mapping[str, str], Sequence[float]]],
) -> tuple[tuple[str, str], ...]:
    return tuple(
        dict.fromkeys(
            (labels["model"], labels["backend"]) for labels, grown in turns if sum(grown) >= 1.0
        )
    )


def _refuse_mixture(prometheus: Prometheus, seen: Sequence[tuple[str, str]]) -> None:
    settings = sorted({pair for pair in seen if pair[0] != UNKNOWN})
    if len(settings) > 1:
        told = ", ".join(f"{model}/{backend}" for model, backend in settings)
        raise PrometheusError(
            prometheus.url,
            f"the window holds turns of {told}, which belong in no common figure",
            "choose with --model and --backend",
        )


def _facts(begin: float, settings: Sequence[tuple[str, str]]) -> Facts:
    named = [pair for pair in settings if pair[0] != UNKNOWN]
    model, backend = named[0] if named else (UNKNOWN, UNKNOWN)
    nobody = Missing("no turn in the window tells it")
    day = datetime.fromtimestamp(begin, tz=UTC)
    return Facts(
        date=f"{day.year}/{day.month}/{day.day}",
        model=nobody if model == UNKNOWN else model,
        backend=nobody if backend == UNKNOWN else backend,
        avatar=_NOT_HELD,
        technique=_NOT_HELD,
        weights=_NOT_HELD,
        quantization=_NOT_HELD,
        caching=_NOT_HELD,
        hardware=_NOT_HELD,
        driver=_NOT_HELD,
        runtime=_NOT_HELD,
        os=_NOT_HELD,
        cpus=_NOT_HELD,
        memory_bytes=_NOT_HELD,
        cpu_limit=_NOT_HELD,
        memory_limit_bytes=_NOT_HELD,
        opentalking=_NOT_HELD,
        backend_revision=_NOT_HELD,
        mode=_NOT_HELD,
        input=_NOT_HELD,
        prompt=_NOT_HELD,
        audio=_NOT_HELD,
        tester=_NOT_HELD,
        notes=_NOT_HELD,
    )


def _queues(levels: Samples) -> tuple[Series, ...] | Missing:
    found = tuple(
        Series(label_text(level.labels), summarise(level.values))
        for level in levels.of(gauges.QUEUE_LEVEL.name)
    )
    return found or _NO_VALUE


def _timelines(histograms: _Histograms, levels: Samples, when: Range) -> tuple[Timeline, ...]:
    plots = [
        Timeline(
            title,
            key_unit(of[0]),
            tuple(Line(stage.title, tuple(histograms.medians(stage, when))) for stage in of),
        )
        for title, of in TIMELINES
    ]
    plots += level_timelines(levels)
    return tuple(plots)


def _remarks(when: Range) -> tuple[str, ...]:
    return (
        "a window of Prometheus holds every turn of the deployment: a benchmark's warmup, and what "
        "was seen of turns that did not complete, are among the values",
        f"quantiles are read from histograms; levels are the highest of each "
        f"{_duration(when.step)}",
    )


def _text(unix: float) -> str:
    return datetime.fromtimestamp(unix, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
