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
from statistics import median
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
    BESIDE_SOUND = "frame beside the first sound"
    """A guess where sizes alone do not tell: a picture that grew when the sound began. It takes
    for granted that both begin together, so nothing of their drift follows from it."""
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

    @property
    def anchor(self) -> Frame | None:
        """The first talking frame, where it was found without regard to the sound."""
        return None if self.basis is Basis.BESIDE_SOUND else self.frame


_LATEST_S: Final = 1.0
"""The frame the agent told may be lost; one so much later in the media is another one."""

_BEFORE_AUDIO_S: Final = 0.5
_AFTER_AUDIO_S: Final = 1.0
"""Where frame sizes are looked at, around the first audio packet."""

# From 400 turns of the real server at three picture sizes, whose frames were numbered. A still
# picture is refined after a speech, a connection or a key frame, for a second or so, and its
# frames are then as large as talking ones; after that they vary by a few percent.
_BEFORE: Final = 12
_FEWEST_BEFORE: Final = 6
_STEADY: Final = 1.4
_STEADY_BYTES: Final = 60
"""Frames before it are steady when the largest is at most so many times the middle one, and that
the smallest, and some bytes, for the smallest pictures' sake. One at either end does not count:
it may be a key frame, or the one behind it."""
_GROWTH: Final = 1.4
_LEAST_GROWTH: Final = 300
_LEAP: Final = 500
"""Bytes: a still picture's frames hold so few that their size wanders by itself, as when the
encoder is given more bitrate; movement begins with a leap."""
_LOOK_AHEAD: Final = 4
_LASTING: Final = 3
"""A key frame stands out alone, so three of four must be large."""
_GREAT: Final = 3.0
"""Times the largest before it: so great a leap is enough if the encoder, which saves what it has
overspent, does not fall below where it was: behind a key frame it does."""
_NOT_BELOW: Final = 0.9

_GOES_ON_S: Final = 1.0
_GOES_ON: Final = 0.25
"""A mouth goes on to move: in the recordings that are found by size (onsets.jsonl of the tests,
some 0.6 s of each speech) at least 31 % of the frames behind the first were as large. An encoder
that refines a still picture, for a new bitrate above all, is done within some frames: 4 of a
second's 25 with the mock model."""

_BESIDE_S: Final = 0.08
_BESIDE_BEFORE: Final = 4
_CLOSENESS_S: Final = 0.08
"""So much farther from the sound weighs as much as being e times smaller."""
_BESIDE_GROWTH: Final = 1.25
_BESIDE_NOT_BELOW: Final = 0.75
_MOVES: Final = 1.5
"""Times the smallest frame before it: the middle one of those behind it, where the mouth moves."""


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
    """The first frame, near the first audio, that leaps from steady idle ones and stays large."""
    earliest = max(begin, first_audio - _BEFORE_AUDIO_S)
    latest = first_audio + _AFTER_AUDIO_S
    sizes = [f.size for f in frames]
    for index, frame in enumerate(frames):
        if earliest <= frame.arrival <= latest and _leaps(sizes, index):
            threshold = _threshold(_before(sizes, index))
            large = [size > threshold for size in _speaking(frames, index, last_audio)]
            if sum(large) >= _GOES_ON * len(large):
                return frame
    return None


def _speaking(frames: Sequence[Frame], index: int, last_audio: float) -> list[int]:
    """Sizes of this frame and those of the next second, as far as the speech goes."""
    until = min(frames[index].arrival + _GOES_ON_S, last_audio)
    return [frames[index].size, *(f.size for f in frames[index + 1 :] if f.arrival <= until)]


def _before(sizes: Sequence[int], index: int) -> list[int]:
    return sorted(sizes[max(0, index - _BEFORE) : index])


def _threshold(before: Sequence[int]) -> float:
    largest = before[-2]
    return max(_GROWTH * largest, largest + _LEAST_GROWTH)


def _leaps(sizes: Sequence[int], index: int) -> bool:
    before = _before(sizes, index)
    if len(before) < _FEWEST_BEFORE:
        return False
    usual, smallest, largest = median(before), before[1], before[-2]
    if largest > _STEADY * usual + _STEADY_BYTES or usual > _STEADY * smallest + _STEADY_BYTES:
        return False
    threshold = _threshold(before)
    if sizes[index] < max(threshold, usual + _LEAP):
        return False
    ahead = sizes[index : index + _LOOK_AHEAD]
    if sum(size > threshold for size in ahead) >= _LASTING and ahead[1] > threshold:
        return True
    return sizes[index] >= _GREAT * largest and _after(sizes, index) >= _NOT_BELOW * usual


def _after(sizes: Sequence[int], index: int) -> float:
    """Mean size of the next frames; 0 where they have not come."""
    after = sizes[index + 1 : index + _LOOK_AHEAD]
    return sum(after) / len(after) if len(after) == _LOOK_AHEAD - 1 else 0.0


def beside_sound(
    frames: Sequence[Frame], begin: float, first_audio: float, last_audio: float
) -> Frame | None:
    """The frame that came with the first audio and grew; None where none grew.

    OpenTalking starts both tracks of a speech by one clock, so that its first frame and sound
    leave together. Of the frames that grew, nearer and larger ones are preferred.
    """
    sizes = [f.size for f in frames]
    best, best_score = None, -math.inf
    for index, frame in enumerate(frames):
        away = abs(frame.arrival - first_audio)
        before = sizes[max(0, index - _BESIDE_BEFORE) : index]
        if frame.arrival < begin or away > _BESIDE_S or len(before) < _BESIDE_BEFORE:
            continue
        usual = median(before)
        growth = frame.size / max(1.0, usual)
        if growth < _BESIDE_GROWTH or _after(sizes, index) < _BESIDE_NOT_BELOW * usual:
            continue
        if median(_speaking(frames, index, last_audio)) < _MOVES * min(sizes[:index]):
            continue
        score = math.log(growth) - away / _CLOSENESS_S
        if score > best_score:
            best, best_score = frame, score
    return best


def why_no_size(frames: Sequence[Frame], first_audio: float) -> str:
    """Why neither `by_size` nor `beside_sound` found a frame."""
    if sum(f.arrival < first_audio for f in frames) < _FEWEST_BEFORE:
        return "too few frames came before the sound to compare their encoded sizes with"
    return (
        "their encoded sizes did not grow and stay large when the sound began: the picture stands "
        "still, as that of the model mock does, or hardly moves"
    )
