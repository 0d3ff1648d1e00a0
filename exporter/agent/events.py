"""One event of OpenTalking's in-memory bus: the published text in, an `event` record out.

It must not know the bus. The text is parsed when the record is made, which is not in
OpenTalking's event loop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """`message` as it was published, and the wall clock then."""

    session: str
    unix: float
    message: str | bytes

    def ready(self) -> bool:
        """An event has nothing to wait for."""
        return True

    def record(self) -> dict[str, Any] | None:
        """The record without its sequence; raises when the text is no event."""
        content = json.loads(self.message)
        return {
            "kind": "event",
            "session": self.session,
            "unix": self.unix,
            "event": str(content["event"]),
            "data": dict(content["data"]),
        }
