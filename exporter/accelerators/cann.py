"""CANN's own install records → its version.

What comes in: the folder that Ascend's installers fill. What goes out: the version for a report's
environment. CANN is the runtime above the driver, as CUDA is; a sidecar sees it only where that
folder is its own or is mounted into its container.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/usr/local/Ascend")

DRIVER: Final = "cann driver"
"""What the benchmark page writes for the driver of an NPU."""

_INSTALL_RECORDS: Final = (
    "ascend-toolkit/latest/*/ascend_toolkit_install.info",
    "nnae/latest/*/ascend_nnae_install.info",
    "nnae/latest/ascend_nnae_install.info",
)
"""Of the toolkit (vllm-ascend reads it, collect_env.py) and of the engine that training uses."""

_VERSION: Final = re.compile(r"^version=([\w.+-]{1,40})\s*$", re.ASCII | re.MULTILINE)


def runtime(root: Path = ROOT) -> str | None:
    """`CANN 8.0.RC3`, or None where no install record can be read."""
    for record in _records(root):
        try:
            version = _VERSION.search(record.read_text(errors="replace"))
        except OSError:
            continue
        if version is not None:
            return f"CANN {version[1]}"
    return None


def driver(version: str | None) -> str:
    """The page's driver cell, with the version where it is known: `cann driver 25.2.0`."""
    return f"{DRIVER} {version}" if version else DRIVER


def name(chip: str) -> str:
    """The page's hardware cell: `NPU 910B2`."""
    return f"NPU {chip}"


def _records(root: Path) -> Iterator[Path]:
    for pattern in _INSTALL_RECORDS:
        yield from sorted(root.glob(pattern))
