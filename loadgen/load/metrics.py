"""A worker's Prometheus endpoint: its entries in, `talkscope_loadgen_*` families out.

Stages that a viewer sees are derived from the catalogue, so a family here is the exporter's with
another prefix: this worker's viewers alone, by scenario, whether an exporter runs or not. Labels
are bounded: scenario, outcome, cause, state, flag. It must not know where an entry came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter import stages
from exporter.stages import Instrument, Scope, Source, Stage
from loadgen.load.verdict import Flag, Window, flags

PREFIX: Final = "talkscope_loadgen_"

SEEN: Final[tuple[Stage, ...]] = tuple(
    stage
    for stage in stages.STAGES.values()
    if stage.instrument is Instrument.HISTOGRAM
    and stage.scope is not Scope.RUN
    and any(sight.source is Source.CLIENT for sight in stage.sights)
    # It needs the exporter's clock.
    and stage.start != stages.MEDIA_QUEUED
)
"""The catalogue's stages that a client sees by itself."""


class Metrics:
    """One registry a worker process."""

    def __init__(self, sessions: Callable[[], int], speaking: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._stages = {stage.key: self._histogram(stage) for stage in SEEN}
        gauge = self._gauge("sessions", "Sessions of this worker, by state.", ("state",))
        gauge.labels("open").set_function(sessions)
        gauge.labels("speaking").set_function(speaking)
        self._visits = self._counter("visits", "Visits begun.", ("scenario",))
        self._turns = self._counter("turns", "Turns by how they ended.", ("scenario", "outcome"))
        self._failed = self._counter(
            "visits_failed", "Visits that ended early, by cause.", ("scenario", "cause")
        )
        self._refused = self._counter(
            "refusals", "Sessions that the target put off, by HTTP status.", ("status",)
        )
        self._orphans = self._counter("orphans", "Sessions that could not be deleted.")
        self._windows = self._counter("windows", "Windows of the generator's own health.")
        self._flagged = self._counter(
            "windows_flagged", "Windows in which the generator was late, by sign.", ("flag",)
        )
        # There from the start: the first of a series that was not there is no increase.
        for flag in Flag:
            self._flagged.labels(flag.name.lower())
        self._drops = self._counter(
            "udp_dropped_datagrams", "Datagrams this machine dropped for full socket buffers."
        )
        self._levels = _Levels()
        self.registry.register(self._levels)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Count one entry."""
        match entry["kind"]:
            case "begun":
                self._visits.labels(entry["scenario"]).inc()
            case "opened":
                self._observe(entry["scenario"], entry["values"])
            case "turn":
                self._turns.labels(entry["scenario"], entry["outcome"]).inc()
                self._observe(entry["scenario"], entry["values"])
            case "failed":
                self._failed.labels(entry["scenario"], entry["cause"]).inc()
            case "refused":
                self._refused.labels(str(entry["status"])).inc()
            case "session" if entry.get("orphan"):
                self._orphans.inc()
            case "window":
                self._window(Window.from_json(entry))

    def _observe(self, scenario: str, values: Mapping[str, float]) -> None:
        for key in self._stages.keys() & values.keys():
            stage = stages.STAGES[key]
            base = stage.to_base(values[key])
            leads = ("sound" if base > 0 else "picture",) if stage.is_signed else ()
            self._stages[key].labels(scenario, *leads).observe(abs(base) if leads else base)

    def _window(self, window: Window) -> None:
        self._windows.inc()
        for flag in flags(window):
            self._flagged.labels(flag.name.lower()).inc()
        self._drops.inc(window.udp_drops)
        self._levels.window = window

    def _histogram(self, stage: Stage) -> Histogram:
        assert stage.family is not None
        return Histogram(
            PREFIX + stage.family.removeprefix("opentalking_"),
            stage.meaning,
            labelnames=("scenario", "leads") if stage.is_signed else ("scenario",),
            buckets=stage.buckets,
            registry=self.registry,
        )

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(PREFIX + name, meaning, labelnames=labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(PREFIX + name, meaning, labelnames=labels, registry=self.registry)


class _Levels(Collector):
    """The last window; what was not sampled in it is not there."""

    _FAMILIES: Final = (
        (
            "loop_lag_p99_s",
            "loop_lag_p99_seconds",
            "99th percentile of the event loop's lag in the last window.",
        ),
        (
            "schedule_delay_p99_s",
            "schedule_delay_p99_seconds",
            "99th percentile of how late viewers were begun in the last window.",
        ),
        (
            "kernel_delay_p99_s",
            "kernel_delay_p99_seconds",
            "99th percentile from a datagram's arrival to its handler, last window.",
        ),
        ("loop_cpu", "loop_cpu_ratio", "CPU of the receiving thread, last window."),
        ("process_cpu", "process_cpu_ratio", "CPU of the process, last window."),
        ("open_files", "open_files", "Open file descriptors."),
    )

    def __init__(self) -> None:
        self.window: Window | None = None

    def collect(self) -> Iterator[Metric]:
        for field, name, meaning in self._FAMILIES:
            value = getattr(self.window, field) if self.window is not None else None
            if value is not None:
                yield GaugeMetricFamily(PREFIX + name, meaning, value=value)
