"""The media meter: received packets and decoded frame numbers in, a session's figures out.

What comes in: the packets of one session in the order of arrival, and the numbers of decoded
frames. What goes out: the session's first instants and totals, and one `Speech` for each turn.
Pure: no I/O and no clock of its own; all instants are `time.monotonic()` seconds of whoever
stamped the packets. It must not know aiortc, sessions or how numbers are sent on.

What OpenTalking sends: video all the time, audio only during a speech. Frames are timed by
packet arrival. Decoding tells only which picture a frame shows: decoded frames come tens of
milliseconds late (jitter buffer), and that is this client's own delay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from loadgen.media.frames import FRAME_LAYOUT, Frame, FrameAssembler
from loadgen.media.freezes import Freeze, FreezeDetector
from loadgen.media.onset import (
    Basis,
    FirstTimestamps,
    Onset,
    beside_sound,
    by_number,
    by_size,
    by_timestamp,
    why_no_number,
    why_no_size,
)
from loadgen.media.packed import PackedRecords
from loadgen.media.packets import (
    AUDIO_CLOCK_HZ,
    NO_PICTURE,
    VIDEO_CLOCK_HZ,
    Kind,
    Packet,
    PictureFlags,
    Unwrapper,
)
from loadgen.media.speech import (
    SOUND_LAYOUT,
    Answer,
    Sound,
    Speech,
    StreamTotals,
    Traffic,
    measure,
)
from loadgen.media.statistics import SourceStatistics

_IDLE_HISTORY = 50
"""Frames kept from before an input: enough for the decoder to be two seconds behind."""

_TIMESTAMPS = 1 << 32


@dataclass(frozen=True, slots=True)
class SessionMedia:
    """What a session received since it began."""

    video: StreamTotals
    audio: StreamTotals
    frames: int
    """Pictures that could be shown."""
    freezes: int
    """W3C webrtc-stats, `freezeCount`."""
    frozen_s: float
    longest_gap_s: float | None
    """Longest time between two pictures."""
    nacks: int | None
    """Requests for missing packets and for key frames; None where aiortc sends them."""
    plis: int | None
    numbered: bool
    """Whether a decoded picture showed a frame number."""


class _Counted:
    """One medium's sources, one after the other."""

    def __init__(self, clock_hz: int) -> None:
        self.now = SourceStatistics(clock_hz)
        self.sources = 0
        self.first: float | None = None
        self.last: float | None = None
        self._before = Traffic(0, 0, 0)
        self._marked = Traffic(0, 0, 0)

    def change(self, statistics: SourceStatistics) -> None:
        self._before = self.total()
        self.now = statistics
        self.sources += 1

    def total(self) -> Traffic:
        now, before = self.now, self._before
        return Traffic(
            before.packets + now.packets,
            before.bytes + now.bytes,
            before.expected + now.expected,
        )

    def mark(self) -> None:
        self._marked = self.total()

    def since_mark(self) -> Traffic:
        total, marked = self.total(), self._marked
        return Traffic(
            total.packets - marked.packets,
            total.bytes - marked.bytes,
            total.expected - marked.expected,
        )

    def totals(self) -> StreamTotals:
        total = self.total()
        lost = max(0, total.expected - total.packets)
        seconds = 0.0
        if self.first is not None and self.last is not None:
            seconds = self.last - self.first
        return StreamTotals(
            packets=total.packets,
            bytes=total.bytes,
            lost=lost,
            loss_ratio=lost / total.expected if total.expected else None,
            jitter_ms=self.now.jitter_s * 1e3 if total.packets > 1 else None,
            bitrate_bps=8 * total.bytes / seconds if seconds else None,
        )


class MediaMeter:
    """Feed it every packet and every decoded frame of one session, in order of arrival.

    Between `begin_turn` and the next, `end_turn` measures the answer. The caller begins a turn
    only when no earlier answer is still playing.

    A receiver that knows its sources announces each with `on_source` and counts its packets
    itself; one that does not hands in `Packet`s.
    """

    def __init__(self, *, decoding: bool = True) -> None:
        """`decoding` says whether decoded frames are to be expected."""
        self.first_packet: float | None = None
        self.first_key_frame: float | None = None
        self.on_first_key_frame: Callable[[], None] | None = None
        """Called when the first key frame is complete."""
        self.last_audio: float | None = None
        """Arrival of the session's latest audio packet."""
        self.first_audio: float | None = None
        """Arrival of the first audio packet since the turn began."""
        self.nacks = 0
        self.plis = 0
        """Requests for missing packets and for key frames that the receiver sent."""
        self.pictures = FrameAssembler()
        self._video = _Counted(VIDEO_CLOCK_HZ)
        self._audio = _Counted(AUDIO_CLOCK_HZ)
        self._sequences = Unwrapper(16)
        self._timestamps = Unwrapper(32)
        self._heard: set[int] = set()
        self._begin = math.inf
        self._unbroken = True
        self._frame_count = 0
        self._freezes = FreezeDetector()
        self._turn_freezes: list[Freeze] = []
        self._frames = PackedRecords(FRAME_LAYOUT, Frame)
        self._numbers: dict[int, int | None] = {}
        self._numbered = False
        self._decoding = decoding
        self._sounds = PackedRecords(SOUND_LAYOUT, Sound)

    # --- what comes in ---------------------------------------------------------------------

    def on_packet(self, packet: Packet) -> None:
        """Take one received packet."""
        counted = self._video if packet.kind is Kind.VIDEO else self._audio
        if not packet.repair:
            counted.now.add(packet.sequence, packet.timestamp, packet.size, packet.arrival)
        if packet.kind is Kind.VIDEO:
            flags = PictureFlags(packet.starts_frame, packet.key)
            self.on_video(
                packet.sequence,
                packet.timestamp,
                packet.marker,
                packet.size,
                packet.arrival,
                flags,
            )
        else:
            self.on_audio(packet.sequence, packet.timestamp, packet.arrival)

    def on_source(self, kind: Kind, statistics: SourceStatistics) -> None:
        """A new source sends this medium from now on, and `statistics` counts its packets."""
        counted = self._video if kind is Kind.VIDEO else self._audio
        counted.change(statistics)
        if counted.sources == 1:
            return
        # Nothing relates the clocks of two sources: extended timestamps begin far ahead.
        self._unbroken = False
        origin = (2 * counted.sources) * _TIMESTAMPS
        if kind is Kind.VIDEO:
            self.pictures = FrameAssembler(origin)
        else:
            self._timestamps = Unwrapper(32, origin)
            self._sequences = Unwrapper(16)
            self._heard.clear()

    def on_video(
        self,
        sequence: int,
        timestamp: int,
        marker: bool,
        size: int,
        arrival: float,
        flags: PictureFlags = NO_PICTURE,
    ) -> None:
        """Take one video packet: header fields as sent, payload bytes, arrival, payload's word."""
        if self.first_packet is None:
            self.first_packet = arrival
        if self._video.first is None:
            self._video.first = arrival
        self._video.last = arrival
        for frame in self.pictures.take(
            sequence, timestamp, marker, size, arrival, flags.starts_frame, flags.key
        ):
            self._on_frame(frame)

    def on_audio(self, sequence: int, timestamp: int, arrival: float) -> None:
        """Take one audio packet: header fields as sent, and arrival."""
        if self.first_packet is None:
            self.first_packet = arrival
        if self._audio.first is None:
            self._audio.first = arrival
        self._audio.last = self.last_audio = arrival
        extended = self._timestamps.extend(timestamp)
        if arrival < self._begin:
            return
        number = self._sequences.extend(sequence)
        if number in self._heard:
            return
        self._heard.add(number)
        if self.first_audio is None:
            self.first_audio = arrival
        self._sounds.append(Sound(extended, arrival))

    def on_decoded(self, rtp_timestamp: int, number: int | None) -> None:
        """Take one decoded frame: its 32-bit RTP timestamp, and the number it shows, if any."""
        self._numbers[self.pictures.extend_timestamp(rtp_timestamp)] = number
        self._numbered = self._numbered or number is not None

    def expire(self, now: float) -> None:
        """Give up packets that have been missing for too long."""
        for frame in self.pictures.expire(now):
            self._on_frame(frame)

    def begin_turn(self, at: float) -> None:
        """The user's input was complete at `at`: what arrives from now on is the answer."""
        self._begin = at
        self._unbroken = True
        self.first_audio = None
        self._sounds.clear()
        self._heard.clear()
        self._turn_freezes.clear()
        self._video.mark()
        self._audio.mark()
        self._keep_latest_frames()

    def _on_frame(self, frame: Frame) -> None:
        if frame.key and self.first_key_frame is None:
            self.first_key_frame = frame.arrival
            if self.on_first_key_frame is not None:
                self.on_first_key_frame()
        self._frame_count += 1
        freeze = self._freezes.show(frame.playable)
        if freeze is not None and frame.playable >= self._begin:
            self._turn_freezes.append(freeze)
        self._frames.append(frame)
        if self._begin == math.inf and len(self._frames) > 4 * _IDLE_HISTORY:
            self._keep_latest_frames()

    def _keep_latest_frames(self) -> None:
        self._frames.keep_latest(_IDLE_HISTORY)
        oldest = self._frames.oldest()
        if oldest is not None and self._numbers:
            self._numbers = {t: n for t, n in self._numbers.items() if t >= oldest.timestamp}

    # --- what goes out ---------------------------------------------------------------------

    def totals(self) -> SessionMedia:
        """What has arrived since the session began."""
        return SessionMedia(
            video=self._video.totals(),
            audio=self._audio.totals(),
            frames=self._frame_count,
            freezes=self._freezes.count,
            frozen_s=self._freezes.seconds,
            longest_gap_s=self._freezes.longest_gap,
            nacks=None if self._decoding else self.nacks,
            plis=None if self._decoding else self.plis,
            numbered=self._numbered,
        )

    def end_turn(self, told: FirstTimestamps | None = None) -> Speech:
        """Measure the answer as far as it has come, and stop collecting it.

        `told` are the timestamps with which the agent says that picture and sound began.
        """
        latest = max(self._video.last or 0.0, self._audio.last or 0.0)
        answer = Answer(
            frames=self._frames.all(),
            sounds=self._sounds.all(),
            numbers=self._numbers,
            freezes=self._turn_freezes,
            video=self._video.since_mark(),
            audio=self._audio.since_mark(),
            seconds=latest - self._begin,
            unbroken=self._unbroken,
        )
        if told is not None:
            answer = replace(
                answer,
                first_picture=self.pictures.extend_timestamp(told.video),
                first_sound=self._timestamps.locate(told.audio),
            )
        onset = self._onset(answer)
        if onset.basis is not Basis.AGENT:
            answer = replace(answer, first_picture=None, first_sound=None)
        speech = measure(answer, onset)
        self._begin = math.inf
        return speech

    def _onset(self, answer: Answer) -> Onset:
        """The first talking frame by the best knowledge there is."""
        frames = answer.frames
        if answer.first_picture is not None:
            frame = by_timestamp(frames, answer.first_picture)
            if frame is not None:
                return Onset(frame, Basis.AGENT)
        frame = by_number(frames, self._numbers, self._begin)
        if frame is not None:
            return Onset(frame, Basis.DECODED_BARCODE)
        why_not = why_no_number(frames, self._numbers, self._begin, self._decoding)
        numbered = any(
            self._numbers.get(f.timestamp) is not None for f in frames if f.arrival > self._begin
        )
        # Pictures that can be read and did not change leave nothing to guess.
        if self.first_audio is not None and self.last_audio is not None and not numbered:
            sound = (self.first_audio, self.last_audio)
            frame = by_size(frames, self._begin, *sound)
            if frame is not None:
                return Onset(frame, Basis.FRAME_SIZES)
            frame = beside_sound(frames, self._begin, *sound)
            if frame is not None:
                return Onset(frame, Basis.BESIDE_SOUND)
            why_not = f"{why_not}; {why_no_size(frames, self.first_audio)}"
        return Onset(None, Basis.CHANGE_ONLY, why_not)
