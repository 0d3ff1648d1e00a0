"""One turn as the client lives it: what is said to the target, when the turn is over and how.

What comes in: the session's events and the instants of the answer's audio. What goes out: a
`Verdict`. Pure: no I/O and no clock. It must not know HTTP, WebRTC or what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from exporter.stages import InputKind, Outcome
from loadgen.opentalking import EventName
from loadgen.sse import Event

_MAX_TEXT = 2_000


@dataclass(frozen=True, slots=True)
class TextInput:
    """What the user types."""

    text: str

    @property
    def kind(self) -> InputKind:
        """Name in docs/marks.md."""
        return InputKind.TEXT


@dataclass(frozen=True, slots=True)
class SpeechInput:
    """What the user says into a microphone: s16le, 16 kHz, mono."""

    pcm: bytes

    @property
    def kind(self) -> InputKind:
        """Name in docs/marks.md."""
        return InputKind.SPEECH


@dataclass(frozen=True, slots=True)
class UploadInput:
    """A recording that the user uploads; `data` is the file's content."""

    data: bytes
    filename: str

    @property
    def kind(self) -> InputKind:
        """Name in docs/marks.md."""
        return InputKind.AUDIO_UPLOAD


Input = TextInput | SpeechInput | UploadInput


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Longest waits within a turn, in seconds."""

    accepted: float = 15.0
    """From the accepted input to the first event of its answer."""
    media: float = 5.0
    """From "media started" to the first audio packet."""
    quiet: float = 0.6
    """Silence after the end of generation that means the end of playback."""
    transcript: float = 60.0
    """From the end of the user's speech to its transcript."""
    turn: float = 180.0
    """From the input to the end of playback."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a turn did not complete; `code` is the target's own, or a word for the reason."""

    code: str
    message: str

    def to_json(self) -> dict[str, str]:
        """As docs/marks.md has it; the exporter takes texts of limited length."""
        return {"code": self.code[:_MAX_TEXT], "message": self.message[:_MAX_TEXT]}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a turn ended."""

    outcome: Outcome
    failure: Failure | None = None


_COMPLETED: Final = Verdict(Outcome.COMPLETED)
_INTERRUPTED: Final = Verdict(Outcome.INTERRUPTED)
_OPEN: Final = (math.inf, _COMPLETED)
"""The answer is on its way: only the limit of the whole turn is ticking."""


class TurnWatch:
    """Follows one turn from its input (`begun`, monotonic seconds) to its verdict."""

    def __init__(self, begun: float, limits: TurnLimits) -> None:
        self._begun = begun
        self._limits = limits
        self._accepted_at: float | None = None
        self._started = False
        self._media_started_at: float | None = None
        self._interrupted = False
        self._failure: Failure | None = None
        self.timed_at: float | None = None
        self.ended_at: float | None = None
        self.timing: Mapping[str, Any] | None = None

    def accepted(self, at: float) -> None:
        """The target has said that it took the input."""
        self._accepted_at = at

    def fail(self, code: str, message: str) -> None:
        """The turn cannot complete any more."""
        if self._failure is None:
            self._failure = Failure(code, message)

    def on_event(self, event: Event) -> None:
        """Take one event of the session, in order."""
        match event.name:
            case EventName.SPEECH_STARTED:
                self._started = True
            case EventName.ERROR:
                code, message = event.data.get("code"), event.data.get("message")
                self.fail(str(code or "UNKNOWN"), str(message or "the target gave no reason"))
            case EventName.SESSION_EXPIRED:
                self.fail("SESSION_EXPIRED", "the target ended the session: its time was up")
            case _ if not self._started:
                # The late end of an earlier, broken-off speech.
                pass
            case EventName.MEDIA_STARTED:
                self._media_started_at = event.at
            case EventName.SPEECH_TIMING:
                self.timed_at, self.timing = event.at, event.data
            case EventName.SPEECH_ENDED:
                self.ended_at = event.at
                # An interrupted speech ends without the text that was spoken.
                self._interrupted = "text" not in event.data

    def pending(
        self, *, first_audio: float | None, last_audio: float | None
    ) -> tuple[float, Verdict]:
        """The verdict that stands if nothing more happens, and the instant it falls.

        `first_audio` and `last_audio` are the answer's first and latest audio packet.
        """
        if self._failure is not None:
            return -math.inf, Verdict(Outcome.FAILED, self._failure)
        if self.ended_at is not None:
            at, verdict = self._after_end(self.ended_at, first_audio, last_audio)
        else:
            at, verdict = self._before_end(first_audio)
        limit = self._begun + self._limits.turn
        if limit < at:
            return limit, _failed(Outcome.TIMEOUT, self._standing(first_audio))
        return at, verdict

    def _before_end(self, first_audio: float | None) -> tuple[float, Verdict]:
        if first_audio is not None:
            return _OPEN
        if self._media_started_at is not None:
            return self._media_started_at + self._limits.media, _NO_MEDIA
        if not self._started and self._accepted_at is not None:
            return self._accepted_at + self._limits.accepted, _failed(
                Outcome.VANISHED,
                f"the target accepted the input and published no event for it within "
                f"{self._limits.accepted:.0f} s (OpenTalking's split mode loses inputs when its "
                "task queue has a backlog)",
            )
        return _OPEN

    def _after_end(
        self, ended_at: float, first_audio: float | None, last_audio: float | None
    ) -> tuple[float, Verdict]:
        if first_audio is not None:
            # Generation outruns playback: audio can go on for seconds.
            at = max(ended_at, last_audio or first_audio) + self._limits.quiet
            return at, _INTERRUPTED if self._interrupted else _COMPLETED
        at = ended_at + self._limits.quiet
        if self._interrupted:
            return at, _INTERRUPTED
        if self._media_started_at is not None:
            return max(at, self._media_started_at + self._limits.media), _NO_MEDIA
        return at, _failed(
            Outcome.FAILED,
            "no audio: the answer ended without any, so text to speech (TTS) is down or its "
            "provider refused; see the target's log",
            code="NO_AUDIO",
        )

    def _standing(self, first_audio: float | None) -> str:
        if first_audio is None:
            stage = "the answer had begun" if self._started else "no answer had begun"
        elif self.ended_at is None:
            stage = "the answer was still being generated"
        else:
            stage = "the answer was still being played"
        return f"after {self._limits.turn:.0f} s {stage}"


def _failed(outcome: Outcome, message: str, *, code: str | None = None) -> Verdict:
    return Verdict(outcome, Failure(code or outcome.name, message))


_NO_MEDIA: Final = _failed(
    Outcome.NO_MEDIA,
    "the target plays the answer and no audio packet arrives: its RTP is blocked on the way or "
    "its sender is stuck",
)
