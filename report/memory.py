"""Readings of accelerator memory → idle and peak.

What comes in: the samples of a bundle and two spans of time. What goes out: `Memory`, whose
two figures are of one scope on one device, so that they can be compared.
It must not know turns, nor how the readings were taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter import gauges, stages
from exporter.gauges import MemoryGroup, MemoryScope
from report.absence import Missing, not_seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from report.records import MemoryForecast, Target
    from report.samples import Samples


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, both ends included; seconds since the Unix epoch."""

    begin: float
    end: float

    def holds(self, unix: float) -> bool:
        """Whether an instant lies in it."""
        return self.begin <= unix <= self.end


@dataclass(frozen=True, slots=True)
class Memory:
    """Accelerator memory in bytes."""

    idle: float | Missing
    peak: float | Missing
    scope: MemoryScope | None
    """None when nothing was read."""
    device: str | None


def memory(
    samples: Samples,
    target: Target,
    gpu_index: int | None,
    idle: Span | Missing,
    measured: Span | Missing,
) -> Memory:
    """Idle memory is the last reading in `idle`, peak memory the highest in `measured`.

    Of the scopes that have a reading in either span the preferred one gives both figures;
    scope `process` counts the target's groups together. With readings of several devices the
    one that holds the target's processes counts; where that is not one, `gpu_index` must say
    which does: their sum would include devices that the target does not use.
    """
    readings = _readings(samples)
    if not readings:
        return _nothing(target.accelerators_absent or not_seen(stages.PEAK_VRAM).reason)
    devices = sorted({device for device, _ in readings})
    if gpu_index is not None:
        device = str(gpu_index)
    elif len(devices) == 1:
        device = devices[0]
    else:
        holding = [name for name in devices if (name, MemoryScope.PROCESS) in readings]
        if len(holding) != 1:
            return _nothing(f"devices {', '.join(devices)} were read and no GPU index was given")
        [device] = holding
    if device not in devices:
        return _nothing(f"device {device} was not read, only {', '.join(devices)}")
    spans = [span for span in (idle, measured) if isinstance(span, Span)]
    for scope in MemoryScope:
        series = readings.get((device, scope), {})
        if any(span.holds(unix) for span in spans for unix in series):
            return Memory(_last(series, idle), _highest(series, measured), scope, device)
    return _nothing("no reading falls into the idle time or the measured turns")


def forecast(memory: Memory, target: Target) -> MemoryForecast | Missing:
    """The exporter's forecast for the device that the run's figures are of."""
    for found in target.memory_forecast:
        if found.device == memory.device:
            return found
    return Missing(target.memory_forecast_absent or "the device has no forecast")


def _readings(samples: Samples) -> dict[tuple[str, str], dict[float, float]]:
    """Bytes by instant, by device and scope; groups that are not the target's are left out."""
    device, scope, group = gauges.VRAM_USED.labels
    targets = {name.value for name in MemoryGroup if name.is_targets}
    found: dict[tuple[str, str], dict[float, float]] = {}
    for level in samples.of(gauges.VRAM_USED.name):
        labels = level.labels
        # Bundles of version 0.1.0 name no group, and hold the target's processes alone.
        of_processes = labels.get(scope) == MemoryScope.PROCESS
        if of_processes and labels.get(group) not in (None, *targets):
            continue
        series = found.setdefault((labels.get(device, ""), labels.get(scope, "")), {})
        # Groups add up; two readings of one series at one instant do not.
        for unix, used in dict(level.readings).items():
            series[unix] = used + (series.get(unix, 0.0) if of_processes else 0.0)
    return found


def _nothing(reason: str) -> Memory:
    return Memory(Missing(reason), Missing(reason), None, None)


def _last(series: Mapping[float, float], span: Span | Missing) -> float | Missing:
    if isinstance(span, Missing):
        return span
    inside = [unix for unix in series if span.holds(unix)]
    if not inside:
        return Missing("no reading between the end of the warmup turn and the first measured input")
    return series[max(inside)]


def _highest(series: Mapping[float, float], span: Span | Missing) -> float | Missing:
    if isinstance(span, Missing):
        return span
    inside = [used for unix, used in series.items() if span.holds(unix)]
    return max(inside) if inside else Missing("no reading during the measured turns")
