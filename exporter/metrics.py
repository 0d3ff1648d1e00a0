"""Turns and levels → Prometheus.

What comes in: finished `Turn` records, `Readings`, session records, source health. What goes
out: an exposition text, classic or OpenMetrics with trace-id exemplars. It must not know where
any of it was seen. Families, buckets and help texts come from the catalogue.

Labels are bounded: model, backend, startup, leads, outcome, device, queue, source. No session,
no user, no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from exporter import __version__, stages
from exporter.health import SourceHealth
from exporter.observations import Reading, Readings
from exporter.turn_record import SessionRecord, Turn

UNKNOWN = "unknown"

SOUND = "sound"
PICTURE = "picture"
"""Values of the label `leads`: which of the two is early."""


class Metrics:
    """The exporter's registry. One instance a process."""

    def __init__(
        self,
        health: Iterable[SourceHealth],
        *,
        speaking: Callable[[], int],
        unattributed_lines: Callable[[], int],
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
        self._turns = Counter(
            "opentalking_turns",
            "Turns by how they ended.",
            labelnames=("model", "backend", "outcome"),
            registry=self.registry,
        )
        self._levels = _Levels()
        self.registry.register(self._levels)
        self.registry.register(_SelfMetrics(list(health), speaking, unattributed_lines))

    def turn(self, turn: Turn) -> None:
        """Count a turn and observe each of its values."""
        labels = (turn.model or UNKNOWN, turn.backend or UNKNOWN, turn.startup.value)
        self._turns.labels(*labels[:2], turn.outcome.value).inc()
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
        families: dict[str, GaugeMetricFamily] = {}
        for reading in (r for told in self._by_source.values() for r in told):
            gauge = stages.GAUGES[reading.name]
            family = families.get(gauge.name)
            if family is None:
                family = families[gauge.name] = GaugeMetricFamily(
                    gauge.family, gauge.meaning, labels=gauge.labels
                )
            family.add_metric([reading.labels[name] for name in gauge.labels], reading.value)
        yield from families.values()


class _SelfMetrics(Collector):
    """How the exporter itself and its sources are doing."""

    def __init__(
        self,
        health: list[SourceHealth],
        speaking: Callable[[], int],
        unattributed_lines: Callable[[], int],
    ) -> None:
        self._health = health
        self._speaking = speaking
        self._unattributed_lines = unattributed_lines

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "talkscope_build_info", "Talkscope's version; always 1.", labels=("version",)
        )
        build.add_metric([__version__], 1)
        yield build
        speaking = GaugeMetricFamily(
            "opentalking_sessions_speaking", "Sessions whose answer is being generated."
        )
        speaking.add_metric([], self._speaking())
        yield speaking
        lines = CounterMetricFamily(
            "talkscope_log_lines_unattributed",
            "Measuring log lines that could belong to more than one turn, or to none.",
        )
        lines.add_metric([], self._unattributed_lines())
        yield lines
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
