"""Readings of accelerator memory → idle and peak.

What comes in: the samples of a bundle and two spans of time. What goes out: `Memory`, whose
two figures are of one scope on one device, so that they can be compared.
It must not know turns, nor how the readings were taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from exporter import stages
from report.absence import Missing, not_seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from report.records import Target
    from report.samples import Level, Samples


_NONE_MEASURED: Final = Missing("no reading during the measured turns")


class MemoryScope(StrEnum):
    """Whose memory a reading counts; the order is the order of preference."""

    PROCESS = "process"
    """The target's processes: what the benchmark page's rows hold."""
    DEVICE_DELTA = "device_delta"
    """The whole device, less what it held before the target: the page's fallback for WSL2."""
    DEVICE = "device"
    """The whole device, other programs included."""


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

    Of the scopes that have a reading in either span the preferred one gives both figures.
    With readings of several devices, `gpu_index` must say which one counts: their sum would
    include devices that the target does not use.
    """
    device_label, scope_label = stages.VRAM_USED.labels
    levels = samples.of(stages.VRAM_USED.name)
    if not levels:
        return _nothing(target.accelerators_absent or not_seen(stages.PEAK_VRAM).reason)
    devices = sorted({level.labels.get(device_label, "") for level in levels})
    device = devices[0] if gpu_index is None else str(gpu_index)
    if gpu_index is None and len(devices) > 1:
        return _nothing(f"devices {', '.join(devices)} were read and no GPU index was given")
    if device not in devices:
        return _nothing(f"device {device} was not read, only {', '.join(devices)}")
    spans = [span for span in (idle, measured) if isinstance(span, Span)]
    for scope in MemoryScope:
        series = [
            level
            for level in levels
            if level.labels.get(device_label, "") == device
            and level.labels.get(scope_label) == scope
        ]
        if any(span.holds(at) for span in spans for level in series for at in level.times):
            return Memory(_last(series, idle), _highest(series, measured), scope, device)
    return _nothing("no reading falls into the idle time or the measured turns")


def _nothing(reason: str) -> Memory:
    return Memory(Missing(reason), Missing(reason), None, None)


def _last(series: Sequence[Level], span: Span | Missing) -> float | Missing:
    if isinstance(span, Missing):
        return span
    inside = _inside(series, span)
    if not inside:
        return Missing("no reading between the end of the warmup turn and the first measured input")
    return max(inside, key=lambda reading: reading[0])[1]


def _highest(series: Sequence[Level], span: Span | Missing) -> float | Missing:
    if isinstance(span, Missing):
        return span
    inside = _inside(series, span)
    return max(value for _, value in inside) if inside else _NONE_MEASURED


def _inside(series: Sequence[Level], span: Span) -> list[tuple[float, float]]:
    return [reading for level in series for reading in level.readings if span.holds(reading[0])]
