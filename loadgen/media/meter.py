"""The media meter: received packets and decoded frame numbers in, instants and A/V drift out.

Pure: no I/O and no clock of its own; all instants are `time.monotonic()` seconds of whoever
stamped the packets. It must not know aiortc, sessions or how numbers are sent on.

What OpenTalking sends: video all the time, audio only during a speech. While idle it shows the
reference picture or, after a speech, that speech's last frame; idle frames that piled up behind
a speech leave all at once when it ends, and video RTP time then runs ahead of real time.

Frames are timed by packet arrival. Decoding tells only which picture a frame shows: decoded
frames come tens of milliseconds late (jitter buffer), and that is this client's own delay.

Drift, positive when sound is early (ITU-R BT.1359-1, annex 1): the first talking frame v0 and
the first audio packet a0 come from the same chunk of the server, so at the onset it is
arrival(v0) − arrival(a0). From there on each video frame's lateness against its RTP timestamp
is compared with that of the latest audio packet. RTP alone does not tell which frame is v0:
without it only the change of drift since the onset is known.

An aiortc server holds up to 20 ms of sound back in its resampler. So the first speech of a
session reads some 19 ms negative, and in later ones a0 begins with what was held back, so that
they read near zero: 20 ms is what "the same chunk" can be off, below what BT.1359-1 calls
detectable (+45 and −125 ms).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import linear_regression, median
from typing import Final

from loadgen.media.frames import Frame, FrameAssembler
from loadgen.media.packets import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, Kind, Packet, Unwrapper

_IDLE_HISTORY = 50
"""Frames kept from before an input: enough for the decoder to be two seconds behind."""

_MIN_SLOPE_SPAN_S = 1.0
"""A slope over less is noise: 1 ms of jitter over it would read as 60 ms a minute."""


class Basis(StrEnum):
    """How the first talking frame, and with it the drift, was found."""

    DECODED_BARCODE = "decoded barcode"
    CHANGE_ONLY = "change only"
    """It was not: drift is the change since the onset of the audio."""


FROM_FIRST_TALKING_FRAME: Final = "from the first talking frame"
FROM_FIRST_AUDIO: Final = "from the first audio packet; the first talking frame is not known"


@dataclass(frozen=True, slots=True)
class Drift:
    """A/V drift of one speech, in milliseconds, positive when sound is early."""

    onset_ms: float | None
    """None with basis `change only`; the others are then changes since the onset."""
    median_ms: float
    p95_ms: float
    """95th percentile of the absolute value (nearest rank)."""
    slope_ms_per_min: float | None
    """Least-squares slope over arrival time; None for a speech of less than a second."""
    frames: int
    basis: Basis


@dataclass(frozen=True, slots=True)
class Speech:
    """What arrived of one answer. Instants are monotonic seconds, None when never seen."""

    first_audio: float | None
    last_audio: float | None
    first_talking_frame: float | None
    no_talking_frame: str | None
    """Why `first_talking_frame` is None."""
    playback_fps: float | None
    playback_basis: str
    drift: Drift | None
    audio_packets: int
    frames: int
    """Complete frames of the answer, as counted for `playback_fps`."""


@dataclass(frozen=True, slots=True)
class _Audio:
    timestamp: int
    arrival: float


class MediaMeter:
    """Feed it every packet and every decoded frame of one session, in order of arrival.

    Between `begin_turn` and the next, `speech` measures the answer. The caller begins a turn
    only when no earlier answer is still playing.
    """

    def __init__(self) -> None:
        self.first_packet: float | None = None
        self.first_key_frame: float | None = None
        self.last_audio: float | None = None
        """Arrival of the session's latest audio packet."""
        self.first_audio: float | None = None
        """Arrival of the first audio packet since the turn began."""
        self._assembler = FrameAssembler()
        self._audio_timestamps = Unwrapper(32)
        self._begin = math.inf
        self._frames: list[Frame] = []
        self._numbers: dict[int, int | None] = {}
        self._audio: list[_Audio] = []

    # --- what comes in ---------------------------------------------------------------------

    def on_packet(self, packet: Packet) -> None:
        """Take one received packet."""
        if self.first_packet is None:
            self.first_packet = packet.arrival
        if packet.kind is Kind.VIDEO:
            for frame in self._assembler.add(packet):
                self._on_frame(frame)
            return
        timestamp = self._audio_timestamps.extend(packet.timestamp)
        self.last_audio = packet.arrival
        if packet.arrival >= self._begin:
            if self.first_audio is None:
                self.first_audio = packet.arrival
            self._audio.append(_Audio(timestamp, packet.arrival))

    def on_decoded(self, rtp_timestamp: int, number: int | None) -> None:
        """Take one decoded frame: its 32-bit RTP timestamp, and the number it shows, if any."""
        self._numbers[self._assembler.extend_timestamp(rtp_timestamp)] = number

    def begin_turn(self, at: float) -> None:
        """The user's input was complete at `at`: what arrives from now on is the answer."""
        self._begin = at
        self.first_audio = None
        self._audio.clear()
        self._keep_latest_frames()

    def _on_frame(self, frame: Frame) -> None:
        if frame.key and self.first_key_frame is None:
            self.first_key_frame = frame.arrival
        self._frames.append(frame)
        if math.isinf(self._begin) and len(self._frames) > 4 * _IDLE_HISTORY:
            self._keep_latest_frames()

    def _keep_latest_frames(self) -> None:
        self._frames = self._frames[-_IDLE_HISTORY:]
        if self._frames:
            oldest = self._frames[0].timestamp
            self._numbers = {t: n for t, n in self._numbers.items() if t >= oldest}

    # --- what goes out ---------------------------------------------------------------------

    def end_turn(self) -> Speech:
        """Measure the answer as far as it has come, and stop collecting it."""
        speech = self._measure()
        self._begin = math.inf
        return speech

    def _measure(self) -> Speech:
        frames = sorted(self._frames, key=lambda f: f.timestamp)
        first_talking = self._first_talking(frames)
        why = None if first_talking is not None else self._why_no_talking_frame()
        if not self._audio:
            return Speech(
                first_audio=None,
                last_audio=None,
                first_talking_frame=first_talking.arrival if first_talking else None,
                no_talking_frame=why,
                playback_fps=None,
                playback_basis=FROM_FIRST_AUDIO,
                drift=None,
                audio_packets=0,
                frames=0,
            )
        first_audio = min(self._audio, key=lambda a: a.timestamp)
        last_audio = max(a.arrival for a in self._audio)
        end = last_audio + self._audio_packet_s()
        if first_talking is not None:
            begin, basis = first_talking.arrival, FROM_FIRST_TALKING_FRAME
        else:
            begin, basis = first_audio.arrival, FROM_FIRST_AUDIO
        talking = self._without_burst([f for f in frames if begin <= f.arrival < end])
        return Speech(
            first_audio=first_audio.arrival,
            last_audio=last_audio,
            first_talking_frame=first_talking.arrival if first_talking else None,
            no_talking_frame=why,
            playback_fps=len(talking) / (end - begin) if len(talking) > 1 else None,
            playback_basis=basis,
            drift=self._drift(first_talking, first_audio, talking),
            audio_packets=len(self._audio),
            frames=len(talking),
        )

    def _first_talking(self, frames: Sequence[Frame]) -> Frame | None:
        """The first frame whose number is not the one shown before the input."""
        shown: int | None = None
        for frame in frames:
            number = self._numbers.get(frame.timestamp)
            if number is None:
                continue
            if frame.arrival <= self._begin:
                shown = number
            elif number != shown:
                return frame
        return None

    def _why_no_talking_frame(self) -> str:
        answer = [f for f in self._frames if f.arrival > self._begin]
        if not answer:
            return "no complete video frame arrived after the input"
        if not any(f.timestamp in self._numbers for f in answer):
            return "no video frame that arrived after the input could be decoded"
        if all(self._numbers.get(f.timestamp) is None for f in answer):
            return (
                "the pictures carry no frame number (the synthetic avatar draws one), and RTP "
                "alone does not tell talking frames from idle ones"
            )
        return "the pictures kept showing the frame number of before the input"

    def _without_burst(self, frames: list[Frame]) -> list[Frame]:
        """Drop idle frames at the end, which piled up behind the speech and left all at once."""
        kept = list(frames)
        while len(kept) > 1 and self._is_replay(kept[-2], kept[-1]):
            kept.pop()
        return kept

    def _is_replay(self, previous: Frame, frame: Frame) -> bool:
        shown, number = (self._numbers.get(f.timestamp) for f in (previous, frame))
        if shown is not None and number is not None:
            return shown == number
        pace = (frame.timestamp - previous.timestamp) / VIDEO_CLOCK_HZ
        return frame.arrival - previous.arrival < 0.5 * pace

    def _audio_packet_s(self) -> float:
        """Duration of one audio packet: the commonest step of RTP time, Opus' 20 ms if unknown."""
        steps = sorted(
            b - a for a, b in pairwise(sorted(a.timestamp for a in self._audio)) if b > a
        )
        return (steps[len(steps) // 2] if steps else 960) / AUDIO_CLOCK_HZ

    def _drift(
        self, first_talking: Frame | None, first_audio: _Audio, talking: Iterable[Frame]
    ) -> Drift | None:
        points = self._drift_points(first_talking, first_audio, talking)
        if not points:
            return None
        values = [drift for _, drift in points]
        onset = first_talking.arrival - first_audio.arrival if first_talking is not None else None
        begin, end = points[0][0], points[-1][0]
        slope = None
        if end - begin >= _MIN_SLOPE_SPAN_S:
            slope = linear_regression([at - begin for at, _ in points], values).slope
        return Drift(
            onset_ms=None if onset is None else onset * 1e3,
            median_ms=median(values) * 1e3,
            p95_ms=_percentile([abs(v) for v in values], 0.95) * 1e3,
            slope_ms_per_min=None if slope is None else slope * 60e3,
            frames=len(points),
            basis=Basis.CHANGE_ONLY if first_talking is None else Basis.DECODED_BARCODE,
        )

    def _drift_points(
        self, first_talking: Frame | None, first_audio: _Audio, talking: Iterable[Frame]
    ) -> list[tuple[float, float]]:
        """(arrival, drift in seconds) of each frame that has audio to be compared with."""
        anchor = first_talking
        audio = iter(self._audio)
        waiting = next(audio, None)
        latest = first_audio
        points: list[tuple[float, float]] = []
        for frame in sorted(talking, key=lambda f: f.arrival):
            if frame.arrival < first_audio.arrival:
                continue
            anchor = anchor or frame
            while waiting is not None and waiting.arrival <= frame.arrival:
                latest = max(latest, waiting, key=lambda a: a.timestamp)
                waiting = next(audio, None)
            video_late = _lateness(frame, anchor, VIDEO_CLOCK_HZ)
            audio_late = _lateness(latest, first_audio, AUDIO_CLOCK_HZ)
            onset = 0.0 if first_talking is None else anchor.arrival - first_audio.arrival
            points.append((frame.arrival, onset + video_late - audio_late))
        return points


def _lateness(what: Frame | _Audio, since: Frame | _Audio, clock_hz: int) -> float:
    """Seconds by which `what` arrived later than its RTP timestamp promised at `since`."""
    return (what.arrival - since.arrival) - (what.timestamp - since.timestamp) / clock_hz


def _percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of a non-empty sequence; `share` in (0, 1]."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
