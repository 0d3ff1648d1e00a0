"""Which video frame is the first one that talks, and how that is known.

What comes in: the frames of an answer and what is known beside them. What goes out: an `Onset`
with its basis. Pure. It must not know drift, rates or where the knowledge came from.

RTP alone does not tell: video runs all the time and its timestamps go on in even steps straight
through the beginning of a speech. While idle the server shows the reference picture or, after a
speech, that speech's last frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loadgen.media.frames import Frame
from loadgen.media.packets import VIDEO_CLOCK_HZ


class Basis(StrEnum):
    """How the first talking frame, and with it the drift, was found; best first."""

    AGENT = "agent's RTP timestamps"
    """The agent inside OpenTalking told with which timestamps picture and sound began."""
    DECODED_BARCODE = "decoded barcode"
    """The number that the synthetic avatar draws was read from the decoded pictures."""
    FRAME_SIZES = "frame sizes"
    """A guess: encoded pictures become larger when the still one begins to move."""
    CHANGE_ONLY = "change only"
    """It was not: drift is the change since the onset of the audio."""


@dataclass(frozen=True, slots=True)
class FirstTimestamps:
    """RTP timestamps (32 bits) of a speech's first talking frame and first sound, as sent."""

    video: int
    audio: int


@dataclass(frozen=True, slots=True)
class Onset:
    """The first talking frame, or why it is not known."""

    frame: Frame | None
    basis: Basis
    why_not: str | None = None


_LATEST_S: Final = 1.0
"""The frame the agent told may be lost; one so much later in the media is another one."""

_BEFORE_AUDIO_S: Final = 0.5
_AFTER_AUDIO_S: Final = 1.0
"""Where frame sizes are looked at, around the first audio packet."""
_IDLE_FRAMES: Final = 25
_USUAL: Final = 0.8
"""Share of the idle frames that are no larger than usual: an encoder now and then refines a still
picture with a few large ones, for a new bitrate above all."""
_GROWTH: Final = 1.4
_LEAST_GROWTH: Final = 300
_LEAP: Final = 500
"""Bytes: a still picture's frames hold so few that their size wanders by itself, as when the
encoder is given more bitrate; movement begins with a leap."""
_LOOK_AHEAD: Final = 4
_LEAPING: Final = 3
"""Recordings of the real server: idle frames vary by 15 %, talking ones are 1.8 to 25 times as
large. A key frame stands out alone, so three of four must be large."""
_LASTING_S: Final = 1.0
_LASTING: Final = 1 / 3
"""A mouth goes on to move, an encoder that refines a still picture is done within some frames: on
the real server 14 of a second's 25 frames are large, against 4."""


def by_timestamp(frames: Sequence[Frame], timestamp: int) -> Frame | None:
    """The frame with this extended timestamp, or the next one if it was lost."""
    for frame in frames:
        if frame.timestamp >= timestamp:
            late = (frame.timestamp - timestamp) / VIDEO_CLOCK_HZ
            return frame if late <= _LATEST_S else None
    return None


def by_number(
    frames: Sequence[Frame], numbers: Mapping[int, int | None], begin: float
) -> Frame | None:
    """The first frame whose number is not the one shown before the input at `begin`.

    `numbers` gives the number by extended timestamp, for frames that were decoded.
    """
    shown: int | None = None
    for frame in frames:
        number = numbers.get(frame.timestamp)
        if number is None:
            continue
        if frame.arrival <= begin:
            shown = number
        elif number != shown:
            return frame
    return None


def why_no_number(
    frames: Sequence[Frame], numbers: Mapping[int, int | None], begin: float, decoding: bool
) -> str:
    """Why `by_number` found nothing."""
    answer = [f for f in frames if f.arrival > begin]
    if not answer:
        return "no complete video frame arrived after the input"
    if not decoding:
        return "pictures are not decoded, and RTP alone does not tell talking frames from idle ones"
    if not any(f.timestamp in numbers for f in answer):
        return "no video frame that arrived after the input could be decoded"
    if all(numbers.get(f.timestamp) is None for f in answer):
        return (
            "the pictures carry no frame number (the synthetic avatar draws one), and RTP "
            "alone does not tell talking frames from idle ones"
        )
    return "the pictures kept showing the frame number of before the input"


def by_size(
    frames: Sequence[Frame], begin: float, first_audio: float, last_audio: float
) -> Frame | None:
    """The first of many frames that are larger than idle ones, near the first audio."""
    earliest = max(begin, first_audio - _BEFORE_AUDIO_S)
    idle = _idle_sizes(frames, earliest)
    if len(idle) < _IDLE_FRAMES:
        return None
    usual = sorted(idle)[math.ceil(_USUAL * len(idle)) - 1]
    threshold = max(_GROWTH * usual, usual + _LEAST_GROWTH)
    around = [f for f in frames if earliest <= f.arrival]
    for index, frame in enumerate(around):
        if frame.arrival > first_audio + _AFTER_AUDIO_S:
            return None
        if frame.size < usual + _LEAP:
            continue
        leaping = [f.size > threshold for f in around[index : index + _LOOK_AHEAD]]
        until = min(frame.arrival + _LASTING_S, last_audio)
        lasting = [f.size > threshold for f in around[index:] if f.arrival <= until]
        if sum(leaping) >= _LEAPING and sum(lasting) >= _LASTING * len(lasting):
            return frame
    return None


def why_no_size(frames: Sequence[Frame], begin: float, first_audio: float) -> str:
    """Why `by_size` found nothing."""
    if len(_idle_sizes(frames, max(begin, first_audio - _BEFORE_AUDIO_S))) < _IDLE_FRAMES:
        return "too few idle frames came before the sound to compare their encoded sizes with"
    return (
        "their encoded sizes did not grow and stay large when the sound began: the picture stands "
        "still, as that of the model mock does, or hardly moves"
    )


def _idle_sizes(frames: Sequence[Frame], before: float) -> list[int]:
    return [f.size for f in frames if f.arrival < before and not f.key][-_IDLE_FRAMES:]
