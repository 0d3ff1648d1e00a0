"""How well injected A/V drift is read back.

On a synthetic sender, clean and impaired: it and the receiver share a process, and the injected
drift is known to the microsecond of the sender's schedule. On the real OpenTalking a relay delivers
one medium late (`drift_real`), and the first talking frame is known in each way there is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from loadgen.media import ice
from loadgen.media.meter import MediaMeter
from loadgen.media.onset import FirstTimestamps
from loadgen.media.peer import Peer, warm_up
from loadgen.media.speech import Drift
from tests.bench import drift_real
from tests.bench.drift_real import RealReading
from tests.bench.measurement import Measurement
from tests.loadgen.sender import Options, SyntheticSender, small_media

NAME = "loadgen-drift"

STEPS_MS = range(-400, 401, 100)
SPEECH_S = 6.0
SKEW_PPM = 200.0
SKEW_S = 600.0
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


@dataclass(frozen=True)
class _Readings:
    """Everything that was read."""

    clean: list[Reading]
    impaired: list[Reading]
    untold: list[Reading]
    skew: Drift
    agent: list[RealReading]
    picture: list[RealReading]
    sizes: list[RealReading]


async def _measure(where: drift_real.Deployment) -> _Readings:
    await warm_up(decode=False)
    async with SyntheticSender(small_media()) as sender:
        skew = asyncio.create_task(skewed(sender))
        return _Readings(
            clean=await steps(sender, Options()),
            impaired=await steps(sender, IMPAIRED),
            untold=await steps(sender, Options(), told=False),
            agent=await drift_real.by_agent(where, STEPS_MS),
            picture=await drift_real.by_picture(where, STEPS_MS),
            sizes=await drift_real.by_sizes(where, STEPS_MS),
            skew=await skew,
        )


def run() -> Measurement:
    """Read all steps on both senders, and the skew."""
    with drift_real.deployment() as where:
        read = asyncio.run(_measure(where))

    def worst(readings: list[Reading]) -> float:
        return max(r.error_ms for r in readings)

    def worst_onset(readings: list[Reading]) -> float:
        return max(abs((r.drift.onset_ms or 0.0) - r.injected_ms) for r in readings)

    def worst_real(readings: list[RealReading]) -> float:
        return max(abs(r.median_ms - r.injected_ms) for r in readings)

    untold, sizes = worst(read.untold), worst_real(read.sizes)
    known = [worst_real(read.agent), worst_real(read.picture)]
    expected = -SKEW_PPM * 60e-3
    assert read.skew.slope_ms_per_min is not None
    return Measurement(
        name=NAME,
        value=max(*known, worst(read.clean), worst(read.impaired)),
        unit="ms, worst error of a speech's median drift",
        better="lower",
        peer="the synthetic sender without the agent's timestamps (basis: change only)",
        peer_value=untold,
        conditions={
            "injected": f"{STEPS_MS[0]} to {STEPS_MS[-1]} ms in {len(STEPS_MS)} steps; on the "
            "synthetic sender clean and under 2 % loss with 5 % of packets 10 ms out of order",
            "real OpenTalking": f"unified mode, model {drift_real.MODEL} on a synthetic runtime, "
            "with the agent; a UDP relay on loopback delivers the RTP of one medium late, one "
            "speech a step, the first of each session left out",
            "read on it": "; ".join(
                f"{name}: " + ", ".join(f"{r.median_ms:+.1f}" for r in readings)
                for name, readings in (
                    ("agent", read.agent),
                    ("decoded", read.picture),
                    (f"sizes ({len(read.sizes)} found)", read.sizes),
                )
            ),
            "synthetic sender": "in the same process; basis: the agent's RTP timestamps; a speech "
            f"has {SPEECH_S:.0f} s, with skew {SKEW_S:.0f} s of {SKEW_PPM:.0f} ppm",
            "peer of the real rows": "frame sizes: neither the agent nor decoding",
        },
        figures={
            "real OpenTalking, basis agent": (worst_real(read.agent), sizes, "ms"),
            "real OpenTalking, basis decoded": (worst_real(read.picture), sizes, "ms"),
            "synthetic, clean": (worst(read.clean), untold, "ms"),
            "synthetic, loss and reordering": (worst(read.impaired), untold, "ms"),
            "synthetic, onset, clean": (worst_onset(read.clean), untold, "ms"),
            "synthetic, onset, impaired": (worst_onset(read.impaired), untold, "ms"),
            "slope (peer: injected)": (read.skew.slope_ms_per_min, expected, "ms a minute"),
        },
    )
