"""One session and one turn against a running target, as a client on this machine sees it.

What comes in: the URL of OpenTalking, an avatar and a model. What goes out: JSON on stdout with the
server's ICE candidates, the events of the turn, and the frame numbers read from the decoded video.

Runs inside OpenTalking's environment, which has aiortc; start it with the loopback hook.
"""

import asyncio
import json
import sys
from pathlib import Path

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy" / "demo"))

import barcode

ENDS = {"speech.ended", "error"}
# The last chunks are still being played when generation has ended.
PLAYBACK_SECONDS = 3


async def follow(client, session, events, ended):
    async with client.stream("GET", f"/sessions/{session}/events", timeout=None) as stream:
        name = ""
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                events.append([name, json.loads(line.removeprefix("data:"))])
                if name in ENDS:
                    ended.set()


async def until_loaded(client, session):
    while True:
        state = (await client.get(f"/sessions/{session}")).json()["state"]
        if state != "created":
            return
        await asyncio.sleep(0.05)


async def watch(track, numbers):
    try:
        while True:
            frame = await track.recv()
            if track.kind == "video":
                luma = frame.to_ndarray(format="gray")
                read = barcode.read(lambda x, y, p=luma: int(p[y, x]), frame.width, frame.height)
                numbers.append(read)
    except MediaStreamError:
        return


async def main(url, avatar, model):
    events, numbers, ended, tasks = [], [], asyncio.Event(), []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        wish = {"avatar_id": avatar, "model": model}
        created = await client.post("/sessions", json=wish)
        created.raise_for_status()
        session = created.json()["session_id"]
        tasks.append(asyncio.create_task(follow(client, session, events, ended)))
        await until_loaded(client, session)

        peer = RTCPeerConnection()
        for kind in ("video", "audio"):
            peer.addTransceiver(kind, direction="recvonly")
        peer.on("track", lambda track: tasks.append(asyncio.create_task(watch(track, numbers))))
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"sdp": peer.localDescription.sdp, "type": peer.localDescription.type}
        answer = (await client.post(f"/sessions/{session}/webrtc/offer", json=offer)).json()
        await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        await asyncio.sleep(1)
        idle = len(numbers)

        await client.post(f"/sessions/{session}/speak", json={"text": "Introduce yourself."})
        await asyncio.wait_for(ended.wait(), 60)
        await asyncio.sleep(PLAYBACK_SECONDS)
        await client.delete(f"/sessions/{session}")
        await peer.close()
        for task in tasks:
            task.cancel()
    candidates = [line for line in answer["sdp"].splitlines() if line.startswith("a=candidate:")]
    print(
        json.dumps(
            {
                "candidates": candidates,
                "events": events,
                "idle_numbers": numbers[:idle],
                "talking_numbers": numbers[idle:],
            }
        )
    )


asyncio.run(main(*sys.argv[1:]))
