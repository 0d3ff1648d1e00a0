"""Kills what its supervisor leaves behind if the supervisor itself is killed.

What comes in: lines on standard input, `+GROUP` and `-GROUP`, that name process groups; the other
end of that pipe is held by the supervisor alone. What goes out: when the pipe closes, SIGKILL to
every group still named. It must not know what the groups are.

The kernel's parent-death signal (processes.py) reaches a supervisor's own children; this reaches
theirs too. Standard library only.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Follow standard input to its end, then kill."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
