"""The receiving end of RTP without a decoder: datagrams in, packets to the meter, feedback out.

What comes in: a connection's RTP and RTCP, encrypted, and what was negotiated for them. What
goes out: packets to a `MediaMeter`, and RTCP as a browser sends it: receiver reports, NACK with
retries, PLI, REMB. It must not know sockets, aiortc's peer connection, sessions or turns.

Only the RTP header is read of most packets, which is sent in the clear. A payload is decrypted,
and with that the packet authenticated, where it is needed: while a key frame is waited for,
while a packet is missing, of every retransmission (RFC 4588), and of one packet in 64 as a
sample. The sample also keeps the decryption's count of sequence-number cycles (RFC 3711,
section 3.3.1) in step. Other packets are not authenticated: who can send to the socket could
add to what is counted, though not be taken for a picture or a sound.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    clamp_packets_lost,
    pack_remb_fci,
)

from loadgen.media.bitrate import BandwidthEstimator
from loadgen.media.meter import MediaMeter
from loadgen.media.packets import Kind, PictureFlags
from loadgen.media.recovery import KeyFrameSchedule, NackSchedule
from loadgen.media.statistics import SourceStatistics

_HEADER: Final = struct.Struct("!BBHII")
_FIRST_RTCP, _LAST_RTCP = 192, 223
"""Second bytes that mean RTCP where it shares a port with RTP (RFC 5761, section 4)."""
_SAMPLED: Final = 63
"""Sequence numbers whose low bits are zero under this mask are authenticated."""
_LONGEST_TAG: Final = 16


class Crypto(Protocol):
    """SRTP of one connection (RFC 3711). Methods raise `CryptoError`."""

    def open_rtp(self, packet: bytes) -> bytes:
        """Authenticate and decrypt an RTP packet."""

    def open_rtcp(self, packet: bytes) -> bytes:
        """Authenticate and decrypt an RTCP packet."""

    def send_rtcp(self, packet: bytes) -> None:
        """Encrypt and send an RTCP packet, if the connection is there."""


class CryptoError(Exception):
    """A packet is forged, damaged, repeated or too old."""


@dataclass(frozen=True, slots=True)
class Codec:
    """What a payload type of one medium means."""

    clock_hz: int
    flags_of: Callable[[bytes], PictureFlags] | None
    """What a payload says of its picture; None for sound."""
    repairs: int | None = None
    """The payload type whose packets this one retransmits; None where it is no retransmission."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What was negotiated for one media section."""

    kind: Kind
    codecs: Mapping[int, Codec]
    """By payload type."""
    own_ssrc: int
    """That our RTCP speaks as."""
    send_time_extension: int | None
    """Identifier of the header extension abs-send-time, which REMB is computed from."""


@dataclass(slots=True)
class _Source:
    """One RTP source (SSRC) and what it sends."""

    ssrc: int
    payload_type: int
    medium: Medium
    codec: Codec
    statistics: SourceStatistics
    overhead: int = _LONGEST_TAG
    """Bytes of a packet beside its fixed header and its payload, as last seen."""
    estimated_bytes: int = 0
    """Of its bytes, those that the bitrate estimator knows."""
    sender_report: tuple[int, float] = (0, 0.0)
    """Middle of the NTP time of its last sender report, and that report's arrival."""

    def block(self, now: float) -> RtcpReceiverInfo:
        """Its block of a receiver report."""
        middle, arrival = self.sender_report
        delay = round((now - arrival) * 0x10000) if middle else 0
        return RtcpReceiverInfo(
            ssrc=self.ssrc,
            fraction_lost=self.statistics.fraction_lost(),
            packets_lost=clamp_packets_lost(self.statistics.lost),
            highest_sequence=self.statistics.highest & 0xFFFFFFFF,
            jitter=self.statistics.jitter_units,
            lsr=middle,
            dlsr=min(max(delay, 0), 0xFFFFFFFF),
        )


class DirectReceiver:
    """Receives the audio and video of one connection.

    The caller hands in datagrams in the order of arrival, calls `on_pass` when all that had
    arrived was handed in, and `report` about once a second.
    """

    def __init__(self, meter: MediaMeter, crypto: Crypto) -> None:
        self.rejected = 0
        """Packets that could not be authenticated: forged, damaged or repeated."""
        self._meter = meter
        self._crypto = crypto
        self._media: list[Medium] = []
        self._sources: dict[int, _Source] = {}
        self._current: dict[Kind, _Source] = {}
        self._nacks = NackSchedule()
        self._key_frames = KeyFrameSchedule()
        self._estimator = BandwidthEstimator()

    def negotiated(self, medium: Medium) -> None:
        """Packets of this medium may come from now on."""
        self._media.append(medium)

    # --- what comes in ---------------------------------------------------------------------

    def on_media(self, buffer: bytearray, at: int, length: int, arrival: float) -> None:
        """Take an encrypted RTP or RTCP packet, `buffer[at : at + length]`."""
        if length < _HEADER.size:
            return
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(buffer, at)
        if _FIRST_RTCP <= second <= _LAST_RTCP:
            try:
                plain = self._crypto.open_rtcp(bytes(buffer[at : at + length]))
            except CryptoError:
                self.rejected += 1
            else:
                self.on_rtcp(plain, arrival)
            return
        source = self._sources.get(ssrc)
        if (
            source is None
            or source.codec.repairs is not None
            or not sequence & _SAMPLED
            or (source.codec.flags_of is not None and self._meter.pictures.wants_payload)
        ):
            try:
                plain = self._crypto.open_rtp(bytes(buffer[at : at + length]))
            except CryptoError:
                self.rejected += 1
            else:
                self.on_plain(plain, arrival, encrypted=length)
        elif second & 0x7F == source.payload_type:
            source.statistics.add(sequence, timestamp, length, arrival)
            if source.codec.flags_of is None:
                self._meter.on_audio(sequence, timestamp, arrival)
                return
            size = length - _HEADER.size - source.overhead
            marker = second > 127
            self._meter.on_video(sequence, timestamp, marker, size, arrival)
            if marker and first & 0x10:
                self._estimate(source, buffer, at, arrival)

    def on_plain(self, packet: bytes, arrival: float, encrypted: int = 0) -> None:
        """Take an RTP packet that is authenticated and decrypted already.

        `encrypted` is its length as received, if it is known.
        """
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(packet)
        source = self._sources.get(ssrc) or self._new_source(ssrc, second & 0x7F)
        if source is None or second & 0x7F != source.payload_type:
            return
        length = encrypted or len(packet)
        payload = packet[_payload_at(packet) :]
        marker = second > 127
        source.overhead = length - _HEADER.size - len(payload)
        source.statistics.add(sequence, timestamp, length, arrival)
        if source.codec.repairs is not None:
            self._on_repair(source, timestamp, marker, payload, arrival)
        elif source.codec.flags_of is None:
            self._meter.on_audio(sequence, timestamp, arrival)
        else:
            flags = source.codec.flags_of(payload)
            self._meter.on_video(sequence, timestamp, marker, len(payload), arrival, flags)
            if marker and first & 0x10:
                self._estimate(source, packet, 0, arrival)

    def on_rtcp(self, packet: bytes, arrival: float) -> None:
        """Take a compound RTCP packet that is authenticated and decrypted already."""
        try:
            parts = RtcpPacket.parse(packet)
        except ValueError:
            self.rejected += 1
            return
        for part in parts:
            if isinstance(part, RtcpSrPacket):
                self.on_sender_report(part.ssrc, part.sender_info.ntp_timestamp, arrival)

    def on_sender_report(self, ssrc: int, ntp: int, arrival: float) -> None:
        """A source told its NTP time (64 bits, RFC 3550, section 6.4.1)."""
        source = self._sources.get(ssrc)
        if source is not None:
            source.sender_report = ((ntp >> 16) & 0xFFFFFFFF, arrival)

    # --- feedback --------------------------------------------------------------------------

    def on_pass(self, now: float) -> bool:
        """Ask for what is missing; returns whether a packet is."""
        video = self._current.get(Kind.VIDEO)
        pictures = self._meter.pictures
        if video is None or not pictures.wants_payload:
            return False
        self._meter.expire(now)
        due = self._nacks.due(pictures.missing, now)
        own = video.medium.own_ssrc
        if due:
            lost = [number & 0xFFFF for number in due]
            self._send(RtcpRtpfbPacket(RTCP_RTPFB_NACK, own, video.ssrc, lost=lost))
            self._meter.nacks += 1
        if self._key_frames.due(pictures.awaits_key, now, at_once=pictures.given_up):
            self._send(RtcpPsfbPacket(RTCP_PSFB_PLI, own, video.ssrc))
            self._meter.plis += 1
        return bool(pictures.missing)

    def report(self, now: float) -> None:
        """Send receiver reports (RFC 3550, section 6.4.2)."""
        for medium in self._media:
            blocks = [s.block(now) for s in self._sources.values() if s.medium is medium]
            if blocks:
                self._send(RtcpRrPacket(ssrc=medium.own_ssrc, reports=blocks))

    def _estimate(
        self, source: _Source, buffer: bytes | bytearray, at: int, arrival: float
    ) -> None:
        """A picture is complete: tell the sender what bandwidth there is, if it is time to.

        Senders adapt to it: without REMB aiortc stays at its default bitrate.
        """
        send_time = _send_time(buffer, at, source.medium.send_time_extension)
        if send_time is None:
            return
        size = source.statistics.bytes - source.estimated_bytes
        source.estimated_bytes = source.statistics.bytes
        estimate = self._estimator.add(send_time, arrival, size)
        if estimate is not None:
            fci = pack_remb_fci(estimate, [source.ssrc])
            self._send(RtcpPsfbPacket(RTCP_PSFB_APP, source.medium.own_ssrc, 0, fci))

    def _send(self, packet: RtcpPsfbPacket | RtcpRrPacket | RtcpRtpfbPacket) -> None:
        self._crypto.send_rtcp(bytes(packet))

    # --- sources ---------------------------------------------------------------------------

    def _new_source(self, ssrc: int, payload_type: int) -> _Source | None:
        """An authenticated packet came from a source that was not known."""
        found = [(m, m.codecs[payload_type]) for m in self._media if payload_type in m.codecs]
        if len(found) != 1:
            return None
        medium, codec = found[0]
        source = _Source(ssrc, payload_type, medium, codec, SourceStatistics(codec.clock_hz))
        if codec.repairs is None:
            previous = self._current.get(medium.kind)
            if previous is not None:
                del self._sources[previous.ssrc]
            self._meter.on_source(medium.kind, source.statistics)
            self._current[medium.kind] = source
        self._sources[ssrc] = source
        return source

    def _on_repair(
        self, source: _Source, timestamp: int, marker: bool, payload: bytes, arrival: float
    ) -> None:
        """Take a retransmission: the original sequence number, then the original payload."""
        video = self._current.get(Kind.VIDEO)
        if (
            video is None
            or video.codec.flags_of is None
            or source.codec.repairs != video.payload_type
            or len(payload) < 2
        ):
            return
        sequence = int.from_bytes(payload[:2], "big")
        flags = video.codec.flags_of(payload[2:])
        self._nacks.repaired(self._meter.pictures.extend_sequence(sequence), arrival)
        self._meter.on_video(sequence, timestamp, marker, len(payload) - 2, arrival, flags)


def _payload_at(packet: bytes) -> int:
    """Where the payload begins (RFC 3550, section 5.1)."""
    at = _HEADER.size + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        at += 4 + 4 * int.from_bytes(packet[at + 2 : at + 4], "big")
    return at


def _send_time(buffer: bytes | bytearray, at: int, identifier: int | None) -> int | None:
    """abs-send-time of the packet that begins at `at`: 24 bits, 18 of them fractions of a second.

    It is looked for among one-byte header extensions (RFC 8285, section 4.2).
    """
    at += _HEADER.size + 4 * (buffer[at] & 0x0F)
    if buffer[at] != 0xBE or buffer[at + 1] != 0xDE:
        return None
    end = at + 4 + 4 * (buffer[at + 2] << 8 | buffer[at + 3])
    at += 4
    while at < end:
        head = buffer[at]
        if head >> 4 == identifier and head & 0x0F == 2:
            return buffer[at + 1] << 16 | buffer[at + 2] << 8 | buffer[at + 3]
        at += (head & 0x0F) + 2 if head else 1
    return None
