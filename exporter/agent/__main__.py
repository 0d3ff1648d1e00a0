"""`python -m exporter.agent SCRIPT [ARGUMENT …]`: runs OpenTalking's console script, observed.

What comes in: the name of the script with its own arguments, and the environment
(`exporter.agent.settings`). What goes out: what the script does. Without usable settings it runs
all the same, unobserved: observation is never a reason for an outage.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from typing import Final

from exporter.agent import running
from exporter.agent.settings import SettingsError, from_environment

WRONG_USAGE: Final = 64
NOT_INSTALLED: Final = 69


def main() -> int:
    """Run the script named first on the command line; return the exit status."""
    if len(sys.argv) < 2 or sys.argv[1] not in running.SCRIPTS:
        print(
            f"usage: python -m exporter.agent {'|'.join(running.SCRIPTS)} [ARGUMENT …]",
            file=sys.stderr,
        )
        return WRONG_USAGE
    name = sys.argv.pop(1)
    sys.argv[0] = name
    found = list(entry_points(group="console_scripts", name=name))
    if not found:
        _say(f"{name} is not installed for {sys.executable}")
        return NOT_INSTALLED
    try:
        running.start(from_environment(os.environ), running.SCRIPTS[name])
    except SettingsError as error:
        _say(f"{name} runs unobserved: {error}")
    result = found[0].load()()
    return int(result or 0)


def _say(line: str) -> None:
    print(f"talkscope agent: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
