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
from collections.abc import Iterator
from typing import Any

from tests.bench.measurement import Measurement
from tests.bench.receiving import Account
from tests.processes import ROOT

SESSIONS, RAMP, LOSS, FLAT = "loadgen-sessions", "loadgen-ramp", "loadgen-loss", "loadgen-flat"

MEDIA = ROOT / "build" / "bench" / "media-540x900.pickle"
SESSION = "540×900, 25 fps, VP8 of some 1 Mbit/s and Opus, encrypted, loopback"
TRUSTED_PERCENT = 70.0
"""Share of a core beyond which a generator should not be believed."""
LARGEST = 200
PEER_SESSIONS = 10
LONGEST_S = 200.0


@contextlib.contextmanager
def sender() -> Iterator[str]:
    """The sender on the first core; yields its URL."""
    command = [*_on_core(0), sys.executable, "-m", "tests.loadgen.sender", str(MEDIA)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            assert child.stdout is not None
            yield child.stdout.readline().strip()
        finally:
            child.kill()


def received(url: str, receiver: str, sessions: int, **task: Any) -> Account:
    """Receive that many sessions on the last core."""
    asked = {"url": url, "receiver": receiver, "sessions": sessions, **task}
    command = [*_on_core(-1), sys.executable, "-m", "tests.bench.receiving", json.dumps(asked)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True, timeout=LONGEST_S
    )
    return Account(**json.loads(done.stdout.splitlines()[-1]))


def _on_core(number: int) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(cores[number])]


def sessions() -> Measurement:
    """How many sessions a core can receive and be believed."""
    with sender() as url:
        peer = received(url, "aiortc", PEER_SESSIONS, seconds=10.0)
        ours = received(url, "ours", LARGEST, seconds=20.0)
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
            "loop lag, p99": (ours.lag_p99_ms, peer.lag_p99_ms, "ms"),
            "kernel to handler, p99": (ours.handler_delay_p99_ms or 0.0, 0.0, "ms beyond 5 ms"),
            "packets lost": (ours.lost, 0.0, ""),
            "freezes": (ours.freezes, 0.0, ""),
            "first frame, p50": (ours.first_frame_p50_ms, peer.first_frame_p50_ms, "ms"),
            "first frame, p95": (ours.first_frame_p95_ms, peer.first_frame_p95_ms, "ms"),
        },
    )
