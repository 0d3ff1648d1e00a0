"""The peer of `bench-cost`: a plain aiortc client, as its documentation writes one.

It opens a session, receives and decodes audio and video, speaks the same turns and measures
nothing. One line on stdout when a turn is over.

    python -m tests.bench.plain_aiortc URL MODEL AVATAR TURNS PROMPT
"""

from __future__ import annotations

import asyncio
import sys

import aioice.ice
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole

PAUSE_S = 1.0
PLAYED_OUT_S = 0.6


async def main(url: str, model: str, avatar: str, turns: int, prompt: str) -> None:
    # Media stays on loopback; aioice offers no loopback address by itself.
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:
        asked = {"model": model, "avatar_id": avatar, "knowledge_enabled": False}
        created = await http.post("/sessions", json=asked | {"agent_enabled": False})
        session = created.json()["session_id"]
        try:
            while (await http.get(f"/sessions/{session}")).json()["state"] == "created":
                await asyncio.sleep(0.1)
            await _converse(http, session, turns, prompt)
        finally:
            await http.delete(f"/sessions/{session}")


async def _converse(http: httpx.AsyncClient, session: str, turns: int, prompt: str) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    sink = MediaBlackhole()
    heard = _Audio()
    peer.addTransceiver("video", direction="recvonly")
    audio = peer.addTransceiver("audio", direction="recvonly")

    @peer.on("track")
    def on_track(track):  # type: ignore[no-untyped-def]
        if track.kind == "video":
            sink.addTrack(track)

    await peer.setLocalDescription(await peer.createOffer())
    offer = {"sdp": peer.localDescription.sdp, "type": peer.localDescription.type}
    answer = (await http.post(f"/sessions/{session}/webrtc/offer", json=offer)).json()
    await peer.setRemoteDescription(RTCSessionDescription(**answer))
    await sink.start()
    receiving = asyncio.create_task(heard.receive(audio.receiver.track))
    ended = asyncio.Event()
    listening = asyncio.create_task(_listen(http, session, ended))
    await asyncio.sleep(PAUSE_S)
    try:
        for turn in range(turns):
            ended.clear()
            await http.post(f"/sessions/{session}/speak", json={"text": prompt})
            await ended.wait()
            while heard.silence() < PLAYED_OUT_S:
                await asyncio.sleep(0.05)
            print(turn, flush=True)
            await asyncio.sleep(PAUSE_S)
    finally:
        listening.cancel()
        receiving.cancel()
        await sink.stop()
        await peer.close()


class _Audio:
    """Decodes the audio and knows when the last of it came."""

    def __init__(self) -> None:
        self._last = 0.0

    async def receive(self, track) -> None:  # type: ignore[no-untyped-def]
        while True:
            await track.recv()
            self._last = asyncio.get_running_loop().time()

    def silence(self) -> float:
        return asyncio.get_running_loop().time() - self._last


async def _listen(http: httpx.AsyncClient, session: str, ended: asyncio.Event) -> None:
    async with http.stream("GET", f"/sessions/{session}/events", timeout=None) as stream:
        async for line in stream.aiter_lines():
            if line == "event: speech.ended":
                ended.set()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(main(arguments[0], arguments[1], arguments[2], int(arguments[3]), arguments[4]))
