"""Every vendor's library. A new vendor is one entry.

What comes in: nothing. What goes out: libraries, not yet opened.
"""

from __future__ import annotations

from exporter.accelerators.nvidia import Nvml
from exporter.accelerators.readings import Library


def libraries() -> tuple[Library, ...]:
    """One of each vendor."""
    return (Nvml(),)
