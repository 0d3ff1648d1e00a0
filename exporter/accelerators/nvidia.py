"""NVIDIA devices through NVML → memory levels and identities.

What comes in: the driver's management library. What goes out: used and total memory of each
device, and what it is. It must not know turns nor which process is whose: the scope of every
figure here is the whole device.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pynvml

from exporter import stages
from exporter.health import SourceHealth
from exporter.observations import Reading, Readings
from exporter.sources import Emit

POLL_S = 0.5
RETRY_S = 30.0


class NvidiaSource:
    """Reads every NVIDIA device. Without a device or a driver it says so and stays quiet."""

    def __init__(self) -> None:
        self.health = SourceHealth("nvidia")
        self.devices: list[dict[str, Any]] = []
        self._ready = False

    async def run(self, emit: Emit) -> None:
        """Read until cancelled; look for a driver again every now and then."""
        try:
            while True:
                readable = self.read(emit)
                await asyncio.sleep(POLL_S if readable else RETRY_S)
        finally:
            self._shutdown()

    def read(self, emit: Emit) -> bool:
        """Read every device once; return whether there was one to read."""
        started = time.monotonic()
        try:
            self._start()
            readings = [r for index in range(len(self.devices)) for r in _read(index)]
        except pynvml.NVMLError as error:
            reason = _reason(error)
            if self.health.reason != reason:
                self.health.failed(reason)
                emit(Readings(time.time(), self.health.name))
            self._shutdown()
            return False
        emit(Readings(time.time(), self.health.name, tuple(readings)))
        self.health.succeeded(time.time(), events=1, duration=time.monotonic() - started)
        return True

    def _start(self) -> None:
        if self._ready:
            return
        pynvml.nvmlInit()
        self._ready = True
        count = pynvml.nvmlDeviceGetCount()
        if count == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        self.devices = [_identity(index, driver) for index in range(count)]

    def _shutdown(self) -> None:
        if self._ready:
            self._ready = False
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError as error:
                self.health.reason = _reason(error)


def _identity(index: int, driver: str) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "index": index,
        "name": _text(pynvml.nvmlDeviceGetName(handle)),
        "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        "driver": f"driver {driver}",
    }


def _read(index: int) -> list[Reading]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
    device = str(index)
    return [
        Reading(
            stages.VRAM_USED.name,
            float(memory.used),
            {"device": device, "scope": "device", "group": "all"},
        ),
        Reading(stages.VRAM_TOTAL.name, float(memory.total), {"device": device}),
    ]


def _reason(error: pynvml.NVMLError) -> str:
    code = getattr(error, "value", None)
    if code == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "no accelerator: the NVIDIA driver's library libnvidia-ml.so.1 is not installed"
    if code == pynvml.NVML_ERROR_NOT_FOUND:
        return "no accelerator: the NVIDIA driver lists no device"
    return f"NVML: {error}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
