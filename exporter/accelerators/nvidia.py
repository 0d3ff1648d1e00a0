"""NVIDIA devices through NVML.

What comes in: the driver's management library, libnvidia-ml.so.1. What goes out: identity,
memory, processes and state of every GPU and MIG device, in `exporter.accelerators.readings`'
words. It must not know which process is whose, nor how often it is asked.

Written after NVIDIA's NVML API reference; the names of functions and constants are its.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from exporter.accelerators.readings import (
    Collected,
    Device,
    DeviceMemory,
    DeviceState,
    LibraryError,
    NoDeviceError,
    ProcessMemory,
)

VENDOR: Final = "nvidia"

UNNAMED: Final = "NVIDIA device without a name"

CLOCKS: Final = {
    "graphics": pynvml.NVML_CLOCK_GRAPHICS,
    "sm": pynvml.NVML_CLOCK_SM,
    "memory": pynvml.NVML_CLOCK_MEM,
    "video": pynvml.NVML_CLOCK_VIDEO,
}

THROTTLE_REASONS: Final = {
    "gpu_idle": pynvml.nvmlClocksThrottleReasonGpuIdle,
    "applications_clocks": pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting,
    "sw_power_cap": pynvml.nvmlClocksThrottleReasonSwPowerCap,
    "hw_slowdown": pynvml.nvmlClocksThrottleReasonHwSlowdown,
    "sync_boost": pynvml.nvmlClocksThrottleReasonSyncBoost,
    "sw_thermal": pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
    "hw_thermal": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
    "hw_power_brake": pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    "display_clocks": pynvml.nvmlClocksThrottleReasonDisplayClockSetting,
}

ECC_KINDS: Final = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}

_FAULTS: Final = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
"""What NVML says of a device that is broken, and not only silent."""

_GONE: Final = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""What NVML says of any device when the driver itself is gone."""

_NO_SUCH_VERSION: Final = frozenset(
    {
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)

_EVENTS_AT_ONCE: Final = 100
"""A device that fails all the time must not keep the collection from ending."""


@dataclass(slots=True)
class _Gpu:
    """A GPU or a MIG device that answered once. `mig` is true of a GPU that is divided."""

    device: str
    handle: Any
    physical: bool
    mig: bool = False
    throttling: int = 0
    """Bits of the throttle reasons that it supports."""


class Nvml:
    """NVML, one session at a time. The `Library` of NVIDIA's devices."""

    name: Final = VENDOR
    least_interval: Final = 0.0

    def __init__(self) -> None:
        self.unreadable: Counter[str] = Counter()
        self._open = False
        self._gpus: list[_Gpu] = []
        self._unopened: dict[str, str] = {}
        self._faulty: set[str] = set()
        self._unopened_faulty: set[str] = set()
        self._memory_v2 = True
        self._events: Any = None
        # They count over sessions: a new session must not make a counter fall.
        self._critical: dict[str, int] = {}
        self._last_critical: dict[str, int] = {}

    def open(self) -> tuple[Device, ...]:
        """Load the library and look at every device. Raises `LibraryError`."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise _library_error(error) from error
        self._open, self._memory_v2 = True, True
        self._gpus, self._unopened = [], {}
        self._faulty, self._unopened_faulty = set(), set()
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise _library_error(error) from error
        if count == 0:
            raise NoDeviceError("the NVIDIA driver lists no device")
        for index in range(count):
            self._find(index)
        self._watch()
        driver = driver_words(_ask(pynvml.nvmlSystemGetDriverVersion))
        runtime = cuda_words(_ask(pynvml.nvmlSystemGetCudaDriverVersion_v2))
        return tuple(self._identity(gpu, driver, runtime) for gpu in self._gpus)

    def memory(self) -> Collected:
        """Memory and processes of every device. Raises `LibraryError`."""
        devices: list[DeviceMemory] = []
        lost = dict(self._unopened)
        self._faulty = set()
        for gpu in self._gpus:
            try:
                devices.append(self._memory(gpu))
            except pynvml.NVMLError as error:
                if error.value in _GONE:
                    raise _library_error(error) from error
                if error.value in _FAULTS:
                    self._faulty.add(gpu.device)
                lost[gpu.device] = f"NVML: {error}"
        return Collected(tuple(devices), lost)

    def states(self) -> tuple[DeviceState, ...]:
        """State of every GPU; NVML tells none of a MIG device alone."""
        self._take_events()
        return (
            *(self._state(gpu) for gpu in self._gpus if gpu.physical),
            *(self._fault(device) for device in sorted(self._unopened_faulty)),
        )

    def close(self) -> None:
        """End the session. What NVML says to that changes nothing any more."""
        if self._events is not None:
            _ask(pynvml.nvmlEventSetFree, self._events)
            self._events = None
        if self._open:
            _ask(pynvml.nvmlShutdown)
            self._open = False

    def _find(self, index: int) -> None:
        device = str(index)
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            if error.value in _GONE:
                raise _library_error(error) from error
            self._unopened[device] = f"NVML: {error}"
            if error.value in _FAULTS:
                self._unopened_faulty.add(device)
            return
        supported = _ask(_either("SupportedClocksEventReasons"), handle)
        if supported is None:
            supported = _ask(_either("SupportedClocksThrottleReasons"), handle)
        mode = _ask(pynvml.nvmlDeviceGetMigMode, handle)
        divided = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        self._gpus.append(_Gpu(device, handle, True, divided, supported or 0))
        if divided:
            for number in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
                part = _ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
                if part is not None:
                    # As in NVIDIA_VISIBLE_DEVICES=0:1, the MIG device 1 of GPU 0.
                    self._gpus.append(_Gpu(f"{device}:{number}", part, False))

    def _identity(self, gpu: _Gpu, driver: str | None, runtime: str | None) -> Device:
        memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, gpu.handle)
        return Device(
            device=gpu.device,
            vendor=VENDOR,
            name=_ask(pynvml.nvmlDeviceGetName, gpu.handle) or UNNAMED,
            memory_bytes=None if memory is None else float(memory.total),
            driver=driver,
            runtime=runtime,
        )

    def _memory(self, gpu: _Gpu) -> DeviceMemory:
        memory = self._memory_info(gpu)
        # The processes of a divided GPU are those of its MIG devices, and count once.
        processes = None if gpu.mig else _processes(gpu.handle)
        return DeviceMemory(
            device=gpu.device,
            used=float(memory.used),
            total=float(memory.total),
            free=float(memory.free),
            processes=processes,
        )

    def _memory_info(self, gpu: _Gpu) -> Any:
        """Version 2 does not count as used what the driver reserves, like nvidia-smi since 510."""
        if self._memory_v2:
            try:
                return pynvml.nvmlDeviceGetMemoryInfo(gpu.handle, pynvml.nvmlMemory_v2)
            except pynvml.NVMLError as error:
                if error.value not in _NO_SUCH_VERSION:
                    raise
                # Asked once a session: a driver that has version 1 alone refuses each time.
                self._memory_v2 = False
        return pynvml.nvmlDeviceGetMemoryInfo(gpu.handle)

    def _state(self, gpu: _Gpu) -> DeviceState:
        if gpu.device in self._faulty:
            return self._fault(gpu.device)
        handle = gpu.handle
        rates = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
        encoder = _ask(pynvml.nvmlDeviceGetEncoderUtilization, handle)
        decoder = _ask(pynvml.nvmlDeviceGetDecoderUtilization, handle)
        power = _ask(pynvml.nvmlDeviceGetPowerUsage, handle)
        return DeviceState(
            device=gpu.device,
            healthy=True,
            utilization=None if rates is None else rates.gpu / 100.0,
            memory_utilization=None if rates is None else rates.memory / 100.0,
            encoder=None if encoder is None else encoder[0] / 100.0,
            decoder=None if decoder is None else decoder[0] / 100.0,
            power=None if power is None else power / 1000.0,
            temperature=_ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            clocks=dict(_clocks(handle)),
            throttling=_throttling(gpu),
            ecc_errors=dict(_ecc_errors(handle)),
            critical_errors=self._critical.get(gpu.device),
            last_critical_error=self._last_critical.get(gpu.device),
        )

    def _fault(self, device: str) -> DeviceState:
        return DeviceState(
            device,
            healthy=False,
            critical_errors=self._critical.get(device),
            last_critical_error=self._last_critical.get(device),
        )

    def _watch(self) -> None:
        """Listen for XID errors, on the devices that tell them."""
        self._events = _ask(pynvml.nvmlEventSetCreate)
        if self._events is None:
            return
        for gpu in self._gpus:
            if not gpu.physical:
                continue
            try:
                pynvml.nvmlDeviceRegisterEvents(
                    gpu.handle, pynvml.nvmlEventTypeXidCriticalError, self._events
                )
            except pynvml.NVMLError:
                continue
            self._critical.setdefault(gpu.device, 0)

    def _take_events(self) -> None:
        if self._events is None:
            return
        devices = {_address(gpu.handle): gpu.device for gpu in self._gpus if gpu.physical}
        for _ in range(_EVENTS_AT_ONCE):
            event = _ask(pynvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                return
            device = devices.get(_address(event.device))
            if device is not None:
                self._critical[device] = self._critical.get(device, 0) + 1
                self._last_critical[device] = int(event.eventData)


def driver_words(version: str | None) -> str | None:
    """`570.133.07` → the page's `driver 570.133.07`; None for what is no version."""
    words = _printable(version)
    return f"driver {words}" if words else None


def cuda_words(version: int | None) -> str | None:
    """12080 → `CUDA 12.8`: 1000 · major + 10 · minor (nvmlSystemGetCudaDriverVersion)."""
    if version is None or version < 1000:
        return None
    return f"CUDA {version // 1000}.{version % 1000 // 10}"


def _printable(text: str | None) -> str:
    return "".join(c for c in text or "" if c.isprintable()).strip()


def _ask(function: Callable[..., Any] | None, *arguments: Any) -> Any:
    """The answer, or None when there is none, for whatever reason NVML gives."""
    if function is None:
        return None
    try:
        answer = function(*arguments)
    except (pynvml.NVMLError, UnicodeDecodeError):
        return None
    return _printable(answer) if isinstance(answer, str) else answer


def _either(name: str) -> Callable[..., Any] | None:
    """A getter of newer versions of pynvml, or None."""
    found: Callable[..., Any] | None = getattr(pynvml, f"nvmlDeviceGet{name}", None)
    return found


def _clocks(handle: Any) -> Iterator[tuple[str, float]]:
    for name, domain in CLOCKS.items():
        megahertz = _ask(pynvml.nvmlDeviceGetClockInfo, handle, domain)
        if megahertz is not None:
            yield name, megahertz * 1e6


def _throttling(gpu: _Gpu) -> dict[str, bool]:
    if not gpu.throttling:
        return {}
    active = _ask(_either("CurrentClocksEventReasons"), gpu.handle)
    if active is None:
        active = _ask(_either("CurrentClocksThrottleReasons"), gpu.handle)
    if active is None:
        return {}
    return {
        name: bool(active & bit) for name, bit in THROTTLE_REASONS.items() if gpu.throttling & bit
    }


def _ecc_errors(handle: Any) -> Iterator[tuple[str, float]]:
    for name, kind in ECC_KINDS.items():
        count = _ask(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC)
        if count is not None:
            yield name, float(count)


def _processes(handle: Any) -> tuple[ProcessMemory, ...] | None:
    """Every process once: one that computes and draws is in both lists with the same memory."""
    lists = [
        _running(handle, kind) for kind in ("ComputeRunningProcesses", "GraphicsRunningProcesses")
    ]
    if all(one is None for one in lists):
        return None
    used: dict[int, float | None] = {}
    for process in (p for one in lists for p in one or ()):
        held, told = used.get(process.pid), process.usedGpuMemory
        used[process.pid] = held if told is None else max(float(told), held or 0.0)
    return tuple(ProcessMemory(pid, memory) for pid, memory in used.items())


def _running(handle: Any, kind: str) -> list[Any] | None:
    """Older drivers have only version 2 of the call."""
    for version in ("_v3", "_v2"):
        found: list[Any] | None = _ask(_either(kind + version), handle)
        if found is not None:
            return found
    return None


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _library_error(error: pynvml.NVMLError) -> LibraryError:
    code = error.value
    if code == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return NoDeviceError("the NVIDIA driver's library libnvidia-ml.so.1 is not installed")
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return LibraryError(f"NVML: {error}; let the exporter open /dev/nvidia*")
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return LibraryError(f"NVML: {error}; restart the exporter after a driver update")
    if code == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
        return LibraryError(f"NVML: {error}: the driver is too old to be read")
    return LibraryError(f"NVML: {error}")
