"""RTP video packets → pictures that can be shown, with the times of their arrival.

What comes in: the packets of one video source in the order of arrival, with loss, reordering,
duplicates and retransmissions. What goes out: `Frame`s in media order, each once, as soon as it
and every picture before it is complete; and which packets are missing. Pure: no clock, no I/O.
It must not know codecs beyond two flags of a packet, nor feedback, speeches or sessions.

A picture refers to the ones before it, so nothing behind a lost packet can be shown until the
packet comes after all or a key frame makes the past irrelevant, as in a browser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from loadgen.media.packets import Packet, Unwrapper

GIVE_UP_S: Final = 3.0
"""How often it is asked, counted from the last picture, whether to wait any longer for a missing
packet (libwebrtc, `kMaxWaitForFrame`): so long does Chromium freeze behind one that never comes."""
GIVE_UP_KEY_S: Final = 1.0
"""Longest wait for a missing packet of a key frame."""
_SKIP_S: Final = 0.1
"""A later key frame that is complete is gone on with when packets are missing for so long: those
that are only out of order have come by then."""

_MAX_GAP: Final = 1_000
"""Packets missing at once; more is another stream (libwebrtc, `kMaxNackPackets`)."""
_MAX_HELD: Final = 1_024
_NONE: Final[Sequence[Frame]] = ()


class Frame(NamedTuple):
    """One complete picture."""

    timestamp: int
    """RTP timestamp, extended so that it never wraps."""
    arrival: float
    """When its last packet arrived, `time.monotonic()` seconds."""
    playable: float
    """When it and all before it were there: later than `arrival` behind a repaired loss."""
    key: bool
    packets: int
    size: int
    """Payload bytes."""


FRAME_LAYOUT: Final = "=qdd?ll"
"""Of a `Frame`'s fields, in order, for `struct`."""


class _Held(NamedTuple):
    """A packet that waits for an earlier one, or for a key frame."""

    timestamp: int
    marker: bool
    size: int
    arrival: float
    starts: bool
    key: bool


class FrameAssembler:
    """Feed it packets; it tells which pictures they make playable.

    A picture goes from its first packet to its marker. Its first packet is the one whose
    payload says so, else the one that follows a packet of another picture. The first picture
    that is told is a key frame.
    """

    def __init__(self, origin: int = 0) -> None:
        """`origin` is where the extended timestamps of this source begin."""
        self.missing: dict[int, float] = {}
        """Extended sequence number → when the gap was noticed."""
        self.needs_key = True
        """Nothing can be shown before the next key frame."""
        self.given_up = False
        """Something that was lost is waited for no longer: the key frame should be asked for."""
        self._timestamps = Unwrapper(32, origin)
        self._highest = -1
        self._next = -1
        """The extended sequence number that goes on from what was told; -1 before a key frame."""
        self._held: dict[int, _Held] = {}
        self._keys: list[int] = []
        """Held packets that say that their picture is a key frame."""
        self._wire_timestamp = -1
        """Of the picture that is being put together; -1 between pictures."""
        self._arrival = 0.0
        self._key = False
        self._packets = 0
        self._size = 0
        self._shown_at = 0.0

    @property
    def wants_payload(self) -> bool:
        """Whether the flags of the next packet matter; else they may be given as False."""
        return self.needs_key or bool(self.missing)

    @property
    def awaits_key(self) -> bool:
        """No key frame is there nor begun."""
        return self.needs_key and not self._keys

    def extend_timestamp(self, timestamp: int) -> int:
        """Place a 32-bit RTP timestamp of this stream on the extended scale of `Frame`."""
        return self._timestamps.locate(timestamp)

    def extend_sequence(self, sequence: int) -> int:
        """Place a 16-bit sequence number of this stream on the scale of `missing`."""
        if self._highest < 0:
            return sequence + 0x10000
        return self._highest + ((sequence - self._highest + 0x8000) & 0xFFFF) - 0x8000

    def add(self, packet: Packet) -> Sequence[Frame]:
        """Take one packet; return the pictures it made playable, in media order."""
        return self.take(
            packet.sequence,
            packet.timestamp,
            packet.marker,
            packet.size,
            packet.arrival,
            packet.starts_frame,
            packet.key,
        )

    def take(
        self,
        sequence: int,
        timestamp: int,
        marker: bool,
        size: int,
        arrival: float,
        starts: bool = False,
        key: bool = False,
    ) -> Sequence[Frame]:
        """The same as `add` for a packet's fields, as the busy receive path has them."""
        if not self.missing and not self.needs_key and sequence == self._next & 0xFFFF:
            self._highest = self._next
            self._next += 1
            frame = self._append(timestamp, marker, size, arrival, key, arrival)
            return _NONE if frame is None else (frame,)
        return self._reorder(
            self.extend_sequence(sequence),
            _Held(timestamp, marker, size, arrival, starts, key),
        )

    def give_up(self) -> None:
        """Wait no longer for what is missing: only a key frame can go on from here."""
        self.needs_key = True
        self.given_up = True
        self._next = -1
        self._wire_timestamp = -1
        if not self._keys:
            self._held.clear()
            self.missing.clear()

    def expire(self, now: float) -> Sequence[Frame]:
        """Give up if something has been missing for too long; a key frame may be there already."""
        if not self.missing:
            return _NONE
        noticed = next(iter(self.missing.values()))
        if self.needs_key:
            if now - noticed <= GIVE_UP_KEY_S:
                return _NONE
            # Of a key frame that cannot be completed, too.
            self._keys.clear()
        else:
            if now - noticed > _SKIP_S and (frames := self._from_key_frame(now)):
                return frames
            # A picture may have been repaired since, while another gap is still open.
            periods = max(0, math.floor((noticed - self._shown_at) / GIVE_UP_S)) + 1
            if now <= self._shown_at + periods * GIVE_UP_S:
                return _NONE
        self.give_up()
        return self._from_key_frame(now)

    def _append(
        self,
        timestamp: int,
        marker: bool,
        size: int,
        arrival: float,
        key: bool,
        now: float,
    ) -> Frame | None:
        """Take the next packet in media order; return the picture it ends."""
        if timestamp != self._wire_timestamp:
            self._wire_timestamp = timestamp
            self._arrival = arrival
            self._key = key
            self._packets = 1
            self._size = size
        else:
            self._packets += 1
            self._size += size
            self._key = self._key or key
            if arrival > self._arrival:
                self._arrival = arrival
        if not marker:
            return None
        self._wire_timestamp = -1
        self._shown_at = max(now, self._arrival)
        return Frame(
            timestamp=self._timestamps.extend(timestamp),
            arrival=self._arrival,
            playable=self._shown_at,
            key=self._key,
            packets=self._packets,
            size=self._size,
        )

    def _reorder(self, sequence: int, packet: _Held) -> Sequence[Frame]:
        if sequence < self._next or sequence in self._held:
            return _NONE
        if sequence > self._highest:
            if self._highest >= 0 and sequence - self._highest > _MAX_GAP:
                self._keys.clear()
                self.give_up()
            elif self._highest >= 0:
                for number in range(self._highest + 1, sequence):
                    self.missing[number] = packet.arrival
            self._highest = sequence
        else:
            self.missing.pop(sequence, None)
        self._held[sequence] = packet
        if packet.key:
            self._keys.append(sequence)
        now = packet.arrival
        frames = self._from_key_frame(now) if self.needs_key else self._in_order(now)
        return frames or self.expire(now)

    def _in_order(self, now: float) -> list[Frame]:
        """Take what lies in order from `_next` on."""
        frames = []
        while (packet := self._held.pop(self._next, None)) is not None:
            self._next += 1
            if packet.key:
                self._keys = [number for number in self._keys if number >= self._next]
            frame = self._append(
                packet.timestamp, packet.marker, packet.size, packet.arrival, packet.key, now
            )
            if frame is not None:
                frames.append(frame)
        return frames

    def _from_key_frame(self, now: float) -> list[Frame]:
        """Go on from a complete key frame, if one is there."""
        for number in self._keys:
            start = self._beginning(number)
            if start is None or not self._is_complete(start):
                continue
            self.needs_key = self.given_up = False
            self._next = start
            self._held = {n: p for n, p in self._held.items() if n >= start}
            self._keys = [n for n in self._keys if n >= start]
            self.missing = {n: at for n, at in self.missing.items() if n > start}
            return self._in_order(now)
        if len(self._held) > _MAX_HELD:
            oldest = self._highest - _MAX_HELD // 2
            self._held = {n: p for n, p in self._held.items() if n >= oldest}
            self._keys = [n for n in self._keys if n >= oldest]
            self.missing = {n: at for n, at in self.missing.items() if n >= oldest}
        return []

    def _beginning(self, number: int) -> int | None:
        """The first packet of the picture that a held packet belongs to, if it is there."""
        timestamp = self._held[number].timestamp
        while True:
            packet = self._held[number]
            if packet.starts:
                return number
            before = self._held.get(number - 1)
            if before is None:
                return None
            if before.timestamp != timestamp:
                return number
            number -= 1

    def _is_complete(self, start: int) -> bool:
        timestamp = self._held[start].timestamp
        number = start
        while (packet := self._held.get(number)) is not None and packet.timestamp == timestamp:
            if packet.marker:
                return True
            number += 1
        return False
