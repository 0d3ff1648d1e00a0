"""One session that OpenTalking has created: instants in, a `session` record out.

It must not know HTTP nor OpenTalking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporter import stages


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """The request came in at `unix` and was answered `seconds` later, as the server saw it."""

    session: str
    unix: float
    seconds: float
    model: str | None
    avatar: str | None

    def ready(self) -> bool:
        """It has nothing to wait for."""
        return True

    def record(self) -> dict[str, Any] | None:
        """The record without its sequence."""
        return {
            "kind": "session",
            "session": self.session,
            "model": self.model,
            "avatar": self.avatar,
            "started_unix": self.unix,
            "marks": {stages.SESSION_REQUESTED: 0.0, stages.SESSION_CREATED: self.seconds},
        }
