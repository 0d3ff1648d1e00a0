"""A synthetic sender of WebRTC media whose timing, loss and drift are known exactly.

ICE, DTLS and SRTP are aiortc's; RTP is packetised beforehand and sent by one scheduler for all
sessions, so that a core can feed hundreds of them. It answers NACK with retransmissions
(RFC 4588) and PLI with a key frame. In a test it runs in the test's own process; as a process
of its own it listens for offers:

    python -m tests.loadgen.sender MEDIA_FILE [WIDTH HEIGHT SECONDS]

prints its URL, answers `POST /offer` ({"sdp", "type", "options": {...}}) and `GET /stats`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import itertools
import json
import pickle
import random
import resource
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.codecs.vpx import Vp8Encoder, VpxPayloadDescriptor
from aiortc.rtp import (
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    HeaderExtensions,
    HeaderExtensionsMap,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)

from loadgen.media import ice

FPS = 25
AUDIO_PACKET_S = 0.02
SLICE_S = 0.001
"""Longest time at a stretch for which media are sent; an offer is answered in between."""
HISTORY = 128
"""Packets kept for retransmission, as aiortc does."""
NTP_EPOCH = 2_208_988_800


@dataclass(frozen=True)
class Media:
    """Payloads to send over and over: pictures as lists of packets, and sounds."""

    pictures: list[list[bytes]]
    """The first is a key frame, and no other."""
    sounds: list[bytes]


def small_media(frame_packets: int = 3, size: int = 300, codec: str = "VP8") -> Media:
    """Payloads that look right to whoever does not decode them."""
    body = bytes(size)
    if codec == "H264":
        # STAP-A of parameter sets, then an IDR slice in fragments (FU-A); slices in one or more.
        sets = b"\x18" + b"\x00\x02\x67\x42" + b"\x00\x02\x68\xce"
        key = [sets, b"\x7c\x85\x88" + body, b"\x7c\x05" + body, b"\x7c\x45" + body]
        delta = [b"\x5c\x81\x9a" + body, *[b"\x5c\x01" + body] * (frame_packets - 1)]
        return Media([key] + [delta] * 24, [bytes(80)])
    key = [b"\x10\x00" + body, *[b"\x00\x01" + body] * 4]
    delta = [b"\x10\x01" + body, *[b"\x00\x01" + body] * (frame_packets - 1)]
    return Media([key] + [delta] * 24, [bytes(80)])


def encoded_media(file: Path, width: int = 540, height: int = 900, seconds: int = 10) -> Media:
    """Ten seconds of a moving picture at some 1 Mbit/s, VP8, and Opus; made once, kept in `file`.

    The last picture refers to the first as any: whoever decodes the repetition sees garbage for
    a while, which costs as much as any picture.
    """
    if file.exists():
        return pickle.loads(file.read_bytes())
    from tests.loadgen import encoding

    frames, sounds = encoding.encode(width, height, FPS, seconds)
    packetise = getattr(Vp8Encoder, "_packetize")  # noqa: B009 - private, and this is a test
    media = Media([[_anonymous(p) for p in packetise(frame, 1)] for frame in frames], sounds)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(media))
    return media


def _anonymous(payload: bytes) -> bytes:
    """The payload without its picture ID, which would jump back with each repetition."""
    descriptor, body = VpxPayloadDescriptor.parse(payload)
    return bytes(VpxPayloadDescriptor(descriptor.partition_start, descriptor.partition_id)) + body


@dataclass(frozen=True)
class Options:
    """What a session's media go through. Times are seconds since its media began."""

    loss: float = 0.0
    """Share of packets that are dropped at random, retransmissions included."""
    reorder: float = 0.0
    """Share of packets that come 10 ms late, behind others."""
    drift: float = 0.0
    """Seconds by which pictures come later than the sound that belongs to them."""
    audio_ppm: float = 0.0
    """Parts per million by which the clock of the sound runs slow."""
    outages: tuple[tuple[float, float], ...] = ()
    """(begin, seconds) of times in which everything is dropped."""
    pauses: tuple[tuple[float, float], ...] = ()
    """(begin, seconds) of times in which no picture is sent; the media's time goes on."""
    speeches: tuple[tuple[float, float], ...] | None = None
    """(begin, seconds) of times with sound; None: always. A begin is a multiple of 40 ms."""
    source_change: float | None = None
    """When video goes on with another SSRC and a key frame."""
    sequence: int | None = None
    timestamp: int | None = None
    """Where the counters begin; None: at random."""
    retransmit: bool = True
    reports: bool = True
    codec: str = "VP8"
    """Must be that of the media."""


@dataclass
class Counters:
    """What all sessions sent and were asked for."""

    packets: int = 0
    dropped: int = 0
    retransmitted: int = 0
    late: int = 0
    """Packets sent more than 5 ms after they were due."""
    nacks: int = 0
    plis: int = 0
    reports: int = 0
    rembs: int = 0


class _Silence(MediaStreamTrack):
    """A track that only makes aiortc negotiate a medium; its media are sent past it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> Any:
        await asyncio.Event().wait()


@dataclass(eq=False)
class _Stream:
    """One medium of one session."""

    session: Session
    kind: str
    ssrc: int
    rtx_ssrc: int
    payload_type: int
    rtx_payload_type: int | None
    clock_hz: int
    extension: bytes
    send_time_at: int
    """Offset of abs-send-time within `extension`; -1 without."""
    sequence: int
    timestamp: int
    count: int = 0
    packets: int = 0
    octets: int = 0
    rtx_sequence: int = 0
    key_wanted: bool = False
    history: dict[int, tuple[int, int, bool, bytes]] = field(default_factory=dict)
    recent: deque[int] = field(default_factory=deque)

    @property
    def _ssrc(self) -> int:
        """What aiortc's router calls a sender's SSRC."""
        return self.ssrc

    async def _handle_rtcp_packet(self, packet: Any) -> None:
        counters = self.session.server.counters
        if isinstance(packet, RtcpRrPacket):
            counters.reports += 1
            self.session.reports.extend(r for r in packet.reports if r.ssrc == self.ssrc)
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            counters.nacks += 1
            for sequence in packet.lost:
                self.retransmit(sequence)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_PLI:
            counters.plis += 1
            self.session.plis += 1
            self.key_wanted = True
        elif isinstance(packet, RtcpPsfbPacket):
            counters.rembs += 1

    def retransmit(self, sequence: int) -> None:
        kept = self.history.get(sequence)
        if kept is None or self.rtx_payload_type is None or not self.session.options.retransmit:
            return
        timestamp, marker, payload = kept[1], kept[2], kept[3]
        self.session.server.counters.retransmitted += 1
        wrapped = struct.pack("!H", sequence) + payload
        self.session.send(
            self.packet(
                self.rtx_payload_type, self.rtx_sequence, timestamp, self.rtx_ssrc, marker, wrapped
            )
        )
        self.rtx_sequence = (self.rtx_sequence + 1) & 0xFFFF

    def packet(
        self,
        payload_type: int,
        sequence: int,
        timestamp: int,
        ssrc: int,
        marker: bool,
        payload: bytes,
    ) -> bytes:
        extension = self.extension
        if self.send_time_at >= 0:
            now = int((time.time() + NTP_EPOCH) * (1 << 18)) & 0xFFFFFF
            at = self.send_time_at
            extension = extension[:at] + now.to_bytes(3, "big") + extension[at + 3 :]
        second = payload_type | (0x80 if marker else 0)
        first = 0x90 if extension else 0x80
        header = struct.pack("!BBHII", first, second, sequence, timestamp, ssrc)
        return header + extension + payload

    def emit(self, payloads: list[bytes], media_time: float) -> int:
        """Send one picture or sound; return its RTP timestamp."""
        timestamp = (self.timestamp + round(media_time * self.clock_hz)) & 0xFFFFFFFF
        last = len(payloads) - 1
        for index, payload in enumerate(payloads):
            marker = index == last and self.kind == "video"
            self.session.send(
                self.packet(self.payload_type, self.sequence, timestamp, self.ssrc, marker, payload)
            )
            if self.kind == "video":
                self.history[self.sequence] = (self.sequence, timestamp, marker, payload)
                self.recent.append(self.sequence)
                if len(self.recent) > HISTORY:
                    del self.history[self.recent.popleft()]
            self.sequence = (self.sequence + 1) & 0xFFFF
            self.packets += 1
            self.octets += len(payload)
        return timestamp

    def report(self) -> None:
        now = time.time() + NTP_EPOCH
        ntp = (int(now) << 32) | int((now % 1) * (1 << 32))
        step = 1 / FPS if self.kind == "video" else AUDIO_PACKET_S
        timestamp = (self.timestamp + round(self.count * step * self.clock_hz)) & 0xFFFFFFFF
        info = RtcpSenderInfo(ntp, timestamp, self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF)
        self.session.send_rtcp(bytes(RtcpSrPacket(ssrc=self.ssrc, sender_info=info)))


class Session:
    """One session's media, and the truth about them."""

    def __init__(self, server: SyntheticSender, options: Options) -> None:
        self.server = server
        self.options = options
        self.began: float | None = None
        """When its media began, on the monotonic clock."""
        self.plis = 0
        self.reports: deque[Any] = deque(maxlen=100)
        """Report blocks of the receiver about our sources."""
        self.truth: list[tuple[int, int]] = []
        """(video, audio) RTP timestamps with which the speeches so far began."""
        self.frames = 0
        self._random = random.Random(server.seed + len(server.sessions))
        self._streams: dict[str, _Stream] = {}
        self._sendto: Any = None
        self._router: Any = None
        self._protect: Any = None
        self._protect_rtcp: Any = None
        self.connection = RTCPeerConnection(ice.configuration())

    async def answer(self, sdp: str, kind: str) -> tuple[str, str]:
        connection = self.connection
        await connection.setRemoteDescription(RTCSessionDescription(sdp, kind))
        for track in ("video", "audio"):
            connection.addTrack(_Silence(track))
        for transceiver in connection.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences(_only(self.options.codec))
            sender: Any = transceiver.sender
            sender.send = self._sends(transceiver)
        ice.offer_only(connection, ice.LOOPBACK)
        await connection.setLocalDescription(await connection.createAnswer())
        return connection.localDescription.sdp, connection.localDescription.type

    def _sends(self, transceiver: Any) -> Any:
        async def send(parameters: Any) -> None:
            transport = transceiver.sender.transport
            codec = parameters.codecs[0]
            apt = codec.payloadType
            rtx = [c for c in parameters.codecs if c.parameters.get("apt") == apt]
            extensions = HeaderExtensionsMap()
            extensions.configure(parameters)
            values = HeaderExtensions(mid=parameters.muxId, abs_send_time=0xABCDEF)
            profile, value = extensions.set(values)
            packed = struct.pack("!HH", profile, len(value) // 4) + value if value else b""
            options = self.options
            stream = _Stream(
                session=self,
                kind=transceiver.kind,
                ssrc=transceiver.sender._ssrc,
                rtx_ssrc=transceiver.sender._rtx_ssrc,
                payload_type=codec.payloadType,
                rtx_payload_type=rtx[0].payloadType if rtx else None,
                clock_hz=codec.clockRate,
                extension=packed,
                send_time_at=packed.find(b"\xab\xcd\xef"),
                sequence=random.getrandbits(15) if options.sequence is None else options.sequence,
                timestamp=(
                    random.getrandbits(31) if options.timestamp is None else options.timestamp
                ),
            )
            transport._register_rtp_sender(stream, parameters)
            self._streams[transceiver.kind] = stream
            if len(self._streams) == 2:
                self._begin(transport)

        return send

    def _begin(self, transport: Any) -> None:
        pair = transport.transport._connection._nominated[1]
        sock, address = pair.protocol.transport._sock, pair.remote_addr
        self._sendto = lambda data: sock.sendto(data, address)
        self._router = transport._rtp_router
        self._protect = transport._tx_srtp.protect
        self._protect_rtcp = transport._tx_srtp.protect_rtcp
        # Not all sessions at once, and not in step.
        self.began = time.monotonic() + 0.005
        begin = self.began
        self.server.at(begin + max(0.0, self.options.drift), self._video)
        self.server.at(begin + max(0.0, -self.options.drift), self._audio)
        if self.options.reports:
            self.server.at(begin + 0.3, self._report)

    # --- what the scheduler calls; each returns when it is due next ----------------------------

    def _video(self) -> float | None:
        stream, options = self._streams["video"], self.options
        media = self.server.media
        number = stream.count
        assert self.began is not None
        due = self.began + max(0.0, options.drift) + (number + 1) / FPS
        if any(begin <= number / FPS < begin + seconds for begin, seconds in options.pauses):
            stream.count += 1
            return due
        changes = options.source_change
        if changes is not None and number == round(changes * FPS):
            stream.ssrc = (stream.ssrc + 1) & 0xFFFFFFFF
            stream.sequence = random.getrandbits(15)
            stream.history.clear()
            stream.recent.clear()
            stream.key_wanted = True
            # Or feedback about the new source would find nobody.
            self._router.register_sender(stream, stream.ssrc)
        index = self.frames % len(media.pictures)
        if index == 0 and self.frames:
            index = 1
        if stream.key_wanted:
            stream.key_wanted = False
            index = 0
        stream.emit(media.pictures[index], number / FPS)
        stream.count += 1
        self.frames += 1
        return due

    def _audio(self) -> float | None:
        stream, options = self._streams["audio"], self.options
        media, number = self.server.media, stream.count
        packet_s = AUDIO_PACKET_S * (1 + options.audio_ppm * 1e-6)
        shift = max(0.0, -options.drift)
        assert self.began is not None
        if options.speeches is None:
            stream.emit([media.sounds[number % len(media.sounds)]], number * AUDIO_PACKET_S)
            stream.count += 1
            return self.began + shift + stream.count * packet_s
        # As OpenTalking does: RTP time of sound stands still between speeches.
        before = 0
        for begin, seconds in options.speeches:
            packets = round(seconds / AUDIO_PACKET_S)
            if number < before + packets:
                if time.monotonic() < self.began + shift + begin:
                    return self.began + shift + begin
                timestamp = stream.emit([media.sounds[0]], number * AUDIO_PACKET_S)
                if number == before:
                    self._sound_began(timestamp)
                stream.count += 1
                return self.began + shift + begin + (stream.count - before) * packet_s
            before += packets
        return None

    def _sound_began(self, timestamp: int) -> None:
        stream, speeches = self._streams["video"], self.options.speeches
        assert speeches is not None
        begin = speeches[len(self.truth)][0]
        video = (stream.timestamp + round(begin * stream.clock_hz)) & 0xFFFFFFFF
        self.truth.append((video, timestamp))

    def _report(self) -> float | None:
        for stream in self._streams.values():
            if stream.packets:
                stream.report()
        return time.monotonic() + 0.5 + random.random()

    # --- the network -----------------------------------------------------------------------

    def send(self, packet: bytes) -> None:
        """Encrypt a packet and send it, unless the network drops or delays it."""
        options, counters = self.options, self.server.counters
        data = self._protect(packet)
        counters.packets += 1
        if options.outages:
            assert self.began is not None
            since = time.monotonic() - self.began
            if any(begin <= since < begin + seconds for begin, seconds in options.outages):
                counters.dropped += 1
                return
        if options.loss and self._random.random() < options.loss:
            counters.dropped += 1
            return
        if options.reorder and self._random.random() < options.reorder:
            self.server.at(time.monotonic() + 0.01, lambda: self._deliver(data))
            return
        self._deliver(data)

    def send_rtcp(self, packet: bytes) -> None:
        self._deliver(self._protect_rtcp(packet))

    def _deliver(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._sendto(data)


class SyntheticSender:
    """All sessions and the scheduler that sends their media; use it as a context manager."""

    def __init__(self, media: Media, seed: int = 1) -> None:
        self.media = media
        self.seed = seed
        self.counters = Counters()
        self.sessions: list[Session] = []
        self._due: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SyntheticSender:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await asyncio.gather(*[s.connection.close() for s in self.sessions])

    def at(self, due: float, step: Any) -> None:
        """Call `step` at `due`, and again when it says."""
        heapq.heappush(self._due, (due, next(self._order), step))

    async def answer(self, sdp: str, kind: str, options: Options) -> tuple[Session, str, str]:
        """Answer an offer; media begin when the connection is up."""
        session = Session(self, options)
        self.sessions.append(session)

        @session.connection.on("connectionstatechange")
        async def gone() -> None:
            if session.connection.connectionState in ("failed", "closed"):
                await self.end(session)

        return session, *await session.answer(sdp, kind)

    async def end(self, session: Session) -> None:
        """Stop a session's media."""
        if session in self.sessions:
            self.sessions.remove(session)
            session.began = None
            await session.connection.close()

    async def _run(self) -> None:
        due = self._due
        while True:
            begun = now = time.monotonic()
            while due and due[0][0] <= now and now - begun < SLICE_S:
                at, _, step = heapq.heappop(due)
                owner = getattr(step, "__self__", None)
                if isinstance(owner, Session) and owner.began is None:
                    continue
                self.counters.late += now - at > 0.005
                again = step()
                if again is not None:
                    self.at(again, step)
                now = time.monotonic()
            if due and due[0][0] <= now:
                await asyncio.sleep(0)
                continue
            pause = min(0.01, due[0][0] - now) if due else 0.01
            await asyncio.sleep(max(0.001, pause))


def _only(codec: str) -> list[Any]:
    capabilities = RTCRtpSender.getCapabilities("video")
    assert capabilities is not None
    return [c for c in capabilities.codecs if c.name in (codec, "rtx")]


def _options(given: dict[str, Any]) -> Options:
    return Options(
        **{k: tuple(map(tuple, v)) if isinstance(v, list) else v for k, v in given.items()}
    )


async def serve(media: Media) -> None:
    """Answer offers over HTTP until killed."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    # A look at the objects of hundreds of sessions stops all media and handshakes for 0.1 s,
    # which would be taken for the receiver's doing. What ended sessions leave is little here.
    gc.freeze()
    gc.disable()
    async with SyntheticSender(media) as sender:

        async def offer(request: Request) -> JSONResponse:
            body = json.loads(await request.body())
            options = _options(body.get("options", {}))
            _, sdp, kind = await sender.answer(body["sdp"], body["type"], options)
            return JSONResponse({"sdp": sdp, "type": kind})

        async def stats(_: Request) -> JSONResponse:
            used = resource.getrusage(resource.RUSAGE_SELF)
            cpu = used.ru_utime + used.ru_stime
            return JSONResponse(
                {"cpu": cpu, "at": time.monotonic(), "sessions": len(sender.sessions)}
                | asdict(sender.counters)
            )

        routes = [Route("/offer", offer, methods=["POST"]), Route("/stats", stats)]
        config = uvicorn.Config(Starlette(routes=routes), log_level="error")
        with socket.socket(proto=socket.IPPROTO_TCP) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(256)
            print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
            await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    file, *shape = sys.argv[1:]
    asyncio.run(serve(encoded_media(Path(file), *map(int, shape))))
