"""What any vendor's library says of its devices, in words that are nobody's.

What comes in: nothing. What goes out: the records that a vendor's file fills, and the readings
that they become. It must not know a vendor, a library or how often it is asked.

Every field that is None was not answered. No reading is made of it: absent is not zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from exporter import gauges
from exporter.gauges import Gauge, MemoryGroup, MemoryScope
from exporter.observations import Reading


@dataclass(frozen=True, slots=True)
class Device:
    """What a device is. `device` is the label of its series: the index, as a text."""

    device: str
    vendor: str
    """`nvidia`, `ascend`."""
    name: str
    memory_bytes: float | None
    driver: str | None
    """In the benchmark page's words: `driver 570.133.07`."""
    runtime: str | None = None
    """`CUDA 12.8`, `CANN 8.0`."""

    def to_json(self) -> dict[str, object]:
        """An entry of `accelerators` in the bundle's `target.json` (docs/bundle.md)."""
        return {
            "index": int(self.device.partition(":")[0]),
            "device": self.device,
            "vendor": self.vendor,
            "name": self.name,
            "memory_bytes": self.memory_bytes,
            "driver": self.driver,
            "runtime": self.runtime,
        }


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Memory of one process on one device; `used` in bytes, None where the driver will not say."""

    pid: int
    used: float | None


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of one device, in bytes."""

    device: str
    used: float
    total: float
    free: float | None = None
    processes: tuple[ProcessMemory, ...] | None = None
    """None where the library does not list processes, such as under WSL2."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """How one device is doing, besides its memory."""

    device: str
    healthy: bool | None = None
    """False for what the library itself calls a fault, such as a GPU that fell off the bus."""
    utilization: float | None = None
    """Share of time with work on the device, 0 to 1; likewise the following three."""
    memory_utilization: float | None = None
    """Share of time in which its memory was read or written."""
    encoder: float | None = None
    decoder: float | None = None
    power: float | None = None
    """Watts."""
    temperature: float | None = None
    """Degrees Celsius."""
    clocks: Mapping[str, float] = field(default_factory=dict)
    """Domain → hertz."""
    throttling: Mapping[str, bool] = field(default_factory=dict)
    """Reason → whether it holds the clocks down just now; only reasons the device can give."""
    ecc_errors: Mapping[str, float] = field(default_factory=dict)
    """`corrected`, `uncorrected` → errors since the driver was loaded."""
    critical_errors: float | None = None
    """Errors that the driver reported since the exporter began to listen (NVIDIA: XID)."""
    last_critical_error: float | None = None
    """Code of the latest of them."""


@dataclass(frozen=True, slots=True)
class Collected:
    """One round over all devices of a library.

    `lost` names the devices that could not be read, and why; the others are in `devices`.
    """

    devices: tuple[DeviceMemory, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)


class LibraryError(Exception):
    """The library as a whole cannot be read; the message is the reason, in one line."""


class NoDeviceError(LibraryError):
    """There is nothing to read: no library on this machine, or no device behind it."""


class Library(Protocol):
    """A vendor's management library. Called from one thread at a time; each call may block."""

    @property
    def name(self) -> str:
        """Name of the source: `nvidia`, `ascend`."""
        ...

    @property
    def least_interval(self) -> float:
        """Seconds below which two readings are too close to be worth their cost."""
        ...

    @property
    def unreadable(self) -> Counter[str]:
        """Answers that could not be understood since this was last emptied, by query; the rest
        of what was told then is good."""
        ...

    def open(self) -> tuple[Device, ...]:
        """Begin a session, and say what is there. Raises `LibraryError`."""
        ...

    def memory(self) -> Collected:
        """Memory of every device. Raises `LibraryError` when no device can be read any more."""
        ...

    def states(self) -> tuple[DeviceState, ...]:
        """State of every device, lost ones included. Raises `LibraryError`."""
        ...

    def close(self) -> None:
        """End the session; never raises."""
        ...


def memory_readings(
    devices: Iterable[DeviceMemory],
    group_of: Callable[[int], MemoryGroup],
    baseline: Mapping[str, float],
) -> Iterator[Reading]:
    """Levels of memory, by scope.

    `baseline` maps a device to the bytes that were in use before the target started. A device
    that uses less than its baseline has no delta: what was measured then has changed.
    """
    for memory in devices:
        device = {"device": memory.device}
        yield Reading(gauges.VRAM_TOTAL.name, memory.total, device)
        if memory.free is not None:
            yield Reading(gauges.VRAM_FREE.name, memory.free, device)
        yield _used(memory.used, memory.device, MemoryScope.DEVICE, MemoryGroup.ALL)
        before = baseline.get(memory.device)
        if before is not None and memory.used >= before:
            yield _used(
                memory.used - before, memory.device, MemoryScope.DEVICE_DELTA, MemoryGroup.ALL
            )
        for group, used in _by_group(memory.processes or (), group_of).items():
            yield _used(used, memory.device, MemoryScope.PROCESS, group)


def state_readings(states: Iterable[DeviceState]) -> Iterator[Reading]:
    """Everything that was answered."""
    for state in states:
        device = {"device": state.device}
        single: tuple[tuple[Gauge, float | None], ...] = (
            (gauges.ACCELERATOR_HEALTHY, state.healthy),
            (gauges.ACCELERATOR_UTILIZATION, state.utilization),
            (gauges.ACCELERATOR_MEMORY_UTILIZATION, state.memory_utilization),
            (gauges.ACCELERATOR_ENCODER, state.encoder),
            (gauges.ACCELERATOR_DECODER, state.decoder),
            (gauges.ACCELERATOR_POWER, state.power),
            (gauges.ACCELERATOR_TEMPERATURE, state.temperature),
            (gauges.ACCELERATOR_CRITICAL_ERRORS, state.critical_errors),
            (gauges.ACCELERATOR_LAST_CRITICAL_ERROR, state.last_critical_error),
        )
        for gauge, value in single:
            if value is not None:
                yield Reading(gauge.name, float(value), device)
        for gauge, values in (
            (gauges.ACCELERATOR_CLOCK, state.clocks),
            (gauges.ACCELERATOR_THROTTLED, state.throttling),
            (gauges.ACCELERATOR_ECC_ERRORS, state.ecc_errors),
        ):
            _, label = gauge.labels
            for name, value in values.items():
                yield Reading(gauge.name, float(value), {**device, label: name})


def info_readings(devices: Iterable[Device]) -> Iterator[Reading]:
    """What the devices are, as series that are always 1."""
    for device in devices:
        labels = {
            "device": device.device,
            "vendor": device.vendor,
            "name": device.name,
            "driver": device.driver or "",
            "runtime": device.runtime or "",
        }
        yield Reading(gauges.ACCELERATOR_INFO.name, 1.0, labels)


def _used(value: float, device: str, scope: MemoryScope, group: str) -> Reading:
    return Reading(gauges.VRAM_USED.name, value, {"device": device, "scope": scope, "group": group})


def _by_group(
    processes: Iterable[ProcessMemory], group_of: Callable[[int], MemoryGroup]
) -> dict[MemoryGroup, float]:
    """Bytes of each group that has a process; nothing where one of them would be too low."""
    sums: dict[MemoryGroup, float] = {}
    for process in processes:
        if process.used is None:
            return {}
        group = group_of(process.pid)
        sums[group] = sums.get(group, 0.0) + process.used
    return sums
