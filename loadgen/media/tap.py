"""Sees the packets that an aiortc connection gets, or takes them away from it.

What comes in: a receiver, or the transceivers of a connection. What goes out: `Packet`s to a
callback, or datagrams to a `DirectReceiver`. This is the one module that touches private names
of aiortc, aioice and asyncio (`PRIVATE_NAMES` and the receiver's packet handler), so it states
which aiortc it is tested with and refuses others. It must not know what packets are measured
for.

`ReceiverTap` sits on one receiver instance, not on the class, and hands every packet on
unchanged: jitter buffer, decoding and RTCP feedback stay aiortc's own.

`TransportTap` leaves ICE and DTLS to aiortc and takes over behind them. RTP and RTCP that
aiortc reads itself (before the sockets are ours, from a TURN relay, on platforms without the
kernel's receive times) come through its transport's handlers; the rest through the poller.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import pylibsrtp
from aiortc import (
    RTCDtlsTransport,
    RTCPeerConnection,
    RTCRtpParameters,
    RTCRtpReceiver,
    RTCRtpTransceiver,
)
from aiortc.codecs import is_rtx
from aiortc.rtp import RtpPacket

from loadgen.media import datagrams
from loadgen.media.meter import MediaMeter
from loadgen.media.packets import (
    NO_PICTURE,
    Kind,
    Packet,
    PictureFlags,
    h264_flags,
    vp8_flags,
)
from loadgen.media.receiver import Codec, CryptoError, DirectReceiver, Medium

TESTED_AIORTC: Final = ("1.14", "1.15", "1.16")

PRIVATE_NAMES: Final = {
    RTCRtpReceiver: (
        CODECS := "_RTCRtpReceiver__codecs",
        TIMESTAMP_MAPPER := "_RTCRtpReceiver__timestamp_mapper",
        ESTIMATOR := "_RTCRtpReceiver__remote_bitrate_estimator",
    ),
    RTCDtlsTransport: ("_handle_rtp_data", "_handle_rtcp_data", "_rx_srtp", "_tx_srtp"),
}
"""Private attributes by the class whose instances must have them. Further ones: `_ssrc` of a
sender, `_connection` of an ICE transport with `_nominated` and `_protocols` (aioice), and
`_remove_reader` of an event loop."""

_HANDLER: Final = "_handle_rtp_packet"
_SEND_TIME_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
_PICTURE_FLAGS: Final[dict[str, Callable[[bytes], PictureFlags]]] = {
    "video/vp8": vp8_flags,
    "video/h264": h264_flags,
}


class UnsupportedAiortcError(RuntimeError):
    """The installed aiortc is not one that the tap is tested with."""


@lru_cache
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


class TransportTap:
    """Receives a connection's media in place of its receivers, without decoding it.

    Create it when the transceivers exist and before the local description is set. `on_fault`
    gets whatever fails in here: raised into aiortc or asyncio, it would be lost.
    """

    def __init__(
        self,
        transceivers: Sequence[RTCRtpTransceiver],
        meter: MediaMeter,
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._meter = meter
        self._on_fault = on_fault
        self._taken: dict[RTCDtlsTransport, _TakenTransport] = {}
        for transceiver in transceivers:
            # Its own `receive` would start a decoder thread and RTCP of its own.
            receiver: Any = transceiver.receiver
            receiver.receive = self._receive(transceiver)
            # A thousand objects that nobody uses, for the garbage collector to walk.
            setattr(receiver, ESTIMATOR, None)

    @property
    def rejected(self) -> int:
        """Packets that could not be authenticated: forged, damaged or repeated."""
        return sum(taken.direct.rejected for taken in self._taken.values())

    def close(self) -> None:
        """Let go of the sockets; the connection may be closed then."""
        for taken in self._taken.values():
            taken.close()

    def dismantle(self, connection: RTCPeerConnection) -> None:
        """Break the reference cycles of a connection that was up and is closed.

        Else it is left to the garbage collector, whose looks stall all other sessions.
        """
        parts: list[object] = [connection]
        for transceiver in connection.getTransceivers():
            receiver, sender = transceiver.receiver, transceiver.sender
            parts += [transceiver, receiver, sender, receiver.transport]
        for taken in self._taken.values():
            parts += [taken.ice, taken]
        self._taken.clear()
        for part in {id(part): part for part in parts}.values():
            vars(part).clear()

    def _receive(
        self, transceiver: RTCRtpTransceiver
    ) -> Callable[[RTCRtpParameters], Awaitable[None]]:
        async def receive(parameters: RTCRtpParameters) -> None:
            # DTLS is up, and nothing has been awaited since: what aiortc has not read yet
            # cannot go past us.
            try:
                transport = transceiver.receiver.transport
                taken = self._taken.get(transport)
                if taken is None:
                    taken = _TakenTransport(transport, self._meter, self._on_fault)
                    self._taken[transport] = taken
                taken.direct.negotiated(_medium(transceiver, parameters))
            except Exception as error:
                self._on_fault(error)

        return receive


class _TakenTransport:
    """One DTLS transport whose RTP and RTCP go to a `DirectReceiver`, which it encrypts for."""

    def __init__(
        self,
        transport: RTCDtlsTransport,
        meter: MediaMeter,
        on_fault: Callable[[Exception], None],
    ) -> None:
        self.direct = DirectReceiver(meter, self)
        self.on_fault = on_fault
        taken: Any = transport
        self._transport = taken
        self.ice = taken.transport._connection
        taken._handle_rtp_data = self._on_read_rtp
        taken._handle_rtcp_data = self._on_read_rtcp
        self._loop: Any = asyncio.get_running_loop()
        self._timer = self._loop.call_at(self._next_report(), self._report)
        self._readers: list[_SocketReader] = []
        if datagrams.is_supported():
            self._take_sockets()

    def close(self) -> None:
        self._timer.cancel()
        for reader in self._readers:
            datagrams.poller().remove(reader)

    def open_rtp(self, packet: bytes) -> bytes:
        try:
            return bytes(self._transport._rx_srtp.unprotect(packet))
        except (pylibsrtp.Error, ValueError) as error:
            raise CryptoError from error

    def open_rtcp(self, packet: bytes) -> bytes:
        try:
            return bytes(self._transport._rx_srtp.unprotect_rtcp(packet))
        except (pylibsrtp.Error, ValueError) as error:
            raise CryptoError from error

    def send_rtcp(self, packet: bytes) -> None:
        pair = self.ice._nominated.get(1)
        if pair is None:
            return
        data = self._transport._tx_srtp.protect_rtcp(packet)
        pair.protocol.transport.sendto(data, pair.remote_addr)

    def _take_sockets(self) -> None:
        for protocol in self.ice._protocols:
            sock = protocol.transport.get_extra_info("socket")
            if sock is None:
                continue
            self._loop._remove_reader(sock.fileno())
            reader = _SocketReader(self, protocol)
            self._readers.append(reader)
            datagrams.poller().add(sock, reader)

    async def _on_read_rtp(self, data: bytes, arrival_time_ms: int) -> None:
        now = time.monotonic()
        self._guarded(lambda: self.direct.on_plain(data, now))
        if not self._readers:
            self._guarded(lambda: self.direct.on_pass(now))

    async def _on_read_rtcp(self, data: bytes) -> None:
        self._guarded(lambda: self.direct.on_rtcp(data, time.monotonic()))

    def _next_report(self) -> float:
        """When to send the next receiver report: in 0.5 to 1.5 s (RFC 3550, section 6.2)."""
        return datagrams.next_look(self._loop.time() + 0.5 + random.random())

    def _report(self) -> None:
        self._timer = self._loop.call_at(self._next_report(), self._report)
        self._guarded(lambda: self.direct.report(time.monotonic()))

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            self.on_fault(error)


class _SocketReader:
    """What the poller reads from one socket: media to the receiver, the rest back to aioice."""

    def __init__(self, taken: _TakenTransport, protocol: asyncio.DatagramProtocol) -> None:
        self.on_media = taken.direct.on_media
        self.on_pass = taken.direct.on_pass
        self.on_fault = taken.on_fault
        self.on_other = protocol.datagram_received


def _medium(transceiver: RTCRtpTransceiver, parameters: RTCRtpParameters) -> Medium:
    sender: Any = transceiver.sender
    extensions = {e.uri: e.id for e in parameters.headerExtensions}
    codecs: dict[int, Codec] = {}
    for codec in parameters.codecs:
        apt = codec.parameters.get("apt") if is_rtx(codec) else None
        flags_of = _PICTURE_FLAGS.get(codec.mimeType.lower())
        repairs = int(apt) if apt is not None else None
        unreadable = transceiver.kind == "video" and flags_of is None and repairs is None
        if unreadable or codec.payloadType is None:
            continue
        codecs[codec.payloadType] = Codec(codec.clockRate, flags_of, repairs)
    return Medium(
        kind=Kind(transceiver.kind),
        codecs=codecs,
        own_ssrc=sender._ssrc,
        send_time_extension=extensions.get(_SEND_TIME_URI),
    )
