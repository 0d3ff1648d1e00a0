"""Ascend NPUs through MindCluster's NPU Exporter → memory, state and identity of each chip.

What comes in: its `/metrics`, over HTTP. What goes out: the records of `readings`. It must not
know turns nor which process is whose. It is for a cluster where that exporter runs anyhow, and
for a container without `npu-smi`; it costs the NPUs nothing, as it answers from a cache that it
renews every 5 s by default, with the time of each value.

Names and units: MindCluster, "Prometheus Metrics API" (docs/en/scheduling/api/npu_exporter/
01_prometheus_metrics_api.md). Memory is in MB of 2**20 bytes, as `npu-smi` counts it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from prometheus_client.samples import Sample

from exporter import exposition
from exporter.accelerators import cann
from exporter.accelerators.npu_smi_output import MIB
from exporter.accelerators.readings import (
    Collected,
    Device,
    DeviceMemory,
    DeviceState,
    LibraryError,
    NoDeviceError,
    ProcessMemory,
)

TIMEOUT_S: Final = 5.0
CACHE_S: Final = 1.0
"""Asking more often would only repeat what its cache holds."""
STALE_S: Final = 60.0
"""A value that is older is not served: the exporter keeps its last one when the driver hangs."""

_CHIP: Final = "npu_chip_info_"
_HEALTH: Final[Mapping[float, bool | None]] = {1.0: True, 0.0: False, -1.0: None}


class UnreadableError(ValueError):
    """The text is not what NPU Exporter is known to serve; the message says where."""


@dataclass(slots=True)
class Chip:
    """What is served of one chip; `values` by family, without its prefix."""

    id: int
    name: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    processes: dict[int, float] = field(default_factory=dict)
    """Process id → bytes."""
    age_s: float | None = None
    """Of its oldest value; None where it does not say."""

    @property
    def memory(self) -> tuple[float, float] | None:
        """Bytes used and there, of HBM; of DDR for a chip without HBM."""
        for kind in ("hbm_", ""):
            used = self.values.get(f"{kind}used_memory")
            total = self.values.get(f"{kind}total_memory")
            if used is not None and total is not None and total > 0:
                return used * MIB, total * MIB
        return None

    def share(self, name: str) -> float | None:
        """A percentage as a share."""
        percent = self.values.get(name)
        return None if percent is None else percent / 100


@dataclass(frozen=True, slots=True)
class Served:
    """One answer of an NPU Exporter."""

    chips: tuple[Chip, ...]
    driver: str | None


def parse(text: str, now: float) -> Served:
    """An exposition, read at `now` (seconds since the epoch). Raises `UnreadableError`."""
    try:
        families = exposition.parse(text)
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    chips: dict[int, Chip] = {}
    driver: str | None = None
    ours = False
    for sample in (sample for family in families for sample in family.samples):
        ours = ours or sample.name.startswith(("npu_", "machine_npu_"))
        if sample.name == "node_base_info":
            driver = sample.labels.get("driverVersion") or None
        elif sample.name.startswith(_CHIP):
            number = _id(sample)
            _take(chips.setdefault(number, Chip(number)), sample, now)
    if not ours:
        raise UnreadableError("nothing in it is NPU Exporter's")
    return Served(tuple(chips[number] for number in sorted(chips)), driver)


def _take(chip: Chip, sample: Sample, now: float) -> None:
    name = sample.name.removeprefix(_CHIP)
    if name == "name":
        chip.name = sample.labels.get("name") or None
        return
    chip.name = chip.name or sample.labels.get("model_name") or None
    value = float(sample.value)
    if value != value or value in (float("inf"), float("-inf")):
        raise UnreadableError(f"{sample.name} of NPU {chip.id} is {value}")
    if name == "process_info":
        pid = sample.labels.get("process_id", "")
        # Without processes it serves one series that names none.
        if pid.isascii() and pid.isdecimal() and len(pid) < 11:
            chip.processes[int(pid)] = _not_negative(sample, value) * MIB
        elif pid:
            raise UnreadableError(f"process_id of NPU {chip.id} is {pid[:40]!r}")
        return
    if name not in _USED:
        return
    chip.values[name] = value if name in _SIGNED else _not_negative(sample, value)
    if name in _PERCENT and value > 100:
        raise UnreadableError(f"{sample.name} of NPU {chip.id} is {value:g} %")
    if sample.timestamp is not None:
        chip.age_s = max(chip.age_s or 0.0, now - float(sample.timestamp))


_PERCENT: Final = frozenset({"utilization", "hbm_bandwidth_utilization"})
_SIGNED: Final = frozenset({"temperature", "health_status"})
_USED: Final = (
    _PERCENT
    | _SIGNED
    | {
        "hbm_used_memory",
        "hbm_total_memory",
        "used_memory",
        "total_memory",
        "power",
        "aicore_current_freq",
        "hbm_ecc_single_bit_error_cnt",
        "hbm_ecc_double_bit_error_cnt",
        "process_info_num",
    }
)


class NpuExporter:
    """An NPU Exporter, as the library of the NPUs of its machine."""

    name: Final = "npu_exporter"
    least_interval: Final = CACHE_S

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        cann_root: Path = cann.ROOT,
    ) -> None:
        self.unreadable: Counter[str] = Counter()
        self._url = f"{url.rstrip('/')}/metrics"
        self._clock = clock
        self._cann_root = cann_root
        self._client: httpx.Client | None = None
        self._served: Served | None = None
        self._known: tuple[int, ...] = ()

    def open(self) -> tuple[Device, ...]:
        """Ask once, to see which chips there are."""
        self._client = httpx.Client(timeout=TIMEOUT_S)
        served = self._ask()
        if not served.chips:
            raise NoDeviceError("NPU Exporter serves no NPU")
        self._known = tuple(chip.id for chip in served.chips)
        runtime = cann.runtime(self._cann_root)
        return tuple(
            Device(
                device=str(chip.id),
                vendor="ascend",
                # `910A-Ascend-V1`: name of the chip, its type, its version.
                name=cann.name((chip.name or "of unknown name").partition("-")[0]),
                memory_bytes=chip.memory[1] if chip.memory else None,
                driver=cann.driver(served.driver),
                runtime=runtime,
            )
            for chip in served.chips
        )

    def memory(self) -> Collected:
        """Ask anew. A chip that is not served, or whose values are old, is lost."""
        served = self._served = self._ask()
        chips = {chip.id: chip for chip in served.chips}
        if chips.keys() - set(self._known):
            raise LibraryError("NPU Exporter serves NPUs that were not there before")
        found: list[DeviceMemory] = []
        lost: dict[str, str] = {}
        for number in self._known:
            chip = chips.get(number)
            if chip is None:
                lost[str(number)] = "NPU Exporter does not serve it any more"
            elif chip.age_s is not None and chip.age_s > STALE_S:
                lost[str(number)] = f"NPU Exporter's values of it are more than {STALE_S:g} s old"
            elif chip.memory is None:
                lost[str(number)] = "NPU Exporter serves no memory of it"
            else:
                found.append(DeviceMemory(str(number), *chip.memory, processes=_processes(chip)))
        return Collected(tuple(found), lost)

    def states(self) -> tuple[DeviceState, ...]:
        """State as of the last reading of memory: the same answer told it."""
        if self._served is None:
            raise LibraryError("NPU Exporter was not asked yet")
        return tuple(
            _state(chip)
            for chip in self._served.chips
            if chip.age_s is None or chip.age_s <= STALE_S
        )

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
        self._client, self._served = None, None

    def _ask(self) -> Served:
        assert self._client is not None, "open() comes first"
        try:
            answer = self._client.get(self._url).raise_for_status()
            return parse(answer.text, self._clock())
        except (httpx.HTTPError, UnreadableError) as error:
            said = str(error) or type(error).__name__
            raise LibraryError(f"NPU Exporter: {said.splitlines()[0]}") from error


def _state(chip: Chip) -> DeviceState:
    frequency = chip.values.get("aicore_current_freq")
    return DeviceState(
        str(chip.id),
        healthy=_HEALTH.get(chip.values.get("health_status", -1.0)),
        utilization=chip.share("utilization"),
        memory_utilization=chip.share("hbm_bandwidth_utilization"),
        power=chip.values.get("power"),
        temperature=chip.values.get("temperature"),
        clocks={"aicore": frequency * 1e6} if frequency is not None else {},
        ecc_errors=dict(_ecc_errors(chip)),
    )


def _ecc_errors(chip: Chip) -> Iterator[tuple[str, float]]:
    for kind, bits in (("corrected", "single"), ("uncorrected", "double")):
        errors = chip.values.get(f"hbm_ecc_{bits}_bit_error_cnt")
        if errors is not None:
            yield kind, errors


def _processes(chip: Chip) -> tuple[ProcessMemory, ...] | None:
    """None of a version that serves no processes, which is not the same as having none."""
    if not chip.processes and "process_info_num" not in chip.values:
        return None
    return tuple(ProcessMemory(pid, used) for pid, used in sorted(chip.processes.items()))


def _id(sample: Sample) -> int:
    number = sample.labels.get("id", sample.labels.get("npuID", ""))
    if not (number.isascii() and number.isdecimal() and len(number) < 6):
        raise UnreadableError(f"{sample.name}: the label id is {number[:40]!r}")
    return int(number)


def _not_negative(sample: Sample, value: float) -> float:
    if value < 0:
        raise UnreadableError(f"{sample.name} is {value:g}")
    return value
