"""The machine the exporter runs on: the identity lines of a report.

What comes in: the operating system. What goes out: names and sizes, in the benchmark page's
format. It must not know devices.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """`os` in the page's format (`Linux x86_64 glibc2.36`), `cpus`, `memory_bytes`."""
    return {"os": os_name(), "cpus": os.cpu_count(), "memory_bytes": _memory_bytes()}


def os_name(release: str | None = None) -> str:
    """The page's OS cell. `release` is the kernel's, which says whether this is WSL2."""
    libc = "".join(platform.libc_ver())
    release = release if release is not None else platform.release()
    if "microsoft" in release.lower():
        return f"WSL2 {libc}".strip()
    return f"{platform.system()} {platform.machine()} {libc}".strip()


def _memory_bytes() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    first = text.splitlines()[0].split()
    return int(first[1]) * 1024 if len(first) == 3 and first[1].isdigit() else None
