"""What was on the devices before the target started.

What comes in: the libraries, at a moment when the target does not run. What goes out: bytes in
use by device, as a small JSON file, {"0": 512.0}. It must not know the target.

    python -m exporter.accelerators.baseline baseline.json

Where processes cannot be told apart (WSL2) it is what makes the target's share out of the
device's: OpenTalking's benchmark page, "WSL2 VRAM Statistics Fix".
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from exporter.accelerators.readings import Library, LibraryError
from exporter.accelerators.vendors import libraries


class BaselineError(ValueError):
    """The file is no baseline; the message says why."""


def take(of: Iterable[Library]) -> dict[str, float]:
    """Bytes in use now, of every device that can be read."""
    found: dict[str, float] = {}
    for library in of:
        try:
            library.open()
            found |= {memory.device: memory.used for memory in library.memory().devices}
        except LibraryError:
            continue
        finally:
            library.close()
    return found


def write(path: Path) -> dict[str, float]:
    """Take a baseline into a file, unless there is no device; raises OSError."""
    found = take(libraries())
    if found:
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found


def read(path: Path) -> dict[str, float]:
    """Read it back. Raises `BaselineError`."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BaselineError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BaselineError(f"{path} is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise BaselineError(f"{path} is not a mapping of devices to bytes")
    for device, used in told.items():
        number = isinstance(used, int | float) and not isinstance(used, bool)
        if not number or not math.isfinite(used) or used < 0:
            raise BaselineError(f"{path}: device {device}: {used!r} is not a number of bytes")
    return {str(device): float(used) for device, used in told.items()}


def main(arguments: Sequence[str]) -> int:
    """Write one file; return the exit status: 0, 1 when there is no device, 64 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m exporter.accelerators.baseline FILE", file=sys.stderr)
        return 64
    found = write(Path(arguments[0]))
    for device, used in found.items():
        print(f"device {device}: {used:.0f} bytes in use")
    if not found:
        print("no device can be read; no baseline was written", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
