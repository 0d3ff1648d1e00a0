"""The machines: accelerators of any vendor alike, and what holds them back."""

from __future__ import annotations

from typing import Any

from exporter import gauges
from exporter.gauges import Gauge
from grafana import panels
from grafana.panels import HALF, QUARTER, THIRD, Query, graph
from grafana.queries import RATE, off_zero


def dashboard() -> Any:
    """NVIDIA, Ascend and WSL2 alike; a series that a device cannot give is absent."""
    board = panels.board(
        "talkscope-hardware",
        "Talkscope: hardware",
        "Accelerators of any vendor. What a device cannot tell is absent, never zero.",
    )
    board = board.with_variable(
        panels.variable("device", "Device", f"label_values({gauges.VRAM_TOTAL.family}, device)")
    )
    return panels.lay_out(
        board,
        [
            ("Memory", _memory()),
            ("Work", _work()),
            ("Condition", _condition()),
            ("The machine, and the exporter's control group", _host()),
        ],
    )


def _of(gauge: Gauge) -> str:
    return f'{gauge.exported}{{device=~"$device"}}'


def _level(title: str, gauge: Gauge, legend: str, unit: str, bad: str, width: int = THIRD) -> Any:
    return graph(
        title,
        Query(_of(gauge), legend),
        unit=unit,
        meaning=gauge.meaning,
        bad=bad,
        width=width,
    )


def _memory() -> list[Any]:
    used = gauges.VRAM_USED
    return [
        _level(
            "Memory used, by whom",
            used,
            "device {{device}}, {{scope}} {{group}}",
            panels.BYTES,
            "scope=device rising while scope=process does not: somebody else's memory.",
            width=HALF,
        ),
        graph(
            "Memory, used and in all",
            Query(f'{used.family}{{device=~"$device", scope="device"}}', "device {{device}} used"),
            Query(_of(gauges.VRAM_TOTAL), "device {{device}} in all"),
            unit=panels.BYTES,
            meaning="Memory of each device. Under WSL2 only scope=device is to be had.",
            bad="the two lines meeting.",
            width=HALF,
        ),
    ]


def _work() -> list[Any]:
    return [
        _level(
            "Time with work",
            gauges.ACCELERATOR_UTILIZATION,
            "device {{device}}",
            panels.SHARE,
            "idle while tasks wait.",
        ),
        _level(
            "Time with memory access",
            gauges.ACCELERATOR_MEMORY_UTILIZATION,
            "device {{device}}",
            panels.SHARE,
            "near 100 %: bound by memory bandwidth, so a faster chip will not help.",
        ),
        graph(
            "Video encoder and decoder",
            Query(_of(gauges.ACCELERATOR_ENCODER), "device {{device}} encoder"),
            Query(_of(gauges.ACCELERATOR_DECODER), "device {{device}} decoder"),
            unit=panels.SHARE,
            meaning="Share of time in which the device's video engines worked.",
            bad="near 100 %: encoding is the bottleneck.",
            width=THIRD,
        ),
    ]


def _condition() -> list[Any]:
    throttled = gauges.ACCELERATOR_THROTTLED
    return [
        _level(
            "Power",
            gauges.ACCELERATOR_POWER,
            "device {{device}}",
            panels.WATTS,
            "flat at the power limit.",
        ),
        _level(
            "Temperature",
            gauges.ACCELERATOR_TEMPERATURE,
            "device {{device}}",
            panels.CELSIUS,
            "above 85 °C: throttling.",
        ),
        _level(
            "Clocks",
            gauges.ACCELERATOR_CLOCK,
            "device {{device}} {{clock}}",
            panels.HERTZ,
            "falling under load: throttled.",
        ),
        graph(
            "Reasons that hold clocks down",
            Query(off_zero(f"sum by (reason) ({_of(throttled)})", "reason"), "{{reason}}"),
            unit=panels.NUMBER,
            meaning=f"{throttled.meaning} Number of devices, by reason.",
            bad="anything but gpu_idle.",
            width=THIRD,
            reach=1.0,
        ),
        graph(
            "Errors",
            Query(
                f"increase({_of(gauges.ACCELERATOR_ECC_ERRORS)}[1h])",
                "device {{device}} ECC {{kind}}",
            ),
            Query(
                f"increase({_of(gauges.ACCELERATOR_CRITICAL_ERRORS)}[1h])",
                "device {{device}} critical",
            ),
            unit=panels.NUMBER,
            meaning="Memory errors, and errors that the driver reported (NVIDIA: XID), an hour.",
            bad="any uncorrected or critical one.",
            width=THIRD,
            reach=1.0,
        ),
        _level(
            "Healthy",
            gauges.ACCELERATOR_HEALTHY,
            "device {{device}}",
            panels.NUMBER,
            "0: the device is lost or faulty.",
        ),
    ]


def _host() -> list[Any]:
    return [
        graph(
            "Processors",
            Query(gauges.HOST_CPU_BUSY.family, "{{instance}}"),
            unit=panels.SHARE,
            meaning=gauges.HOST_CPU_BUSY.meaning,
            bad="near 100 %: encoding, pacing and the exporter itself are late.",
            width=QUARTER,
            limits=(0.9,),
        ),
        graph(
            "Memory of the machine",
            Query(gauges.HOST_MEMORY_AVAILABLE.family, "{{instance}} available"),
            Query(gauges.HOST_MEMORY.family, "{{instance}} in all"),
            unit=panels.BYTES,
            meaning=gauges.HOST_MEMORY_AVAILABLE.meaning,
            bad="little available: swapping stops playback.",
            width=QUARTER,
        ),
        graph(
            "Memory of the control group",
            Query(gauges.MEMORY_IN_GROUP.family, "{{instance}} used"),
            Query(gauges.MEMORY_LIMIT.family, "{{instance}} limit"),
            unit=panels.BYTES,
            meaning=f"{gauges.MEMORY_IN_GROUP.meaning} {gauges.MEMORY_LIMIT.meaning}",
            bad="the two lines meeting: the container is killed.",
            width=QUARTER,
        ),
        graph(
            "Processors of the control group",
            Query(gauges.CPU_LIMIT.family, "{{instance}} limit, cores"),
            Query(
                f"rate({gauges.CPU_THROTTLED.exported}[{RATE}])",
                "{{instance}} seconds throttled a second",
            ),
            unit=panels.NUMBER,
            meaning=f"{gauges.CPU_LIMIT.meaning} {gauges.CPU_THROTTLED.meaning}",
            bad="any time throttled: what runs in that group is late.",
            width=QUARTER,
            reach=1.0,
        ),
    ]
