"""OpenTalking 0.1.0's vocabulary: event names, `speech.timing` fields, Redis keys, log lines.

What comes in: a log line as text. What goes out: constants, and the line's meaning as an
observation's fields. It must not know where lines and events come from, nor what a turn is.

Everything here was read off the running system; another OpenTalking version that renames a
field is adapted here and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from exporter import stages

SPEECH_STARTED: Final = "speech.started"
SPEECH_MEDIA_STARTED: Final = "speech.media_started"
SPEECH_TIMING: Final = "speech.timing"
SPEECH_ENDED: Final = "speech.ended"
SESSION_QUEUED: Final = "session.queued"
SESSION_EXPIRED: Final = "session.expired"
ERROR: Final = "error"
PING: Final = "ping"

SPEAKING_STATE: Final = "speaking"
"""State of a session, in its hash, while an answer is generated."""

STATE_FIELD: Final = "state"
CLOSED_STATE: Final = "closed"
GONE_STATES: Final = frozenset({"closing", CLOSED_STATE, "error"})
"""States of a session, in its hash, that it does not come back from."""

EVENT_CHANNEL_PREFIX: Final = "opentalking:events:"
EVENT_CHANNEL_PATTERN: Final = EVENT_CHANNEL_PREFIX + "*"
SESSION_KEY_PREFIX: Final = "opentalking:session:"
TASK_QUEUE_KEY: Final = "opentalking:task_queue"
SLOT_STATUS_KEY: Final = "opentalking:flashtalk_queue_status"

MODE_BY_API_TITLE: Final = {"OpenTalking Unified": "unified", "OpenTalking API": "split"}
"""Title in /openapi.json; its version is FastAPI's default and says nothing."""

OFFSETS: Final[dict[str, str]] = {
    stages.TTS_FIRST_PCM: "ttfa_ms",
    stages.AVATAR_REQUESTED: "first_model_request_ms",
    stages.AVATAR_FIRST_FRAME: "first_model_return_ms",
    stages.MEDIA_QUEUED: "first_webrtc_queue_ms",
    stages.SPEECH_GENERATED: "speak_wall_ms",
}
"""Mark → field of `speech.timing` that holds its distance from `speak.entered`."""

ENQUEUE_TO_ENTER: Final = "api_enqueue_to_speak_enter_ms"
CHUNK_LATENCIES: Final = "chunk_latency_ms"
CHUNK_SAMPLES: Final = "chunk_samples"
SAMPLE_RATE: Final = "sample_rate"
OUTPUT_FPS: Final = "output_fps"

USER_TEXT_FIELD: Final = "text"
"""Event field that holds what a person said or heard; it enters neither spans nor bundles."""


@dataclass(frozen=True, slots=True)
class PipelineTimingLine:
    """`Speak pipeline timing: session=… llm_first_token_ms=147 …`; n/a and −1 are left out."""

    session: str
    fields: dict[str, float]


@dataclass(frozen=True, slots=True)
class EnteredLine:
    """`FlashHead prebuffer: session=… …`, for any model: the last line before the pipeline's clock
    starts (`t_speak_wall0` in opentalking/pipeline/speak/synthesis_runner.py), so its instant is
    the entry's."""

    session: str


@dataclass(frozen=True, slots=True)
class SentenceLine:
    """`TTS sentence done | … | first_pcm=187ms …`: says no session."""

    first_pcm_ms: float


@dataclass(frozen=True, slots=True)
class LlmStartedLine:
    """`LLM streaming started for: …`: its instant is what matters; says no session."""


Line = PipelineTimingLine | EnteredLine | SentenceLine | LlmStartedLine

_FIELD = re.compile(r"(\w+)=(\S+)")
_ENTERED = re.compile(r"FlashHead prebuffer: session=(\S+) chars=")
_FIRST_PCM = re.compile(r"\| first_pcm=(-?\d+)ms ")
_PREFIX = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,9})(Z)? ",
)


def parse_line(text: str) -> Line | None:
    """The meaning of one log line, or None for the many that carry no measurement.

    Fields that are not numbers (`n/a`) or are upstream's "never happened" (−1) are left out,
    so that nothing absent becomes a number.
    """
    if "Speak pipeline timing:" in text:
        return _pipeline_timing(text)
    if "TTS sentence done |" in text:
        # The field follows a preview of what is said, which may look like one.
        found = _FIRST_PCM.findall(text)
        if not found or found[-1].startswith("-"):
            return None
        return SentenceLine(first_pcm_ms=float(found[-1]))
    if "LLM streaming started for:" in text:
        return LlmStartedLine()
    entered = _ENTERED.search(text)
    return EnteredLine(entered[1]) if entered is not None else None


def clean_timing(data: Mapping[str, Any]) -> dict[str, Any]:
    """A `speech.timing` event's fields that are what they should be; the rest become null.

    `model` is a name, `chunk_latency_ms` a list of numbers, every other field a number; numbers
    are finite. The session id is left out.
    """
    clean: dict[str, Any] = {}
    for name, value in data.items():
        if name == "model":
            clean[name] = value if isinstance(value, str) else None
        elif name == CHUNK_LATENCIES:
            items = value if isinstance(value, list) else []
            clean[name] = [item for item in map(_finite, items) if item is not None]
        elif name != "session_id":
            clean[name] = _finite(value)
    return clean


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def _pipeline_timing(text: str) -> PipelineTimingLine | None:
    session = ""
    fields: dict[str, float] = {}
    for name, raw in _FIELD.findall(text):
        if name == "session":
            session = raw
            continue
        try:
            value = float(raw)
        except ValueError:
            continue
        if value >= 0:
            fields[name] = value
    return PipelineTimingLine(session, fields) if session else None


def line_time(text: str) -> float | None:
    """The instant a line's own prefix names (seconds since the epoch), or None.

    Reads `2026-11-22T16:12:02.340123Z …` (UTC), as does `docker logs --timestamps` with nine
    digits, and, without the Z, local time.
    """
    match = _PREFIX.match(text)
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(match[1])
    except ValueError:
        return None
    if match[2]:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
