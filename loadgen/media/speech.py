"""One answer, measured: its frames and sounds in, rates, freezes, gaps and A/V drift out.

Pure: no I/O and no clock of its own. It must not know packets, sessions or how the frames were
received; finding the first talking frame is `onset`'s.

After a speech, idle frames that piled up behind it leave all at once, and video RTP time then
runs ahead of real time: they are told apart as `Burst` and are in no other figure.

Drift, positive when sound is early (ITU-R BT.1359-1, annex 1): the first talking frame v0 and
the first audio packet a0 come from the same chunk of the server, so at the onset it is
arrival(v0) − arrival(a0). From there on each video frame's lateness against its RTP timestamp
is compared with that of the latest audio packet. Without v0 only the change of drift since the
onset is known.

An aiortc server holds up to 20 ms of sound back in its resampler. So the first speech of a
session reads some 19 ms negative, and in later ones a0 begins with what was held back, so that
they read near zero: 20 ms is what "the same chunk" can be off, below what BT.1359-1 calls
detectable (+45 and −125 ms).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import linear_regression, median
from typing import Final, NamedTuple

from loadgen.media.frames import Frame
from loadgen.media.freezes import Freeze
from loadgen.media.onset import Basis, Onset
from loadgen.media.packets import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ
from loadgen.media.playout import listen
from loadgen.media.statistics import jitter_s

_MIN_SLOPE_SPAN_S = 1.0
"""A slope over less is noise: 1 ms of jitter over it would read as 60 ms a minute."""

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
class StreamTotals:
    """What arrived of one medium."""

    packets: int
    bytes: int
    """Of whole datagrams where they are seen, else of payloads."""
    lost: int
    """By the network, before any repair."""
    loss_ratio: float | None
    jitter_ms: float | None
    """Interarrival jitter (RFC 3550, section 6.4.1)."""
    bitrate_bps: float | None


@dataclass(frozen=True, slots=True)
class Burst:
    """Idle frames that left all at once when the speech was over."""

    frames: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Speech:
    """What arrived of one answer. Instants are monotonic seconds, None when never seen."""

    first_audio: float | None
    last_audio: float | None
    first_talking_frame: float | None
    no_talking_frame: str | None
    """Why `first_talking_frame` is None."""
    talking_basis: Basis
    playback_fps: float | None
    playback_basis: str
    drift: Drift | None
    audio_packets: int
    frames: int
    """Playable frames of the answer, as counted for `playback_fps`."""
    freezes: int
    """Pictures of the answer that stood too long (W3C webrtc-stats, `freezeCount`)."""
    frozen_s: float
    longest_gap_s: float | None
    """Longest time between two pictures of the answer."""
    audio_gaps: int
    concealed_s: float
    burst: Burst | None
    video: StreamTotals
    audio: StreamTotals


class Sound(NamedTuple):
    """One audio packet."""

    timestamp: int
    """RTP timestamp, extended so that it never wraps."""
    arrival: float


SOUND_LAYOUT: Final = "=qd"
"""Of a `Sound`'s fields, in order, for `struct`."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counters of one medium over the answer."""

    packets: int
    bytes: int
    expected: int


@dataclass(frozen=True, slots=True)
class Answer:
    """All that arrived between an input and the end of its answer."""

    frames: Sequence[Frame]
    """In media order; also some of before the input."""
    sounds: Sequence[Sound]
    """In the order of arrival."""
    numbers: Mapping[int, int | None]
    """Extended timestamp → number shown, of decoded frames."""
    freezes: Sequence[Freeze]
    video: Traffic
    audio: Traffic
    seconds: float
    """From the input to the end of the answer's measurement."""
    unbroken: bool
    """One source sent each medium throughout."""
    first_picture: int | None = None
    first_sound: int | None = None
    """Extended timestamps with which picture and sound began, where the agent told."""


def measure(answer: Answer, onset: Onset) -> Speech:
    """Measure an answer whose first talking frame is known, or is not."""
    first_talking = onset.frame
    talk_began = first_talking.arrival if first_talking is not None else None
    if not answer.sounds:
        return Speech(
            first_audio=None,
            last_audio=None,
            first_talking_frame=talk_began,
            no_talking_frame=onset.why_not,
            talking_basis=onset.basis,
            playback_fps=None,
            playback_basis=FROM_FIRST_AUDIO,
            drift=None,
            audio_packets=0,
            frames=0,
            freezes=0,
            frozen_s=0.0,
            longest_gap_s=None,
            audio_gaps=0,
            concealed_s=0.0,
            burst=None,
            video=_totals(answer.video, answer.seconds, None),
            audio=_totals(answer.audio, answer.seconds, None),
        )
    sounds = sorted(answer.sounds, key=lambda s: s.timestamp)
    packet_s = _audio_packet_s(sounds)
    last_audio = max(s.arrival for s in sounds)
    end = last_audio + packet_s
    begin = talk_began if talk_began is not None else sounds[0].arrival
    shown = [f for f in answer.frames if begin <= f.playable < end]
    talking = _without_burst(shown, answer.numbers)
    last_shown = talking[-1].playable if talking else begin
    frozen = [f for f in answer.freezes if begin < f.end <= last_shown]
    heard = listen(((s.arrival, s.timestamp / AUDIO_CLOCK_HZ) for s in sounds), packet_s)
    seconds = end - begin
    return Speech(
        first_audio=sounds[0].arrival,
        last_audio=last_audio,
        first_talking_frame=talk_began,
        no_talking_frame=onset.why_not,
        talking_basis=onset.basis,
        playback_fps=len(talking) / seconds if len(talking) > 1 else None,
        playback_basis=FROM_FIRST_TALKING_FRAME if first_talking else FROM_FIRST_AUDIO,
        drift=_drift(answer, onset, sounds, talking) if answer.unbroken else None,
        audio_packets=len(sounds),
        frames=len(talking),
        freezes=len(frozen),
        frozen_s=sum(f.seconds for f in frozen),
        longest_gap_s=max((b.playable - a.playable for a, b in pairwise(talking)), default=None),
        audio_gaps=heard.gaps,
        concealed_s=heard.concealed_s,
        burst=_burst(answer.frames, last_shown, end),
        video=_totals(answer.video, answer.seconds, _jitter(talking, VIDEO_CLOCK_HZ)),
        audio=_totals(
            answer.audio, last_audio - sounds[0].arrival, _jitter(sounds, AUDIO_CLOCK_HZ)
        ),
    )


def _totals(traffic: Traffic, seconds: float, jitter: float | None) -> StreamTotals:
    lost = max(0, traffic.expected - traffic.packets)
    return StreamTotals(
        packets=traffic.packets,
        bytes=traffic.bytes,
        lost=lost,
        loss_ratio=lost / traffic.expected if traffic.expected else None,
        jitter_ms=None if jitter is None else jitter * 1e3,
        bitrate_bps=8 * traffic.bytes / seconds if seconds > 0 else None,
    )


def _jitter(arrived: Iterable[Frame | Sound], clock_hz: int) -> float | None:
    return jitter_s((one.arrival, one.timestamp / clock_hz) for one in arrived)


def _without_burst(frames: Sequence[Frame], numbers: Mapping[int, int | None]) -> list[Frame]:
    """Drop idle frames at the end, which piled up behind the speech and left all at once."""
    kept = list(frames)
    while len(kept) > 1 and _is_replay(kept[-2], kept[-1], numbers):
        kept.pop()
    return kept


def _is_replay(previous: Frame, frame: Frame, numbers: Mapping[int, int | None]) -> bool:
    shown, number = (numbers.get(f.timestamp) for f in (previous, frame))
    if shown is not None and number is not None:
        return shown == number
    return _rushes(previous, frame)


def _rushes(previous: Frame, frame: Frame) -> bool:
    """Whether a frame came in less than half the time that the media took."""
    pace = (frame.timestamp - previous.timestamp) / VIDEO_CLOCK_HZ
    # A repaired loss releases frames together, too, but they had arrived at their own time.
    return frame.arrival - previous.arrival < 0.5 * pace


def _burst(frames: Sequence[Frame], last_shown: float, end: float) -> Burst | None:
    """The frames that rushed in right behind the last one shown."""
    rushed: list[Frame] = []
    for previous, frame in pairwise(f for f in frames if f.playable >= last_shown):
        if _rushes(previous, frame):
            rushed.append(frame)
        elif rushed or frame.arrival > end:
            break
    if not rushed:
        return None
    return Burst(len(rushed), rushed[-1].arrival - rushed[0].arrival)


def _audio_packet_s(sounds: Sequence[Sound]) -> float:
    """Duration of one audio packet: the commonest step of RTP time, Opus' 20 ms if unknown."""
    steps = sorted(b.timestamp - a.timestamp for a, b in pairwise(sounds))
    steps = [step for step in steps if step > 0]
    return (steps[len(steps) // 2] if steps else 960) / AUDIO_CLOCK_HZ


# --- drift -----------------------------------------------------------------------------------


def _drift(
    answer: Answer, onset: Onset, sounds: Sequence[Sound], talking: Sequence[Frame]
) -> Drift | None:
    first = onset.anchor
    points = _drift_points(answer, first, sounds[0], talking)
    if not points:
        return None
    values = [drift for _, drift in points]
    begin, end = points[0][0], points[-1][0]
    slope = None
    if end - begin >= _MIN_SLOPE_SPAN_S:
        slope = linear_regression([at - begin for at, _ in points], values).slope
    return Drift(
        onset_ms=None if first is None else _onset(answer, first, sounds[0]) * 1e3,
        median_ms=median(values) * 1e3,
        p95_ms=_percentile([abs(v) for v in values], 0.95) * 1e3,
        slope_ms_per_min=None if slope is None else slope * 60e3,
        frames=len(points),
        basis=Basis.CHANGE_ONLY if first is None else onset.basis,
    )


def _onset(answer: Answer, first: Frame, first_sound: Sound) -> float:
    """Seconds by which the first talking frame came later than the sound that goes with it.

    Where the true first ones were lost, the first that came stand for them, each less the time
    that lies between them in the media.
    """
    skipped_picture = skipped_sound = 0.0
    if answer.first_picture is not None and answer.first_sound is not None:
        skipped_picture = (first.timestamp - answer.first_picture) / VIDEO_CLOCK_HZ
        skipped_sound = (first_sound.timestamp - answer.first_sound) / AUDIO_CLOCK_HZ
    return (first.arrival - skipped_picture) - (first_sound.arrival - skipped_sound)


def _drift_points(
    answer: Answer, first_talking: Frame | None, first_sound: Sound, talking: Iterable[Frame]
) -> list[tuple[float, float]]:
    """(arrival, drift in seconds) of each frame that has audio to be compared with."""
    anchor = first_talking
    arriving = iter(answer.sounds)
    waiting = next(arriving, None)
    latest = first_sound
    points: list[tuple[float, float]] = []
    for frame in sorted(talking, key=lambda f: f.arrival):
        if frame.arrival < first_sound.arrival:
            continue
        anchor = anchor or frame
        while waiting is not None and waiting.arrival <= frame.arrival:
            latest = max(latest, waiting, key=lambda s: s.timestamp)
            waiting = next(arriving, None)
        video_late = _lateness(frame, anchor, VIDEO_CLOCK_HZ)
        audio_late = _lateness(latest, first_sound, AUDIO_CLOCK_HZ)
        onset = 0.0 if first_talking is None else _onset(answer, first_talking, first_sound)
        points.append((frame.arrival, onset + video_late - audio_late))
    return points


def _lateness(what: Frame | Sound, since: Frame | Sound, clock_hz: int) -> float:
    """Seconds by which `what` arrived later than its RTP timestamp promised at `since`."""
    return (what.arrival - since.arrival) - (what.timestamp - since.timestamp) / clock_hz


def _percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of a non-empty sequence; `share` in (0, 1]."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
