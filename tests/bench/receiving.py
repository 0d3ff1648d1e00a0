"""A process that receives many sessions from the synthetic sender and accounts for its cost.

    python -m tests.bench.receiving '{"url": "http://…", "receiver": "ours", "sessions": 10, …}'

prints one JSON line: the fields of `Account`. `receiver` is `ours` (no decoding, all meters on)
or `aiortc` (a plain aiortc client that decodes and measures nothing).
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import random
import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole
from aiortc.mediastreams import MediaStreamError

from loadgen import garbage
from loadgen.load import verdict
from loadgen.load.health import Health
from loadgen.media import ice
from loadgen.media.datagrams import receive_load
from loadgen.media.load import ReceiveWindow
from loadgen.media.meter import MediaMeter
from loadgen.media.peer import Peer, warm_up

TURN_S = 5.0
DELAYS_KEPT = 5_000
"""Of the receive path's delays: those of the last 20 s of 200 sessions, and of more with fewer."""


@dataclass(frozen=True)
class Task:
    """What to receive."""

    url: str
    receiver: str
    sessions: int
    rate: float = 25.0
    """Sessions begun a second, each at a random instant within its interval: evenly spaced ones
    would begin a whole number of pictures apart, and all sessions' pictures come at once."""
    floor_s: float = 0.0
    """How long the loop's lag is watched before the first session, for comparison."""
    settle_s: float = 3.0
    seconds: float = 15.0
    rss_every_s: float = 0.0
    """Time between two looks at the resident memory while it is measured; 0: none."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the sender's `Options`."""


@dataclass(frozen=True)
class Account:
    """What it cost, over the measured window where not said otherwise."""

    cpu_percent: float
    cpu_percent_per_session: float
    rss_mib: float
    rss_mib_before: float
    """Before the first session."""
    fps: float
    """Complete pictures a second and session."""
    packets_per_s: float
    freezes: int
    nacks: int
    plis: int
    lost: int
    lag_p99_ms: float
    """99th percentile of the event loop's lag in the worst window of five seconds."""
    lag_floor_p99_ms: float
    """Of the same loop without a session: what the machine itself adds."""
    waited_percent: float
    """Share of the time in which this process could have run and something else had the core."""
    verdict: str
    """What the load generator says of itself."""
    handler_delay_p99_ms: float | None
    first_frame_p50_ms: float
    first_frame_p95_ms: float
    connected: int
    ramp_s: float
    ramp_waited_percent: float
    """As `waited_percent`, while the sessions began."""
    rss_samples_mib: list[float]
    sender_cpu_percent: float
    sender_late: int
    sender_packets_per_s: float


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


class _Ours:
    """One session without decoding, measured as in a load test."""

    def __init__(self) -> None:
        self.meter = MediaMeter(decoding=False)
        self.first_frame: float | None = None
        self._shown = asyncio.Event()
        self._peer = Peer(
            self.meter,
            addresses=ice.LOOPBACK,
            stun_urls=(),
            on_news=self._on_news,
            decode=False,
        )
        self._turns: asyncio.Task[None] | None = None

    def _on_news(self) -> None:
        if self.meter.first_key_frame is not None:
            self._shown.set()

    async def open(self, http: httpx.AsyncClient, options: dict[str, Any]) -> None:
        began = time.monotonic()
        sdp, kind = await self._peer.offer()
        answer = await _offer(http, sdp, kind, options)
        await self._peer.accept(answer["sdp"], answer["type"])
        await asyncio.wait_for(self._shown.wait(), 60)
        assert self.meter.first_key_frame is not None
        self.first_frame = self.meter.first_key_frame - began
        self._turns = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        while True:
            self.meter.begin_turn(time.monotonic())
            await asyncio.sleep(TURN_S)
            self.meter.end_turn()

    def counts(self) -> dict[str, int]:
        totals = self.meter.totals()
        return {
            "frames": totals.frames,
            "packets": totals.video.packets + totals.audio.packets,
            "lost": totals.video.lost + totals.audio.lost,
            "freezes": totals.freezes,
            "nacks": totals.nacks or 0,
            "plis": totals.plis or 0,
        }

    async def close(self) -> None:
        if self._turns is not None:
            self._turns.cancel()
        await self._peer.close()


class _Aiortc:
    """One session of a plain aiortc client."""

    def __init__(self) -> None:
        self.first_frame: float | None = None
        self._frames = 0
        self._connection = RTCPeerConnection(ice.configuration())
        self._connection.addTransceiver("video", direction="recvonly")
        self._connection.addTransceiver("audio", direction="recvonly")
        ice.offer_only(self._connection, ice.LOOPBACK)
        self._sink = MediaBlackhole()
        self._began = 0.0
        self._watcher: asyncio.Task[None] | None = None
        self._shown = asyncio.Event()

    async def open(self, http: httpx.AsyncClient, options: dict[str, Any]) -> None:
        self._began = time.monotonic()

        @self._connection.on("track")
        def on_track(track: Any) -> None:
            if track.kind == "audio":
                self._sink.addTrack(track)
            else:
                self._watcher = asyncio.create_task(self._watch(track))

        await self._connection.setLocalDescription(await self._connection.createOffer())
        description = self._connection.localDescription
        answer = await _offer(http, description.sdp, description.type, options)
        await self._connection.setRemoteDescription(
            RTCSessionDescription(answer["sdp"], answer["type"])
        )
        await self._sink.start()
        await asyncio.wait_for(self._shown.wait(), 60)

    async def _watch(self, track: Any) -> None:
        try:
            while True:
                await track.recv()
                self._frames += 1
                if self.first_frame is None:
                    self.first_frame = time.monotonic() - self._began
                    self._shown.set()
        except MediaStreamError:
            return

    def counts(self) -> dict[str, int]:
        return {"frames": self._frames}

    async def close(self) -> None:
        await self._sink.stop()
        await self._connection.close()


async def _offer(
    http: httpx.AsyncClient, sdp: str, kind: str, options: dict[str, Any]
) -> dict[str, Any]:
    reply = await http.post("/offer", json={"sdp": sdp, "type": kind, "options": options})
    reply.raise_for_status()
    answer: dict[str, Any] = reply.json()
    return answer


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _sample_rss(samples: list[float], every_s: float) -> None:
    while every_s:
        samples.append(_rss_mib())
        await asyncio.sleep(every_s)


def _lag_p99_ms(windows: Sequence[verdict.Window]) -> float:
    return max((w.loop_lag_p99_s * 1e3 for w in windows), default=math.nan)


def _waited() -> float:
    """Seconds for which this thread was ready and did not run (proc(5), `schedstat`)."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def _watched(
    ours: bool, sessions: int, seconds: float
) -> tuple[list[verdict.Window], list[float]]:
    """What the load generator would say of so many seconds; and the receive path's delays."""
    windows: list[verdict.Window] = []
    # Not all of an hour's: they would be taken for memory that sessions need.
    delays: deque[float] = deque(maxlen=DELAYS_KEPT)

    def received() -> ReceiveWindow | None:
        if not ours:
            return None
        window = receive_load().take()
        delays.extend(window.delays_s)
        return window

    received()
    delays.clear()
    watching = asyncio.create_task(Health(lambda: sessions, received, windows.append).run())
    await asyncio.sleep(seconds)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    received()
    return windows, list(delays)


async def receive(task: Task) -> Account:
    """Open the sessions, let them settle, account for a while, close them."""
    ours = task.receiver == "ours"
    await warm_up(decode=not ours)
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(
        base_url=task.url, trust_env=False, timeout=60, limits=limits
    ) as http:
        # What a process needs once, whatever the number of sessions, is paid for here.
        for _ in range(5):
            first: _Ours | _Aiortc = _Ours() if ours else _Aiortc()
            await first.open(http, {})
            await first.close()
        if ours:
            garbage.settle()
        gc.collect()
        rss_before = _rss_mib()
        idle, _ = await _watched(ours, 1, task.floor_s)
        sessions: list[_Ours | _Aiortc] = []
        opening = []
        chance = random.Random(1)
        began, ramp_waited = time.monotonic(), _waited()
        for number in range(task.sessions):
            due = began + (number + chance.random()) / task.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            session: _Ours | _Aiortc = _Ours() if ours else _Aiortc()
            sessions.append(session)
            opening.append(asyncio.create_task(session.open(http, task.options)))
        await asyncio.gather(*opening)
        ramp_s, ramp_waited = time.monotonic() - began, _waited() - ramp_waited
        await asyncio.sleep(task.settle_s)

        before, sender_before = [s.counts() for s in sessions], (await http.get("/stats")).json()
        rss_samples: list[float] = []
        sampling = asyncio.create_task(_sample_rss(rss_samples, task.rss_every_s))
        cpu, waited, at = _cpu(), _waited(), time.monotonic()
        windows, delays = await _watched(ours, task.sessions, task.seconds)
        sampling.cancel()
        cpu, waited, seconds = _cpu() - cpu, _waited() - waited, time.monotonic() - at
        sender_after = (await http.get("/stats")).json()
        after = [s.counts() for s in sessions]
        gc.collect()
        rss = _rss_mib()
        await asyncio.gather(*[s.close() for s in sessions], return_exceptions=True)

    def grown(name: str) -> int:
        return sum(b.get(name, 0) - a.get(name, 0) for a, b in zip(before, after, strict=True))

    def sent(name: str) -> float:
        return float(sender_after[name] - sender_before[name])

    firsts = [s.first_frame * 1e3 for s in sessions if s.first_frame is not None]
    percent = 100 * cpu / seconds
    return Account(
        cpu_percent=percent,
        cpu_percent_per_session=percent / task.sessions,
        rss_mib=rss,
        rss_mib_before=rss_before,
        fps=grown("frames") / seconds / task.sessions,
        packets_per_s=grown("packets") / seconds / task.sessions,
        freezes=grown("freezes"),
        nacks=int(sent("nacks")),
        plis=int(sent("plis")),
        lost=grown("lost"),
        lag_p99_ms=_lag_p99_ms(windows),
        lag_floor_p99_ms=_lag_p99_ms(idle),
        waited_percent=100 * waited / seconds,
        verdict=verdict.judge({"": windows}).text if ours else "",
        handler_delay_p99_ms=percentile(delays, 0.99) * 1e3 if ours else None,
        first_frame_p50_ms=percentile(firsts, 0.5),
        first_frame_p95_ms=percentile(firsts, 0.95),
        connected=len(firsts),
        ramp_s=ramp_s,
        ramp_waited_percent=100 * ramp_waited / ramp_s,
        rss_samples_mib=rss_samples,
        sender_cpu_percent=100 * sent("cpu") / sent("at"),
        sender_late=int(sent("late")),
        sender_packets_per_s=sent("packets") / sent("at"),
    )


if __name__ == "__main__":
    account = asyncio.run(receive(Task(**json.loads(sys.argv[1]))))
    print(json.dumps(asdict(account)))
    sys.stdout.flush()
    # Decoder threads of hundreds of sessions take their time to end.
    os._exit(0)
