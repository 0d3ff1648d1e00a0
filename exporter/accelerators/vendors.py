"""Every vendor's library. A new vendor is one entry.

What comes in: where to find what is not on this machine. What goes out: libraries, not yet
opened.
"""

from __future__ import annotations

from exporter.accelerators.ascend import NpuSmi
from exporter.accelerators.npu_exporter import NpuExporter
from exporter.accelerators.nvidia import Nvml
from exporter.accelerators.readings import Library


def libraries(npu_exporter: str | None = None) -> tuple[Library, ...]:
    """One of each vendor; Ascend's is an NPU Exporter where its URL is given."""
    return (Nvml(), NpuExporter(npu_exporter) if npu_exporter else NpuSmi())
