"""One received RTP packet as the meter sees it, and what its payload says of the picture in it.

What comes in: RTP header fields and payload bytes. What goes out: `Packet`, and counters that
do not wrap. It must not know who received the packet, nor what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

VIDEO_CLOCK_HZ: Final = 90_000
"""RTP clock of VP8 (RFC 7741) and H.264 (RFC 6184)."""
AUDIO_CLOCK_HZ: Final = 48_000
"""RTP clock of Opus (RFC 7587), whatever the audio's own sample rate."""


class Kind(StrEnum):
    """Medium of a track."""

    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet (RFC 3550, section 5.1)."""

    kind: Kind
    arrival: float
    """`time.monotonic()` seconds."""
    timestamp: int
    """RTP timestamp as sent, 32 bits, in the medium's clock."""
    sequence: int
    """RTP sequence number as sent, 16 bits; for a retransmission (RFC 4588) the original one."""
    marker: bool
    """Video: last packet of a picture."""
    size: int
    """Payload bytes."""
    starts_frame: bool = False
    """The payload itself says that a picture begins here. False also means "it does not say"."""
    key: bool = False
    """The payload says that its picture is a key frame."""
    repair: bool = False
    """A retransmission (RFC 4588)."""


class PictureFlags(NamedTuple):
    """What a payload says of its picture; see the same fields of `Packet`."""

    starts_frame: bool
    key: bool


NO_PICTURE: Final = PictureFlags(False, False)
"""The payload says nothing, or nobody looked at it."""


def vp8_flags(payload: bytes) -> PictureFlags:
    """Read a VP8 payload's descriptor (RFC 7741, sections 4.2 and 4.3)."""
    if not payload:
        return NO_PICTURE
    first = payload[0]
    # S set and partition index 0: the first packet of a picture; only it carries the P bit.
    if not first & 0x10 or first & 0x07:
        return NO_PICTURE
    at = 1
    if first & 0x80:
        if len(payload) <= at:
            return NO_PICTURE
        extension = payload[at]
        at += 1
        if extension & 0x80:
            at += 2 if payload[at : at + 1] >= b"\x80" else 1
        at += bool(extension & 0x40)
        at += bool(extension & 0x30)
    if len(payload) <= at:
        return NO_PICTURE
    return PictureFlags(True, not payload[at] & 0x01)


_H264_SLICE, _H264_IDR, _H264_SPS, _H264_DELIMITER = 1, 5, 7, 9
_H264_STAP_A, _H264_FU_A = 24, 28


def h264_flags(payload: bytes) -> PictureFlags:
    """Read an H.264 payload's NAL unit headers (RFC 6184, sections 5.4 to 5.8).

    A key frame begins with its parameter sets, so an IDR slice alone is no beginning: without
    the sets that were sent before it, it could not be decoded.
    """
    if not payload:
        return NO_PICTURE
    kind = payload[0] & 0x1F
    if kind == _H264_STAP_A:
        kinds, first_slice = _aggregated(payload)
    elif kind == _H264_FU_A:
        if len(payload) < 2 or not payload[1] & 0x80:
            return NO_PICTURE
        kinds, first_slice = {payload[1] & 0x1F}, payload[2:3] >= b"\x80"
    else:
        kinds, first_slice = {kind}, payload[1:2] >= b"\x80"
    key = bool(kinds & {_H264_IDR, _H264_SPS})
    # first_mb_in_slice is Exp-Golomb coded: zero is the single bit 1 (H.264, section 9.1).
    begins = bool(kinds & {_H264_SPS, _H264_DELIMITER}) or (_H264_SLICE in kinds and first_slice)
    return PictureFlags(begins, key)


def _aggregated(payload: bytes) -> tuple[set[int], bool]:
    kinds: set[int] = set()
    first_slice = False
    at = 1
    while at + 3 <= len(payload):
        size = int.from_bytes(payload[at : at + 2], "big")
        kind = payload[at + 2] & 0x1F
        if kind == _H264_SLICE and _H264_SLICE not in kinds:
            first_slice = payload[at + 3 : at + 4] >= b"\x80"
        kinds.add(kind)
        at += 2 + size
    return kinds, first_slice


class Unwrapper:
    """Extends a counter that wraps at 2**bits, as RFC 3550 does in its appendix A.1.

    Each value is taken to lie within half the range of the highest one seen. `origin`, a multiple
    of 2**bits, is added to all: a scale that begins where another ended.
    """

    def __init__(self, bits: int, origin: int = 0) -> None:
        self._modulus = 1 << bits
        self._origin = origin
        self._highest: int | None = None

    def extend(self, value: int) -> int:
        """Return the extended value and remember it if it is the highest."""
        extended = self.locate(value)
        if self._highest is None or extended > self._highest:
            self._highest = extended
        return extended

    def locate(self, value: int) -> int:
        """Return the extended value without remembering it."""
        if self._highest is None:
            return self._origin + value
        half = self._modulus // 2
        return self._highest + (value - self._highest + half) % self._modulus - half
