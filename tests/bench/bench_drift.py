"""How well injected A/V drift is read back without decoding.

Sender and receiver share a process: it is the reading that is measured, and the injected drift
is known to the microsecond of the sender's schedule.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from loadgen.media import ice
from loadgen.media.meter import MediaMeter
from loadgen.media.onset import FirstTimestamps
from loadgen.media.peer import Peer, warm_up
from loadgen.media.speech import Drift
from tests.bench.measurement import Measurement
from tests.loadgen.sender import Options, SyntheticSender, small_media

NAME = "loadgen-drift"

STEPS_MS = range(-400, 401, 100)
SPEECH_S = 6.0
SKEW_PPM = 200.0
SKEW_S = 150.0
IMPAIRED = Options(loss=0.02, reorder=0.05)


@dataclass(frozen=True)
class Reading:
    """One speech: what was injected and what was read."""

    injected_ms: float
    drift: Drift

    @property
    def error_ms(self) -> float:
        """Of the median."""
        return abs(self.drift.median_ms - self.injected_ms)


async def read(sender: SyntheticSender, options: Options, told: bool) -> Drift:
    """Receive one session with one speech and measure it."""
    news = asyncio.Event()
    meter = MediaMeter(decoding=False)
    peer = Peer(meter, addresses=ice.LOOPBACK, stun_urls=(), on_news=news.set, decode=False)
    try:
        session, sdp, kind = await sender.answer(*await peer.offer(), options)
        await peer.accept(sdp, kind)
        while meter.first_key_frame is None:
            news.clear()
            await news.wait()
        assert options.speeches is not None
        [(begin, seconds)] = options.speeches
        meter.begin_turn(meter.first_key_frame)
        await asyncio.sleep(begin + seconds + abs(options.drift) + 1.0)
        first = FirstTimestamps(*session.truth[0]) if told else None
        drift = meter.end_turn(first).drift
        assert drift is not None
        return drift
    finally:
        await peer.close()


async def steps(sender: SyntheticSender, options: Options, told: bool = True) -> list[Reading]:
    """All steps of drift at the same time, each in a session of its own."""
    speeches = ((1.0, SPEECH_S),)
    drifts = await asyncio.gather(
        *[
            read(sender, replace(options, drift=ms / 1e3, speeches=speeches), told)
            for ms in STEPS_MS
        ]
    )
    return [Reading(ms, drift) for ms, drift in zip(STEPS_MS, drifts, strict=True)]


async def skewed(sender: SyntheticSender, seconds: float = SKEW_S) -> Drift:
    """A speech whose sound is sent by a slow clock."""
    return await read(sender, Options(audio_ppm=SKEW_PPM, speeches=((1.0, seconds),)), True)


async def _measure() -> tuple[list[Reading], list[Reading], list[Reading], Drift]:
    await warm_up(decode=False)
    async with SyntheticSender(small_media()) as sender:
        skew = asyncio.create_task(skewed(sender))
        clean = await steps(sender, Options())
        impaired = await steps(sender, IMPAIRED)
        untold = await steps(sender, Options(), told=False)
        return clean, impaired, untold, await skew


def run() -> Measurement:
    """Read all steps, clean and impaired, and the skew."""
    clean, impaired, untold, skew = asyncio.run(_measure())

    def worst(readings: list[Reading]) -> float:
        return max(r.error_ms for r in readings)

    def worst_onset(readings: list[Reading]) -> float:
        return max(abs((r.drift.onset_ms or 0.0) - r.injected_ms) for r in readings)

    expected = -SKEW_PPM * 60e-3
    assert skew.slope_ms_per_min is not None
    return Measurement(
        name=NAME,
        value=max(worst(clean), worst(impaired)),
        unit="ms, worst error of a speech's median drift",
        better="lower",
        peer="the same without the agent's timestamps (basis: change only)",
        peer_value=worst(untold),
        conditions={
            "injected": f"{STEPS_MS[0]} to {STEPS_MS[-1]} ms in {len(STEPS_MS)} steps, clean and "
            "under 2 % loss with 5 % of packets 10 ms out of order",
            "sender": "synthetic, in the same process; basis: the agent's RTP timestamps",
            "speech": f"{SPEECH_S:.0f} s; with skew {SKEW_S:.0f} s of {SKEW_PPM:.0f} ppm",
        },
        figures={
            "worst error, clean": (worst(clean), worst(untold), "ms"),
            "worst error, loss and reordering": (worst(impaired), worst(untold), "ms"),
            "worst error of the onset, clean": (worst_onset(clean), worst(untold), "ms"),
            "worst error of the onset, impaired": (worst_onset(impaired), worst(untold), "ms"),
            "slope (peer: injected)": (skew.slope_ms_per_min, expected, "ms a minute"),
        },
    )
