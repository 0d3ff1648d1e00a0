"""Which of the standard library gevent may replace: nothing in, a process that is fit out.

Locust's own `patch_all` makes decoding and name resolution hang in a thread that runs asyncio;
no patch at all keeps a worker from ever reaching its master. Everything but `thread`, `queue`
and `select` works for both (measured with Locust 2.47 and gevent 26.9). It must not import
Locust, which patches as it is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from gevent import monkey

SKIP: Final = "LOCUST_SKIP_MONKEY_PATCH"
"""The variable that keeps Locust from patching."""

_ROOT: Final = Path(__file__).resolve().parents[2]


def patch() -> None:
    """Patch what may be patched. Call it before anything else is imported."""
    os.environ[SKIP] = "1"
    monkey.patch_all(thread=False, queue=False, select=False)


def is_fit() -> bool:
    """Whether this process is patched that way and no further."""
    return monkey.is_module_patched("socket") and not monkey.is_module_patched("threading")


def start_again() -> None:
    """Replace this process by one that patches selectively, with the same arguments."""
    environment = os.environ | {SKIP: "1"}
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "loadgen.load", *sys.argv[1:]], environment)
