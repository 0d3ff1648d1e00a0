"""With which RTP timestamps each session's latest speech began, as the agent told.

What comes in: observations. What goes out: the answer to a client that wants to pair a picture
with a sound. It must not know turns, HTTP or what the timestamps are used for.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from exporter.observations import Observation, PipelineReported

_SESSIONS: Final = 2_000
"""Sessions remembered; a client asks when its turn is over."""


class Began(NamedTuple):
    """The beginning of a speech."""

    entered: float
    """When the pipeline began to work on it, seconds since the epoch on the exporter's clock."""
    video: int
    audio: int
    """RTP timestamps (32 bits) of its first talking frame and of its first sound."""


class LatestSpeeches:
    """Remembers the latest speech of each session that the agent told of."""

    def __init__(self) -> None:
        self._began: OrderedDict[str, Began] = OrderedDict()

    def feed(self, seen: Observation) -> None:
        """Take an observation; most are of no interest."""
        if not isinstance(seen, PipelineReported):
            return
        if seen.first_video is None or seen.first_audio is None:
            self._began.pop(seen.session, None)
            return
        self._began[seen.session] = Began(seen.entered, seen.first_video, seen.first_audio)
        self._began.move_to_end(seen.session)
        if len(self._began) > _SESSIONS:
            self._began.popitem(last=False)

    def of(self, session: str) -> Began | None:
        """The latest speech of a session, or None when the agent told of none."""
        return self._began.get(session)
