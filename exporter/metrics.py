"""Turns and levels → Prometheus.

What comes in: finished `Turn` records, `Readings`, session records, source health. What goes
out: an exposition text, classic or OpenMetrics with trace-id exemplars. It must not know where
any of it was seen. Families, buckets and help texts come from the catalogue.

Labels are bounded: model, backend, startup, leads, outcome, queue, role, source, cause, those of
a device. No session, no user, no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from exporter import __version__, gauges, stages
from exporter.arbiter import EventArbiter
from exporter.health import SourceHealth
from exporter.histogram import Histogram
from exporter.live import LiveSessions
from exporter.observations import Reading, Readings
from exporter.processes import Processes
from exporter.turn_record import SessionRecord, Turn
from exporter.turns import TurnAssembler

OPEN_METRICS: Final = "application/openmetrics-text"

UNKNOWN = "unknown"
OTHER = "other"

ERROR_CODES = 32
"""Distinct codes of errors that get a series of their own."""

SOUND = "sound"
PICTURE = "picture"
"""Values of the label `leads`: which of the two is early."""


class Metrics:
    """The exporter's registry. One instance a process."""

    def __init__(
        self,
        health: Iterable[SourceHealth],
        assembler: TurnAssembler,
        live: LiveSessions,
        arbiter: EventArbiter,
        processes: Processes,
    ) -> None:
        self.registry = CollectorRegistry()
        """Everything but the histograms, which write themselves."""
        self._histograms: dict[str, Histogram] = {}
        self._sums: dict[str, Counter] = {}
        for stage in stages.STAGES.values():
            if stage.family is None:
                continue
            if stage.instrument is stages.Instrument.HISTOGRAM:
                self._histograms[stage.key] = Histogram(
                    stage.family, stage.meaning, _labels(stage), stage.buckets
                )
            elif stage.instrument is stages.Instrument.COUNTER:
                count = gauges.Count(stage.family, stage.meaning, _labels(stage))
                self._sums[stage.key] = self._counter(count)
        self._turns = self._counter(gauges.TURNS)
        self._targets: set[tuple[str, ...]] = set()
        """Pairs of model and backend whose turns are counted."""
        self._errors = self._counter(gauges.ERRORS)
        self._error_codes: set[str] = set()
        self._levels = _Levels()
        self.registry.register(self._levels)
        self.registry.register(_Sessions(live))
        self.registry.register(_Agents(processes))
        self.registry.register(_SelfMetrics(list(health), assembler, arbiter))

    def _counter(self, count: gauges.Count) -> Counter:
        return Counter(count.family, count.meaning, labelnames=count.labels, registry=self.registry)

    def turn(self, turn: Turn) -> None:
        """Count a turn and observe each of its values."""
        labels = (turn.model or UNKNOWN, turn.backend or UNKNOWN, turn.startup.value)
        if labels[:2] not in self._targets:
            self._targets.add(labels[:2])
            for outcome in stages.Outcome:
                # All of them now: no rate sees the step with which a series begins.
                self._turns.labels(*labels[:2], outcome.value)
        self._turns.labels(*labels[:2], turn.outcome.value).inc()
        if turn.error is not None:
            self._errors.labels(self._bounded(turn.error["code"])).inc()
        exemplar = {"trace_id": turn.trace_id} if turn.trace_id else None
        for key, value in turn.values.items():
            histogram = self._histograms.get(key)
            if histogram is None:
                if key in self._sums:
                    self._add(key, value, labels)
                continue
            stage = stages.STAGES[key]
            base = stage.to_base(value)
            if stage.is_signed:
                leads = SOUND if base > 0 else PICTURE
                histogram.child(*labels, leads).observe(abs(base), exemplar)
            else:
                histogram.child(*labels).observe(base, exemplar)

    def _add(self, key: str, value: float, labels: tuple[str, ...]) -> None:
        # A counter refuses to fall; a client that tells less than none tells nothing.
        if value >= 0:
            self._sums[key].labels(*labels).inc(stages.STAGES[key].to_base(value))

    def value_of_nobody(self, stage: stages.Stage, value: float) -> None:
        """Observe a value, in the key's unit, of which only the stage is known."""
        histogram = self._histograms[stage.key]
        histogram.child(*(UNKNOWN for _ in _labels(stage))).observe(stage.to_base(value))

    def _bounded(self, code: str) -> str:
        """The code, or `other`: a target that invents codes must not invent series."""
        if code not in self._error_codes:
            if len(self._error_codes) >= ERROR_CODES:
                return OTHER
            self._error_codes.add(code)
        return code

    def session_values(self, record: SessionRecord, fresh: Iterable[str]) -> None:
        """Observe those of a session's values that are new."""
        for key in fresh:
            histogram = self._histograms.get(key)
            if histogram is not None:
                child = histogram.child(record.model or UNKNOWN, record.backend or UNKNOWN)
                child.observe(stages.STAGES[key].to_base(record.values[key]))

    def readings(self, readings: Readings) -> None:
        """Replace what one source said."""
        self._levels.replace(readings.source, readings.readings)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format `accept` asks for."""
        _, content_type = choose_encoder(accept)
        open_metrics = content_type.startswith(OPEN_METRICS)
        # Whatever escaping of names was asked for: no name of ours needs any.
        encoder, content_type = choose_encoder(OPEN_METRICS if open_metrics else "")
        texts = [h.write(open_metrics=open_metrics) for h in self._histograms.values()]
        return "".join(texts).encode() + encoder(self.registry), content_type


def _labels(stage: stages.Stage) -> tuple[str, ...]:
    if stage.scope is stages.Scope.SESSION:
        return ("model", "backend")
    common = ("model", "backend", "startup")
    return (*common, "leads") if stage.is_signed else common


class _Levels(Collector):
    """Gauges as the sources last told them; nothing is served that nobody says any more."""

    def __init__(self) -> None:
        self._by_source: dict[str, tuple[Reading, ...]] = {}

    def replace(self, source: str, readings: tuple[Reading, ...]) -> None:
        self._by_source[source] = readings

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for reading in (r for told in self._by_source.values() for r in told):
            gauge = gauges.GAUGES[reading.name]
            family = families.get(gauge.name)
            if family is None:
                family = families[gauge.name] = _counted(gauge) if gauge.counts else _gauge(gauge)
            family.add_metric([reading.labels[name] for name in gauge.labels], reading.value)
        yield from families.values()


class _Sessions(Collector):
    """How sessions stand just now."""

    def __init__(self, live: LiveSessions) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        sessions = _gauge(gauges.SESSIONS)
        for state, number in self._live.counts().items():
            sessions.add_metric([state], number)
        yield sessions
        for key, gauge in gauges.LIVE.items():
            last = self._live.last(stages.STAGES[key])
            if last is not None:
                family = _gauge(gauge)
                for statistic, value in zip(("worst", "median"), last, strict=True):
                    family.add_metric([statistic], value)
                yield family
        yield _count(gauges.SESSIONS_SEEN, self._live.seen)
        yield _count(gauges.TALKING, self._live.speeches)


class _Agents(Collector):
    """What the agents have lost."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        for count, lost in (
            (gauges.AGENT_DROPPED, self._processes.dropped),
            (gauges.AGENT_REFUSED, self._processes.refused),
            (gauges.AGENT_FAILURES, self._processes.failures),
        ):
            family = CounterMetricFamily(count.family, count.meaning, labels=count.labels)
            for role, number in lost.items():
                family.add_metric([role], number)
            yield family


class _SelfMetrics(Collector):
    """How the exporter itself and its sources are doing."""

    def __init__(
        self, health: list[SourceHealth], assembler: TurnAssembler, arbiter: EventArbiter
    ) -> None:
        self._health = health
        self._assembler = assembler
        self._arbiter = arbiter

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "talkscope_build_info", "Talkscope's version; always 1.", labels=("version",)
        )
        build.add_metric([__version__], 1)
        yield build
        seen_by = self._assembler
        for family, meaning, value in (
            (
                "talkscope_log_lines_unattributed",
                "Measuring log lines that could belong to more than one turn, or to none.",
                seen_by.log_lines_unattributed,
            ),
            (
                "talkscope_events_ignored",
                "Events of no open turn.",
                seen_by.events_ignored,
            ),
            (
                "talkscope_events_repeated",
                "Events that did not count because another source brings them.",
                self._arbiter.repeated,
            ),
            (
                "talkscope_events_recovered",
                "Events that counted late: the source that was believed turned out to be away.",
                self._arbiter.recovered,
            ),
            (
                "talkscope_sessions_dropped",
                "Sessions forgotten because there were too many.",
                seen_by.sessions_dropped,
            ),
            (
                "talkscope_turns_dropped",
                "Open turns that were lost with a forgotten session.",
                seen_by.turns_dropped,
            ),
        ):
            yield _count(gauges.Count(family, meaning), value)
        open_turns = GaugeMetricFamily("talkscope_open_turns", "Turns that are not finished.")
        open_turns.add_metric([], seen_by.open_turns)
        yield open_turns
        up = GaugeMetricFamily(
            "talkscope_source_up", "Whether a source can be read.", labels=("source",)
        )
        seen = GaugeMetricFamily(
            "talkscope_source_last_seen_timestamp_seconds",
            "When a source was last read.",
            labels=("source",),
        )
        duration = GaugeMetricFamily(
            "talkscope_source_duration_seconds",
            "Duration of a source's last reading.",
            labels=("source",),
        )
        events = CounterMetricFamily(
            "talkscope_source_events", "Observations of a source.", labels=("source",)
        )
        dropped = CounterMetricFamily(
            "talkscope_source_dropped",
            "Input that could not be used, by the cause; no series before the first.",
            labels=("source", "cause"),
        )
        gaps = CounterMetricFamily(
            "talkscope_source_gaps",
            "Interruptions after which a source answered again, having perhaps missed something.",
            labels=("source",),
        )
        failures = CounterMetricFamily(
            "talkscope_source_failures", "Failed readings of a source.", labels=("source",)
        )
        for health in self._health:
            name = [health.name]
            up.add_metric(name, float(health.up))
            if health.last_seen is not None:
                seen.add_metric(name, health.last_seen)
            if health.duration is not None:
                duration.add_metric(name, health.duration)
            events.add_metric(name, health.events)
            for cause, number in health.dropped_by.items():
                dropped.add_metric([health.name, cause], number)
            gaps.add_metric(name, health.gaps)
            failures.add_metric(name, health.failures)
        yield from (up, seen, duration, events, dropped, gaps, failures)


def _gauge(gauge: gauges.Gauge) -> GaugeMetricFamily:
    return GaugeMetricFamily(gauge.family, gauge.meaning, labels=gauge.labels)


def _counted(gauge: gauges.Gauge) -> CounterMetricFamily:
    return CounterMetricFamily(gauge.family, gauge.meaning, labels=gauge.labels)


def _count(count: gauges.Count, value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(count.family, count.meaning)
    family.add_metric([], value)
    return family
