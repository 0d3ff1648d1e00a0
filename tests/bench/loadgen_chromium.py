"""What our receiver says of a session beside what a real Chromium says of one.

`loadgen-freezes`: freezes, frozen time and frames a second through scripted outages, each of
them received by both. `loadgen-keyframe`: the first frame of sessions with the real OpenTalking,
ours and Chromium's in turn.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from loadgen.media import ice
from loadgen.media.meter import MediaMeter
from loadgen.media.peer import Peer, warm_up
from loadgen.opentalking import READY_STATES, Description, OpenTalking
from talkscope import children
from tests.bench.measurement import Measurement
from tests.chromium import Viewer, chromium_at
from tests.chromium_outages import Pair, watch
from tests.processes import ROOT, synthetic_sender

FREEZES, KEYFRAME = "loadgen-freezes", "loadgen-keyframe"

MEDIA = ROOT / "build" / "bench" / "media-256x256-anonymous.pickle"
OUTAGES = [[2.5, 0.12], [3.6, 0.2], [4.8, 0.3], [6.2, 1.0], [8.5, 2.5]]
"""(begin, seconds). At 25 pictures a second 190 ms are a freeze, so the first is none. None ends
near a multiple of 3 s, when Chromium looks whether to ask for a key frame: after a stop of 6 s it
shows a picture at once or 3 s later, as it happens."""
SCRIPTS = {
    "the sender stops": {"pauses": OUTAGES},
    "the network stops": {"outages": OUTAGES},
    "the network stops for 7 s": {"outages": [[4.0, 7.0]]},
    "nothing stops": {},
}
WATCHED_S = 14.0
ROUNDS = 3

PAIRS = 24
READY_S = 120.0


def freezes() -> Measurement:
    """Send outages to both and compare their accounts."""
    with synthetic_sender(MEDIA, 256, 256, 10) as url:
        rounds = [asyncio.run(watch(url, SCRIPTS, WATCHED_S)) for _ in range(ROUNDS)]
    pairs = [pair for one in rounds for pair in one.values()]
    for number, one in enumerate(rounds, 1):
        for name, pair in one.items():
            print(f"{number}. {name}: {_row(pair)}", flush=True)
    ours, theirs = [p.ours for p in pairs], [p.chromium for p in pairs]
    return _Truth(
        name=FREEZES,
        value=100 * max(_off(a.frozen_s, b.frozen_s) for a, b in zip(ours, theirs, strict=True)),
        unit="%, worst difference of a session's frozen time from Chromium's",
        better="lower",
        peer="Chromium's own getStats: differences from it, so its figures stand for no difference",
        peer_value=0.0,
        conditions={
            "sessions": f"{len(pairs)} of each, in {ROUNDS} rounds, 256×256, 25 fps, VP8 and "
            "Opus, synthetic sender, loopback",
            "outages": ", ".join(f"{1e3 * seconds:.0f} ms" for _, seconds in OUTAGES)
            + "; the first is too short to be a freeze",
            "definition": "W3C webrtc-stats; Chromium's pauses (over 5 s) count as freezes",
            **{
                f"{name}, {number}": _row(pair)
                for number, one in enumerate(rounds, 1)
                for name, pair in one.items()
            },
        },
        figures={
            "freezes": (sum(a.freezes for a in ours), sum(b.freezes for b in theirs), "in all"),
            "sessions whose count differs": (
                sum(a.freezes != b.freezes for a, b in zip(ours, theirs, strict=True)),
                0.0,
                "",
            ),
            "frozen time": (
                sum(a.frozen_s for a in ours),
                sum(b.frozen_s for b in theirs),
                "s in all",
            ),
            "worst difference of frames a second": (
                100 * max(_off(a.fps, b.fps) for a, b in zip(ours, theirs, strict=True)),
                0.0,
                "%",
            ),
        },
    )


class _Truth(Measurement):
    """The value is a difference from the peer, which has none: there is no ratio but one."""

    @property
    def ratio(self) -> float:
        """1 less the difference: 1 where both say the same."""
        return 1 - self.value / 100


def _off(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / theirs if theirs else float(ours != theirs)


def _row(pair: Pair) -> str:
    a, b = pair.ours, pair.chromium
    return (
        f"freezes {a.freezes} (Chromium {b.freezes}, {pair.pauses} of them pauses), frozen "
        f"{a.frozen_s:.3f} s ({b.frozen_s:.3f} s), {a.fps:.2f} frames a second ({b.fps:.2f})"
    )


# --- first frame -----------------------------------------------------------------------------


@dataclass(frozen=True)
class First:
    """Of one session, in ms since the offer was begun."""

    answered: float
    connected: float
    frame: float
    """Ours: the first key frame was complete. Chromium: presented to the page."""
    received: float
    """Chromium: the frame's last packet as it says; ours: as `frame`."""


def keyframe() -> Measurement:
    """Open sessions with a real target, ours and Chromium's in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="talkscope-bench-") as folder,
        children.demo_target(["--mode", "unified"], Path(folder) / "target", READY_S) as target,
    ):
        pairs = asyncio.run(_pairs(target))
    # The first ones pay for what is loaded once.
    pairs = pairs[1:]

    def spread(values: list[float]) -> str:
        low, *_, high = quantiles(values, n=20)
        return f"{median(values):+.1f} ms, 90 % of pairs from {low:+.1f} to {high:+.1f}"

    def since_answer(firsts: list[First], what: str) -> list[float]:
        return [getattr(f, what) - f.answered for f in firsts]

    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    differences = {
        what: [
            a - b for a, b in zip(since_answer(ours, what), since_answer(theirs, what), strict=True)
        ]
        for what in ("frame", "received", "connected")
    }
    whole = [a.frame - b.frame for a, b in pairs]
    rendering = [b.frame - b.received for b in theirs]
    value = median(differences["frame"])
    return _Bias(
        name=KEYFRAME,
        value=value,
        unit="ms, bias: our first key frame since the answer less Chromium's first frame, median",
        better="lower",
        peer="headless Chromium, requestVideoFrameCallback, sessions alternating",
        peer_value=0.0,
        conditions={
            "pairs": f"{len(pairs)} with the real OpenTalking (unified) and OmniRT, 256×256",
            "since the answer was set": spread(differences["frame"]),
            "since the offer was begun": spread(whole),
            "to the frame's last packet as Chromium tells it (receiveTime)": spread(
                differences["received"]
            ),
            "to the connection (ICE and DTLS)": spread(differences["connected"]),
            "Chromium from receipt to presentation": spread(rendering),
        },
        figures={
            ANSWERED: (
                median(since_answer(ours, "frame")),
                median(since_answer(theirs, "frame")),
                "ms",
            ),
            "first frame since the offer, median": (
                median([a.frame for a in ours]),
                median([b.frame for b in theirs]),
                "ms",
            ),
            "connected since the answer, median": (
                median(since_answer(ours, "connected")),
                median(since_answer(theirs, "connected")),
                "ms",
            ),
        },
    )


ANSWERED = "first frame since the answer, median"


class _Bias(Measurement):
    """The value is a difference: the ratio is that of the medians."""

    @property
    def ratio(self) -> float:
        """Chromium's median over ours."""
        ours, peer, _ = self.figures[ANSWERED]
        return peer / ours


async def _pairs(target: children.DemoTarget) -> list[tuple[First, First]]:
    await warm_up(decode=False)
    pairs = []
    async with (
        OpenTalking(target.url) as client,
        chromium_at(f"{target.url}/health") as viewer,
    ):
        for number in range(PAIRS + 1):
            # Neither may always come first.
            if number % 2:
                mine, other = await _ours(client, target), await _chromiums(client, viewer, target)
            else:
                other, mine = await _chromiums(client, viewer, target), await _ours(client, target)
            pairs.append((mine, other))
    return pairs


async def _session(client: OpenTalking, target: children.DemoTarget) -> str:
    facts = target.facts
    created = await client.create_session(
        avatar=facts["avatar"], model=facts["model"], timeout=READY_S
    )
    while (await client.get_session(created.session)).get("state") not in READY_STATES:
        await asyncio.sleep(0.05)
    return created.session


async def _chromiums(client: OpenTalking, viewer: Viewer, target: children.DemoTarget) -> First:
    session = await _session(client, target)
    number, marks = await viewer.open(f"/sessions/{session}/webrtc/offer")
    await asyncio.sleep(0.3)
    await viewer.close(number)
    await client.delete(session, timeout=READY_S)
    since = {name: at - marks["offer"] for name, at in marks.items()}
    return First(
        answered=since["answered"],
        connected=since["connected"],
        frame=since["presented"],
        received=since["received"],
    )


async def _ours(client: OpenTalking, target: children.DemoTarget) -> First:
    session = await _session(client, target)
    meter, shown, connected = MediaMeter(decoding=False), asyncio.Event(), list[float]()

    def on_news() -> None:
        if peer.connected and not connected:
            connected.append(time.monotonic())
        if meter.first_key_frame is not None and connected:
            shown.set()

    peer = Peer(meter, addresses=ice.LOOPBACK, stun_urls=(), on_news=on_news, decode=False)
    try:
        began = time.monotonic()
        offer = Description(*await peer.offer())
        answer = await client.offer(session, offer, timeout=READY_S)
        await peer.accept(answer.sdp, answer.type)
        answered = time.monotonic()
        async with asyncio.timeout(READY_S):
            await shown.wait()
        assert meter.first_key_frame is not None
        frame = 1e3 * (meter.first_key_frame - began)
        return First(
            answered=1e3 * (answered - began),
            connected=1e3 * (connected[0] - began),
            frame=frame,
            received=frame,
        )
    finally:
        await peer.close()
        await client.delete(session, timeout=READY_S)
