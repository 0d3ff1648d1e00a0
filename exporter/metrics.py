"""Turns and levels → Prometheus.

What comes in: finished `Turn` records, `Readings`, session records, source health. What goes
out: an exposition text, classic or OpenMetrics with trace-id exemplars. It must not know where
any of it was seen. Families, buckets and help texts come from the catalogue.

Labels are bounded: model, backend, startup, leads, outcome, queue, source, those of a device. No
session, no user, no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from exporter import __version__, stages
from exporter.health import SourceHealth
from exporter.live import LiveSessions
from exporter.observations import Reading, Readings
from exporter.turn_record import SessionRecord, Turn
from exporter.turns import TurnAssembler

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
        self, health: Iterable[SourceHealth], assembler: TurnAssembler, live: LiveSessions
    ) -> None:
        self.registry = CollectorRegistry()
        self._histograms = {
            stage.key: Histogram(
                stage.family,
                stage.meaning,
                labelnames=_labels(stage),
                buckets=stage.buckets,
                registry=self.registry,
            )
            for stage in stages.STAGES.values()
            if stage.instrument is stages.Instrument.HISTOGRAM and stage.family
        }
        # Looking labels up costs more than observing.
        self._children: dict[tuple[str, ...], Histogram] = {}
        self._turns = self._counter(stages.TURNS)
        self._errors = self._counter(stages.ERRORS)
        self._error_codes: set[str] = set()
        self._levels = _Levels()
        self.registry.register(self._levels)
        self.registry.register(_Sessions(live))
        self.registry.register(_SelfMetrics(list(health), assembler))

    def _counter(self, count: stages.Count) -> Counter:
        return Counter(count.family, count.meaning, labelnames=count.labels, registry=self.registry)

    def turn(self, turn: Turn) -> None:
        """Count a turn and observe each of its values."""
        labels = (turn.model or UNKNOWN, turn.backend or UNKNOWN, turn.startup.value)
        self._turns.labels(*labels[:2], turn.outcome.value).inc()
        if turn.error is not None:
            self._errors.labels(self._bounded(turn.error["code"])).inc()
        exemplar = {"trace_id": turn.trace_id} if turn.trace_id else None
        for key, value in turn.values.items():
            histogram = self._histograms.get(key)
            if histogram is None:
                continue
            stage = stages.STAGES[key]
            base = stage.to_base(value)
            leads = (SOUND if base > 0 else PICTURE,) if stage.is_signed else ()
            name = (key, *labels, *leads)
            child = self._children.get(name)
            if child is None:
                child = self._children[name] = histogram.labels(*labels, *leads)
            child.observe(abs(base) if leads else base, exemplar)

    def value_of_nobody(self, stage: stages.Stage, value: float) -> None:
        """Observe a value, in the key's unit, of which only the stage is known."""
        histogram = self._histograms[stage.key]
        histogram.labels(*(UNKNOWN for _ in _labels(stage))).observe(stage.to_base(value))

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
                child = histogram.labels(record.model or UNKNOWN, record.backend or UNKNOWN)
                child.observe(stages.STAGES[key].to_base(record.values[key]))

    def readings(self, readings: Readings) -> None:
        """Replace what one source said."""
        self._levels.replace(readings.source, readings.readings)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format `accept` asks for."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


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
            gauge = stages.GAUGES[reading.name]
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
        sessions = _gauge(stages.SESSIONS)
        for state, number in self._live.counts().items():
            sessions.add_metric([state], number)
        yield sessions
        drifts = self._live.drifts()
        if drifts is not None:
            drift = _gauge(stages.LIVE_DRIFT)
            for statistic, value in zip(("worst", "median"), drifts, strict=True):
                drift.add_metric([statistic], value)
            yield drift
        yield _count(stages.SESSIONS_SEEN, self._live.seen)
        yield _count(stages.TALKING, self._live.speeches)


class _SelfMetrics(Collector):
    """How the exporter itself and its sources are doing."""

    def __init__(self, health: list[SourceHealth], assembler: TurnAssembler) -> None:
        self._health = health
        self._assembler = assembler

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
                "Events of no open turn, or that a better source brings as well.",
                seen_by.events_ignored,
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
            yield _count(stages.Count(family, meaning), value)
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
            "talkscope_source_dropped", "Input that could not be used.", labels=("source",)
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
            dropped.add_metric(name, health.dropped)
            failures.add_metric(name, health.failures)
        yield from (up, seen, duration, events, dropped, failures)


def _gauge(gauge: stages.Gauge) -> GaugeMetricFamily:
    return GaugeMetricFamily(gauge.family, gauge.meaning, labels=gauge.labels)


def _counted(gauge: stages.Gauge) -> CounterMetricFamily:
    return CounterMetricFamily(gauge.family, gauge.meaning, labels=gauge.labels)


def _count(count: stages.Count, value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(count.family, count.meaning)
    family.add_metric([], value)
    return family
