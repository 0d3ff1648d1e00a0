"""Keeps the agent's own mistakes away from OpenTalking: calls in, nothing ever raised.

What goes out: a count of what failed, by place, and one log line for the first failure of each.
It must not know what it calls.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

log = logging.getLogger("talkscope.agent")


class Guard:
    """Calls functions whose failure must not matter."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()

    def __call__(self, place: str, act: Callable[..., object], *arguments: Any) -> None:
        """Call `act`; count an exception and swallow it."""
        try:
            act(*arguments)
        except Exception:
            self.faults[place] += 1
            if self.faults[place] == 1:
                log.warning(
                    "the agent failed at %s; OpenTalking is not affected, what the agent would "
                    "have told may be incomplete (further failures there are only counted)",
                    place,
                    exc_info=True,
                )
