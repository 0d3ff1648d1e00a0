"""One speech as the hooks see it: instants in, a `pipeline` record out.

It must not know OpenTalking, threads or HTTP. Instants are `time.perf_counter()` seconds, the
clock OpenTalking's own figures are taken with.
"""

from __future__ import annotations

import time
from typing import Any, Final, Literal

from exporter import stages, steady_clock
from exporter.agent.asked import Asked
from exporter.stages import Outcome

MediaKind = Literal["video", "audio"]
MEDIA_KINDS: Final[tuple[MediaKind, ...]] = ("video", "audio")

MEDIA_PATIENCE_S: Final = 1.0
"""How long after its end a speech may wait for its first frame and sample to leave."""

LONGEST_TEXT: Final = 2_000
"""Of an error's code and message (docs/marks.md)."""
LONGEST_NAME: Final = 256
"""Of a language model's name (docs/marks.md)."""


class Speech:
    """What is known of one speech; `asked` is what its request told.

    Written in OpenTalking's event loop; read by the courier's thread once it is over, except for
    the media timestamps, which may still come (one assignment each).
    """

    def __init__(
        self, session: str, enqueued_unix: float | None, asked: Asked | None = None
    ) -> None:
        self.session = session
        self.over = False
        self.llm_model: str | None = None
        self._asked = asked or Asked()
        before = dict(self._asked.marks)
        if enqueued_unix is not None:
            before[stages.INPUT_ENQUEUED] = enqueued_unix
        self._before = {name: steady_clock.from_wall(at) for name, at in before.items()}
        self._entered: float | None = None
        self._entered_unix = 0.0
        self._marks: dict[str, float] = {}
        self._chunks: list[tuple[float, float]] = []
        self._awaited: set[MediaKind] = set()
        self._timestamps: dict[MediaKind, int] = {}
        self._outcome = Outcome.FAILED
        self._error: dict[str, str] | None = None
        self._ended = 0.0

    @property
    def entered(self) -> float | None:
        """When the pipeline began to work on it; None before."""
        return self._entered

    def enter(self, at: float) -> None:
        """The pipeline began to work on it at `at`."""
        if self._entered is None:
            self._entered = at
            self._entered_unix = steady_clock.now() - (time.perf_counter() - at)

    def mark(self, name: str, at: float) -> None:
        """Note the first time of something."""
        if not self.over:
            self._marks.setdefault(name, at)

    def has(self, name: str) -> bool:
        """Whether a mark is there."""
        return name in self._marks

    def chunk(self, requested: float, returned: float) -> None:
        """The synthesis backend has returned a chunk."""
        if not self.over:
            self._chunks.append((requested, returned))
            self.mark(stages.AVATAR_FIRST_FRAME, returned)

    def expect(self, kind: MediaKind) -> bool:
        """Its first frame or samples have been queued; False when it was not the first."""
        if self.over or kind in self._awaited or not self.has(stages.MEDIA_QUEUED):
            return False
        self._awaited.add(kind)
        return True

    def sent(self, kind: MediaKind, timestamp: int) -> None:
        """What was expected has left with this RTP timestamp."""
        self._timestamps.setdefault(kind, timestamp & 0xFFFFFFFF)

    def failed(self, code: str, error: BaseException) -> None:
        """Something went wrong; the first error is kept."""
        if self._error is None and not self.over:
            message = str(error) or type(error).__name__
            self._error = {"code": code, "message": message[:LONGEST_TEXT]}

    def end(self, *, generated: float | None, interrupted: bool, raised: bool) -> None:
        """It is over; `generated` is when all of it was queued, None when that never came."""
        if generated is not None:
            self.mark(stages.SPEECH_GENERATED, generated)
        # OpenTalking swallows errors of its providers. An apology that was spoken is an answer;
        # silence is none.
        silent = self._error is not None and not self.has(stages.MEDIA_QUEUED)
        if interrupted:
            self._outcome = Outcome.INTERRUPTED
        else:
            self._outcome = Outcome.FAILED if raised or silent else Outcome.COMPLETED
        self._ended = time.perf_counter()
        self.over = True

    def ready(self) -> bool:
        """Whether the record is complete, or has waited long enough."""
        if self._awaited <= self._timestamps.keys():
            return True
        return time.perf_counter() - self._ended > MEDIA_PATIENCE_S

    def record(self) -> dict[str, Any] | None:
        """The record without its sequence; None when the pipeline never began to work on it."""
        if self._entered is None:
            return None
        entered = self._entered
        marks = {stages.SPEAK_ENTERED: 0.0}
        marks |= {name: unix - self._entered_unix for name, unix in self._before.items()}
        marks |= {name: at - entered for name, at in self._marks.items()}
        timestamps = {f"first_{k}_timestamp": self._timestamps.get(k) for k in MEDIA_KINDS}
        record = {
            "kind": "pipeline",
            "session": self.session,
            "started_unix": self._entered_unix,
            "marks": marks,
            "chunks": [[begin - entered, end - entered] for begin, end in self._chunks],
            "media": timestamps,
            "outcome": self._outcome,
            "error": self._error,
        }
        if self.llm_model is not None:
            record["llm_model"] = self.llm_model[:LONGEST_NAME]
        if self._asked.traceparent is not None:
            record["traceparent"] = self._asked.traceparent
        return record
