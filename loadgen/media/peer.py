"""The WebRTC end of one session: offer and answer in and out, packets and frames to the meter.

It owns the aiortc peer connection, its taps and the decoding of frame numbers. It must not know
HTTP, marks or turns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from aiortc import (
    MediaStreamTrack,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, VideoStreamTrack
from av import VideoFrame

from loadgen.errors import Cause, TargetError
from loadgen.media import barcode, ice
from loadgen.media.meter import MediaMeter
from loadgen.media.packets import Kind
from loadgen.media.tap import ReceiverTap, TransportTap, check_aiortc

_WARM_UP_S = 2.0
_LOST_STATES = frozenset({"failed", "closed", "disconnected"})


class Peer:
    """Receives one session's audio and video and feeds `meter`.

    `addresses` are the IP addresses offered as host candidates; None leaves it to aioice, which
    offers every interface but loopback. `on_news` is called when the connection's state
    changes, and when the first key frame is complete. With `decode`, aiortc receives and
    decodes, and packets are only watched; without, nothing is decoded, for a tenth of the cost.

    Create it inside a running event loop.
    """

    def __init__(
        self,
        meter: MediaMeter,
        *,
        addresses: Sequence[str] | None,
        stun_urls: Sequence[str],
        on_news: Callable[[], None],
        decode: bool = True,
    ) -> None:
        check_aiortc()
        self._meter = meter
        self._on_news = on_news
        self._watchers: list[asyncio.Task[None]] = []
        self._closing = False
        self._fault: Exception | None = None
        self._connection = RTCPeerConnection(ice.configuration(stun_urls))
        video = self._connection.addTransceiver("video", direction="recvonly")
        audio = self._connection.addTransceiver("audio", direction="recvonly")
        # The meter counts audio in Opus' clock; every WebRTC endpoint has Opus (RFC 7874).
        capabilities = RTCRtpReceiver.getCapabilities("audio")
        assert capabilities is not None
        audio.setCodecPreferences([c for c in capabilities.codecs if c.name == "opus"])
        meter.on_first_key_frame = on_news
        self._direct: TransportTap | None = None
        if decode:
            self._video = ReceiverTap(video.receiver, Kind.VIDEO, meter.on_packet, self._on_fault)
            ReceiverTap(audio.receiver, Kind.AUDIO, meter.on_packet, self._on_fault)
            self._connection.on("track", self._on_track)
        else:
            self._direct = TransportTap([video, audio], meter, self._on_fault)
        if addresses is not None:
            ice.offer_only(self._connection, addresses)
        self._connection.on("connectionstatechange", on_news)

    async def offer(self) -> tuple[str, str]:
        """Create the offer and gather candidates; return its SDP and type."""
        await self._connection.setLocalDescription(await self._connection.createOffer())
        description = self._connection.localDescription
        return description.sdp, description.type

    async def accept(self, sdp: str, kind: str) -> None:
        """Apply the target's answer. Raises TargetError `bad_answer` when it cannot be."""
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, kind))
        except Exception as error:  # aiortc raises whatever its SDP parser stumbles over
            raise TargetError(
                f"the target's WebRTC answer cannot be used ({type(error).__name__}: {error}): "
                "its codecs or its SDP do not fit this client",
                Cause.BAD_ANSWER,
            ) from error

    @property
    def connected(self) -> bool:
        """ICE and DTLS are up."""
        return not self._closing and self._connection.connectionState == "connected"

    @property
    def trouble(self) -> TargetError | None:
        """Why no more media can be measured, or None."""
        if self._fault is not None:
            return TargetError(
                "this client's receive path failed "
                f"({type(self._fault).__name__}: {self._fault}); please report it",
                Cause.CLIENT_FAULT,
            )
        if self._closing:
            return None
        state = self._connection.connectionState
        if state in _LOST_STATES:
            return TargetError(
                f"the WebRTC connection is {state}: the target closed the session, or the "
                "network between dropped",
                Cause.CONNECTION_LOST,
            )
        return None

    async def close(self) -> None:
        """Close the connection and stop watching its tracks."""
        if self._closing:
            return
        # One that is still being made has tasks that go on for a moment.
        was_up = self.connected
        self._closing = True
        # Whoever gets the news holds this peer.
        self._on_news = lambda: None
        self._meter.on_first_key_frame = None
        if self._direct is not None:
            self._direct.close()
        await self._connection.close()
        if self._direct is not None and was_up:
            self._direct.dismantle(self._connection)
            self._direct = None
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    def _on_fault(self, error: Exception) -> None:
        if self._fault is None:
            self._fault = error
            self._on_news()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._watchers.append(asyncio.create_task(self._watch(track)))

    async def _watch(self, track: MediaStreamTrack) -> None:
        """Take decoded frames as they come: aiortc queues them without bound."""
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, VideoFrame) and frame.pts is not None:
                    timestamp = self._video.rtp_timestamp(frame.pts)
                    self._meter.on_decoded(timestamp, barcode.read(frame))
        except MediaStreamError:
            return
        except Exception as error:
            self._on_fault(error)


async def warm_up(*, decode: bool = True) -> None:
    """Pay once, before any clock starts, for what the first connection would pay.

    That is codec libraries, decoder threads, ICE, DTLS and SRTP: on an idle machine the first
    frame comes some 5 to 25 ms sooner. Nothing leaves the machine: two connections in this
    process talk over loopback.
    """
    news = asyncio.Event()
    meter = MediaMeter()
    viewer = Peer(meter, addresses=ice.LOOPBACK, stun_urls=(), on_news=news.set, decode=decode)
    server = RTCPeerConnection(ice.configuration())
    try:
        await server.setRemoteDescription(RTCSessionDescription(*await viewer.offer()))
        server.addTrack(VideoStreamTrack())
        server.addTrack(AudioStreamTrack())
        ice.offer_only(server, ice.LOOPBACK)
        await server.setLocalDescription(await server.createAnswer())
        await viewer.accept(server.localDescription.sdp, server.localDescription.type)
        # Nothing depends on success: otherwise the first session pays, and its numbers show it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WARM_UP_S):
                while meter.first_key_frame is None:
                    news.clear()
                    await news.wait()
    finally:
        await viewer.close()
        await server.close()
