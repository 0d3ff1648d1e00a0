"""Sees the RTP packets that an aiortc receiver gets: a receiver in, `Packet`s out.

This is the one module that touches aiortc's private names (`PRIVATE_NAMES` below and the
receiver's packet handler), so it states which aiortc it is tested with and refuses others. It
must not know what packets are measured for.

The tap sits on one receiver instance, not on the class, and hands every packet on unchanged:
jitter buffer, decoding and RTCP feedback stay aiortc's own.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from typing import Any, Final

from aiortc import RTCRtpReceiver
from aiortc.codecs import is_rtx
from aiortc.rtp import RtpPacket

from loadgen.media.packets import NO_PICTURE, Kind, Packet, PictureFlags, h264_flags, vp8_flags

TESTED_AIORTC: Final = ("1.14", "1.15", "1.16")

PRIVATE_NAMES: Final = (
    CODECS := "_RTCRtpReceiver__codecs",
    TIMESTAMP_MAPPER := "_RTCRtpReceiver__timestamp_mapper",
)

_HANDLER: Final = "_handle_rtp_packet"
_PICTURE_FLAGS: Final[dict[str, Callable[[bytes], PictureFlags]]] = {
    "video/vp8": vp8_flags,
    "video/h264": h264_flags,
}


class UnsupportedAiortcError(RuntimeError):
    """The installed aiortc is not one that the tap is tested with."""


def check_aiortc() -> str:
    """Return the installed aiortc's version; raise UnsupportedAiortcError if it is untested."""
    version = importlib.metadata.version("aiortc")
    if ".".join(version.split(".")[:2]) not in TESTED_AIORTC:
        raise UnsupportedAiortcError(
            f"aiortc {version} is installed, but packets are read through its receiver's "
            f"internals, which are tested with {', '.join(TESTED_AIORTC)} only: "
            f"pip install 'aiortc=={TESTED_AIORTC[-1]}.*'"
        )
    return version


class ReceiverTap:
    """Calls `on_packet` for each RTP packet of a receiver, retransmissions unwrapped (RFC 4588).

    `on_fault` gets an exception of the tap or of `on_packet`: raised into aiortc, it would end
    the DTLS transport without a word.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        kind: Kind,
        on_packet: Callable[[Packet], None],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._receiver = receiver
        self._kind = kind
        self._on_packet = on_packet
        self._on_fault = on_fault
        self._hand_on = getattr(receiver, _HANDLER)
        setattr(receiver, _HANDLER, self._handle)

    def rtp_timestamp(self, pts: int) -> int:
        """Return the 32-bit RTP timestamp of a decoded frame.

        aiortc counts a frame's `pts` from the first frame it assembled, not from zero.
        """
        origin: int = getattr(self._receiver, TIMESTAMP_MAPPER)._origin or 0
        return (pts + origin) & 0xFFFFFFFF

    async def _handle(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        arrival = time.monotonic()
        try:
            self._see(packet, arrival)
        except Exception as error:
            self._on_fault(error)
        await self._hand_on(packet, arrival_time_ms=arrival_time_ms)

    def _see(self, packet: RtpPacket, arrival: float) -> None:
        codecs: dict[int, Any] = getattr(self._receiver, CODECS)
        codec = codecs.get(packet.payload_type)
        if codec is None:
            return
        sequence, payload = packet.sequence_number, packet.payload
        repair = is_rtx(codec)
        if repair:
            sequence, payload = int.from_bytes(payload[:2], "big"), payload[2:]
            codec = codecs.get(codec.parameters.get("apt"))
        flags_of = _PICTURE_FLAGS.get(codec.mimeType.lower()) if codec is not None else None
        flags = flags_of(payload) if flags_of is not None else NO_PICTURE
        self._on_packet(
            Packet(
                kind=self._kind,
                arrival=arrival,
                timestamp=packet.timestamp,
                sequence=sequence,
                marker=bool(packet.marker),
                size=len(payload),
                starts_frame=flags.starts_frame,
                key=flags.key,
                repair=repair,
            )
        )
