"""What receiving costs the load generator, beside a plain aiortc client on the same sender.

The sender (`tests.loadgen.sender`) has a core of its own and the receiving process
(`tests.bench.receiving`) another. What is sent was encoded and packetised beforehand.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from statistics import linear_regression, median
from typing import Any

from tests.bench.measurement import Measurement
from tests.bench.receiving import Account
from tests.loadgen.sender import FPS
from tests.processes import ROOT, synthetic_sender

SESSIONS, RAMP, LOSS, FLAT = "loadgen-sessions", "loadgen-ramp", "loadgen-loss", "loadgen-flat"
RSS = "loadgen-rss"

MEDIA = ROOT / "build" / "bench" / "media-540x900.pickle"
SESSION = "540×900, 25 fps, VP8 of some 1 Mbit/s and Opus, encrypted, loopback"
TRUSTED_PERCENT = 70.0
"""Share of a core beyond which a generator should not be believed."""
LARGEST = 200
PEER_SESSIONS = 10
FLAT_AMONG = (20, 80, 160)
FLAT_ROUNDS = 9
FLAT_SETTLE_S = 6.0
"""A new session costs more for some seconds: with few, all are new at once."""
RSS_S, RSS_EVERY_S, RSS_SETTLED_S = 600.0, 10.0, 120.0
LONGEST_S = 200.0
"""For a receiving process, beyond the time that it measures."""
ARRIVALS = (
    "each at a random instant within its interval, so that the sessions' pictures do not coincide"
)


def sender() -> contextlib.AbstractContextManager[str]:
    """The sender on the first core; gives its URL."""
    return synthetic_sender(MEDIA, prefix=_on_core(0))


def received(url: str, receiver: str, sessions: int, *, seconds: float, **task: Any) -> Account:
    """Receive that many sessions on the last core."""
    asked = {"url": url, "receiver": receiver, "sessions": sessions, "seconds": seconds, **task}
    command = [*_on_core(-1), sys.executable, "-m", "tests.bench.receiving", json.dumps(asked)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=LONGEST_S + seconds,
    )
    account = Account(**json.loads(done.stdout.splitlines()[-1]))
    # What was not received cost nothing: such an account must not be compared.
    if account.connected < sessions or not 0.98 <= account.fps / FPS <= 1.02:
        raise RuntimeError(
            f"void: {account.connected} of {sessions} sessions connected, {account.fps:.1f} "
            "pictures a second; another process, or a pause of the machine, was in the way"
        )
    return account


def _on_core(number: int) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(cores[number])]


def sessions() -> Measurement:
    """How many sessions a core can receive and be believed."""
    with sender() as url:
        peer = received(url, "aiortc", PEER_SESSIONS, seconds=10.0, floor_s=3.0)
        ours = received(url, "ours", LARGEST, seconds=20.0, floor_s=3.0)
    return Measurement(
        name=SESSIONS,
        value=TRUSTED_PERCENT / ours.cpu_percent_per_session,
        unit="sessions per core",
        better="higher",
        peer="aiortc, decoding, measuring nothing",
        peer_value=TRUSTED_PERCENT / peer.cpu_percent_per_session,
        conditions={
            "session": SESSION,
            "value": f"{TRUSTED_PERCENT:.0f} % of a core ÷ CPU per session, which was measured "
            f"at {LARGEST} sessions (peer: {PEER_SESSIONS})",
            "ours": "no decoding; all meters on, a turn measured every 5 s",
            "sessions": ARRIVALS,
            "verdict": f"at {LARGEST} sessions the load generator says of itself: {ours.verdict}",
            "sender": f"{ours.sender_cpu_percent:.0f} % of the other core, "
            f"{ours.sender_packets_per_s:.0f} packets/s, {ours.sender_late} late by over 5 ms",
        },
        figures={
            "CPU per session": (
                ours.cpu_percent_per_session,
                peer.cpu_percent_per_session,
                "% of a core",
            ),
            "CPU of the process": (ours.cpu_percent, peer.cpu_percent, "% of a core"),
            "sessions connected": (ours.connected, peer.connected, ""),
            "pictures": (ours.fps, peer.fps, "a second and session"),
            "loop lag, p99": (ours.lag_p99_ms, peer.lag_p99_ms, "ms, in the worst 5 s"),
            "loop lag without sessions, p99": (ours.lag_floor_p99_ms, peer.lag_floor_p99_ms, "ms"),
            "waited for the core": (
                ours.waited_percent,
                peer.waited_percent,
                "% of the time (peer: for its own decoders)",
            ),
            "kernel to handler, p99": (
                ours.handler_delay_p99_ms or 0.0,
                0.0,
                "ms beyond the interval",
            ),
            "packets lost": (ours.lost, 0.0, ""),
            "freezes": (ours.freezes, 0.0, ""),
            "first frame, p50": (ours.first_frame_p50_ms, peer.first_frame_p50_ms, "ms"),
            "first frame, p95": (ours.first_frame_p95_ms, peer.first_frame_p95_ms, "ms"),
        },
    )


def ramp() -> Measurement:
    """Whether sessions that begin 25 a second see their first frame as soon as a single one."""
    with sender() as url:
        alone = received(url, "ours", 12, rate=1.0, settle_s=0.5, seconds=1.0)
        ramped = received(url, "ours", 150, rate=26.0, settle_s=0.5, seconds=1.0)
    return Measurement(
        name=RAMP,
        value=ramped.first_frame_p50_ms,
        unit="ms from the offer's creation to the first complete key frame, median",
        better="lower",
        peer="the same client with one session a second",
        peer_value=alone.first_frame_p50_ms,
        conditions={
            "session": SESSION,
            "ramp": f"150 sessions in {ramped.ramp_s:.1f} s, {ARRIVALS}; alone: 12 sessions in "
            f"{alone.ramp_s:.1f} s",
            "signalling": "an HTTP request for the answer is included",
        },
        figures={
            "first frame, p95": (ramped.first_frame_p95_ms, alone.first_frame_p95_ms, "ms"),
            "p95 over the median alone": (
                ramped.first_frame_p95_ms / alone.first_frame_p50_ms,
                alone.first_frame_p95_ms / alone.first_frame_p50_ms,
                "",
            ),
            "sessions begun a second": (150 / ramped.ramp_s, 12 / alone.ramp_s, ""),
            "sessions connected": (ramped.connected, alone.connected, ""),
            "waited for the core": (
                ramped.ramp_waited_percent,
                alone.ramp_waited_percent,
                "% of the time",
            ),
        },
    )


def loss() -> Measurement:
    """Whether the picture holds under random loss, and what is asked of the sender for it."""
    lossy = {"loss": 0.05}
    with sender() as url:
        ours = received(url, "ours", PEER_SESSIONS, seconds=25.0, options=lossy)
        peer = received(url, "aiortc", PEER_SESSIONS, seconds=25.0, options=lossy)
    return Measurement(
        name=LOSS,
        value=ours.fps,
        unit="pictures a second",
        better="higher",
        peer="aiortc, decoding",
        peer_value=peer.fps,
        conditions={
            "session": SESSION,
            "loss": "5 % of all packets at random, retransmissions included; feedback arrives",
            "sessions": f"{PEER_SESSIONS} each, 25 s",
            "retransmission": "the sender keeps 128 packets, as aiortc does",
        },
        figures={
            "requests for a key frame (PLI)": (ours.plis, peer.plis, "in all"),
            "requests for packets (NACK)": (ours.nacks, peer.nacks, "in all"),
            "freezes": (ours.freezes, 0.0, "in all (not counted by the peer)"),
        },
    )


def flat() -> Measurement:
    """What a session costs among 20, 80 and 160, and what the process costs without any."""
    with sender() as url:
        rounds = [
            {n: received(url, "ours", n, settle_s=FLAT_SETTLE_S, seconds=8.0) for n in FLAT_AMONG}
            for _ in range(FLAT_ROUNDS)
        ]
    few, some, many = FLAT_AMONG
    spread = {n: [r[n].cpu_percent_per_session for r in rounds] for n in FLAT_AMONG}
    total = {n: median(spread[n]) for n in FLAT_AMONG}
    rss = {n: median((r[n].rss_mib - r[n].rss_mib_before) / n for r in rounds) for n in FLAT_AMONG}
    # Least squares over all accounts: process + sessions * each.
    points = [(n, r[n].cpu_percent) for r in rounds for n in FLAT_AMONG]
    each, process = linear_regression(*zip(*points, strict=True))
    return Measurement(
        name=FLAT,
        value=total[many],
        unit=f"% of a core per session among {many}, all of the process",
        better="lower",
        peer=f"the same among {few}",
        peer_value=total[few],
        conditions={
            "session": SESSION,
            "rounds": f"{FLAT_ROUNDS} of 8 s each, medians; CPU per session in them: "
            + "; ".join(
                f"{n}: " + ", ".join(f"{v:.3f}" for v in values) for n, values in spread.items()
            ),
            "process": f"{process:.2f} % of a core whatever the number of sessions, and "
            f"{each:.3f} % for each (least squares): the former is what {few} sessions share",
            "CPU": f"largest is {_apart(total.values()):.2f} times the smallest",
            "memory": f"largest is {_apart(rss.values()):.2f} times the smallest",
        },
        figures={
            f"CPU per session among {some}": (total[some], total[few], "% of a core"),
            f"memory per session among {some}": (rss[some], rss[few], "MiB"),
            f"memory per session among {many}": (rss[many], rss[few], "MiB"),
        },
    )


def _apart(values: Iterable[float]) -> float:
    every = list(values)
    return max(every) / min(every)


def rss() -> Measurement:
    """Whether memory stays as it is while 50 sessions are received for ten minutes."""
    with sender() as url:
        account = received(url, "ours", 50, seconds=RSS_S, rss_every_s=RSS_EVERY_S)
    samples = account.rss_samples_mib
    settled = round(RSS_SETTLED_S / RSS_EVERY_S)
    later = samples[settled:]
    slope = linear_regression([n * RSS_EVERY_S / 60 for n in range(len(later))], later).slope
    return Measurement(
        name=RSS,
        value=samples[-1],
        unit=f"MiB resident after {RSS_S / 60:.0f} minutes of 50 sessions",
        better="lower",
        peer=f"the same process after {RSS_SETTLED_S / 60:.0f} minutes",
        peer_value=samples[settled],
        conditions={
            "session": SESSION,
            "slope": f"{slope:+.3f} MiB a minute from then on (least squares over {len(later)} "
            f"samples, one each {RSS_EVERY_S:.0f} s)",
            "machine": "need not be quiet",
        },
        figures={
            "largest": (max(later), samples[settled], "MiB"),
            "smallest": (min(later), samples[settled], "MiB"),
            "before the first session": (account.rss_mib_before, samples[settled], "MiB"),
            "pictures": (account.fps, FPS, "a second and session (peer: as sent)"),
        },
    )
