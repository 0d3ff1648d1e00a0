"""The same scripted outages for a Chromium and for our receiver, and what each says of them.

The sender runs in a process of its own; it sends pictures that decode. Each receiver has a
session of its own for each script, and each session goes through its script from its beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from loadgen.media import ice
from loadgen.media.meter import MediaMeter
from loadgen.media.peer import Peer, warm_up
from tests.chromium import Viewer, chromium_at

Script = Mapping[str, Any]
"""Of the sender's `Options`."""

STEADY_S = 1.2
"""Before anything is compared: no outage begins sooner."""


@dataclass(frozen=True)
class Account:
    """What a receiver counted between two instants."""

    freezes: int
    frozen_s: float
    """With `freezes`: Chromium's pauses are included. It calls a freeze a pause when at one of its
    looks, every 3 s, nothing has come for 5 s."""
    frames: int
    seconds: float

    @property
    def fps(self) -> float:
        """Pictures a second."""
        return self.frames / self.seconds


@dataclass(frozen=True)
class Pair:
    """One script, received twice at the same time."""

    ours: Account
    chromium: Account
    pauses: int
    """Of Chromium's freezes, those that it calls pauses."""


class _Both:
    """Two sessions of one script."""

    def __init__(self, viewer: Viewer, script: Script) -> None:
        self._viewer = viewer
        self._script = script
        self._meter = MediaMeter(decoding=False)
        self._shown = asyncio.Event()
        self._peer = Peer(
            self._meter,
            addresses=ice.LOOPBACK,
            stun_urls=(),
            on_news=self._on_news,
            decode=False,
        )
        self._number = 0
        self._before: tuple[Account, Account, int] | None = None

    def _on_news(self) -> None:
        if self._meter.first_key_frame is not None:
            self._shown.set()

    async def open(self, http: httpx.AsyncClient) -> None:
        self._number, _ = await self._viewer.open("/offer", options=self._script)
        sdp, kind = await self._peer.offer()
        offer = {"sdp": sdp, "type": kind, "options": self._script}
        answer = (await http.post("/offer", json=offer)).raise_for_status().json()
        await self._peer.accept(answer["sdp"], answer["type"])
        async with asyncio.timeout(30):
            await self._shown.wait()

    async def _now(self) -> tuple[Account, Account, int]:
        told = await self._viewer.inbound_video(self._number)
        at, totals = time.monotonic(), self._meter.totals()
        pauses = int(told.get("pauseCount", 0))
        chromium = Account(
            freezes=int(told["freezeCount"]) + pauses,
            frozen_s=float(told["totalFreezesDuration"])
            + float(told.get("totalPausesDuration", 0.0)),
            frames=int(told["framesDecoded"]),
            seconds=float(told["timestamp"]) / 1e3,
        )
        return Account(totals.freezes, totals.frozen_s, totals.frames, at), chromium, pauses

    async def begin(self) -> None:
        self._before = await self._now()

    async def end(self) -> Pair:
        assert self._before is not None
        before, now = self._before, await self._now()
        ours, chromium = (
            Account(
                b.freezes - a.freezes,
                b.frozen_s - a.frozen_s,
                b.frames - a.frames,
                b.seconds - a.seconds,
            )
            for a, b in zip(before[:2], now[:2], strict=True)
        )
        return Pair(ours, chromium, now[2] - before[2])

    async def close(self) -> None:
        await self._peer.close()


async def watch(url: str, scripts: Mapping[str, Script], seconds: float) -> dict[str, Pair]:
    """Receive every script twice, all at the same time, for `seconds` once all are shown."""
    await warm_up(decode=False)
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http,
        chromium_at(f"{url}/stats") as viewer,
    ):
        both = {name: _Both(viewer, script) for name, script in scripts.items()}
        try:
            for one in both.values():
                await one.open(http)
                await asyncio.sleep(STEADY_S)
                await one.begin()
            await asyncio.sleep(seconds)
            return {name: await one.end() for name, one in both.items()}
        finally:
            for one in both.values():
                await one.close()
