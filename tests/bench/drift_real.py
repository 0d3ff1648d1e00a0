"""Drift injected between the real OpenTalking and its viewer, and what the viewer reads.

One session for each way of knowing the first talking frame. A relay delivers one medium late, a
step for each speech, and nothing else differs. The first speech of a session is not read: it has
some 19 ms of its own, which the server's resampler holds back (loadgen/media/speech.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporter.stages import Outcome
from loadgen.marks import NullSink
from loadgen.media.onset import Basis
from loadgen.media.packets import Kind
from loadgen.session import Session, SessionConfig
from loadgen.told import AgentTimestamps, FirstTimestampsOf
from loadgen.turn import TextInput
from talkscope import children
from talkscope.demo import exporter_arguments
from tests.bench.relay import Relay, RelayedOpenTalking

MODEL: Final = "wav2lip"
ANSWER: Final = "Hello there, I am well, thank you."
PAUSE_S: Final = 1.2
"""Between speeches: idle frames flush for a second, and what was held back arrives."""
READY_S: Final = 120.0


class VoidError(RuntimeError):
    """A speech was not found as it should have been: there is nothing to compare."""


@dataclass(frozen=True)
class RealReading:
    """One speech: what was injected, and what was read."""

    injected_ms: float
    onset_ms: float
    median_ms: float


@dataclass(frozen=True)
class Deployment:
    """OpenTalking with the agent, and the exporter that it tells."""

    target: children.DemoTarget
    exporter: str


@contextlib.contextmanager
def deployment() -> Iterator[Deployment]:
    """Run both on loopback."""
    listen = children.with_port("127.0.0.1:0")
    options = ["--mode", "unified", "--model", MODEL, "--llm-text", ANSWER]
    options += ["--agent", f"http://{listen}"]
    with (
        tempfile.TemporaryDirectory(prefix="talkscope-bench-") as name,
        children.demo_target(options, Path(name), READY_S) as target,
        children.exporter(exporter_arguments(target), Path(name), listen=listen) as exporter,
    ):
        yield Deployment(target, exporter.url)


async def by_agent(where: Deployment, steps_ms: Iterable[int]) -> list[RealReading]:
    """With the agent's RTP timestamps, not decoding."""
    async with AgentTimestamps(where.exporter) as told:
        return await _read(where, steps_ms, Basis.AGENT, decode=False, first_timestamps=told)


async def by_picture(where: Deployment, steps_ms: Iterable[int]) -> list[RealReading]:
    """With the decoded frame numbers, without the agent's word."""
    return await _read(where, steps_ms, Basis.DECODED_BARCODE, decode=True)


async def by_sizes(where: Deployment, steps_ms: Iterable[int]) -> list[RealReading]:
    """With the encoded frames' sizes alone; steps at which they tell nothing are left out."""
    return await _read(where, steps_ms, Basis.FRAME_SIZES, decode=False)


async def _read(
    where: Deployment,
    steps_ms: Iterable[int],
    basis: Basis,
    *,
    decode: bool,
    first_timestamps: FirstTimestampsOf | None = None,
) -> list[RealReading]:
    readings = []
    config = SessionConfig(model=MODEL, avatar=str(where.target.facts["avatar"]), decode=decode)
    async with RelayedOpenTalking(where.target.url) as client:
        session = Session(client, config, NullSink(), first_timestamps=first_timestamps)
        async with session:
            await session.turn(TextInput("Hello"))
            for ms in steps_ms:
                reading = await _step(session, client.relay, ms, basis)
                if reading is not None:
                    readings.append(reading)
    return readings


async def _step(session: Session, relay: Relay, ms: int, basis: Basis) -> RealReading | None:
    """Sound is early when the picture is late: positive as in ITU-R BT.1359-1."""
    relay.delays = {Kind.VIDEO: max(0, ms) / 1e3, Kind.AUDIO: max(0, -ms) / 1e3}
    await asyncio.sleep(PAUSE_S)
    turn = await session.turn(TextInput("Hello"))
    if turn.outcome is not Outcome.COMPLETED or turn.drift is None:
        raise VoidError(f"a speech under {ms} ms ended as {turn.outcome}")
    if turn.drift["basis"] is not basis:
        if basis is Basis.FRAME_SIZES:
            return None
        raise VoidError(f"a speech under {ms} ms was found by {turn.drift['basis']}, not {basis}")
    return RealReading(ms, turn.drift["onset_ms"], turn.drift["median_ms"])
