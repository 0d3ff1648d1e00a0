"""What the agent costs OpenTalking: the same turns with it and without it, taking turns.

Two real targets run side by side, one under the agent, which reports to a real exporter. Sessions
alternate between them, so that whatever else the machine does meets both. The time to first
audio is the server's own (`speech.timing`); CPU is that of OpenTalking's process, from the end
of a session's warm-up turn to the end of its last.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from exporter import stages
from exporter.stages import Outcome
from loadgen.marks import Record, RelayedEvent
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import TextInput
from talkscope import children
from tests.bench.measurement import Measurement
from tests.processes import free_port

NAME = "agent-overhead"

ROUNDS = 6
TURNS = 3
ANSWER = "Hello there, I am well."
TICKS = os.sysconf("SC_CLK_TCK")
READY_S = 120.0


class Overhead(Measurement):
    """The value is a difference, which may be nothing: the ratio is that of the medians."""

    @property
    def ratio(self) -> float:
        """How many times better than without the agent: 1 where it costs nothing."""
        ours, peer, _ = self.figures[TTFA]
        return peer / ours


TTFA = "server's time to first audio, median"
SPREAD = "standard error of that median"
CPU = "CPU of OpenTalking"


@dataclass
class _Sink:
    """Takes the server's own figures from what the client relays."""

    ttfa_ms: list[float] = field(default_factory=list)

    def send(self, record: Record) -> None:
        if isinstance(record, RelayedEvent):
            value = record.data.get(stages.TTFA.timing_field or "")
            if value is not None:
                self.ttfa_ms.append(float(value))


@dataclass
class _Side:
    """One of the two targets, and what was measured there."""

    target: children.DemoTarget
    ttfa_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def hold_session(self) -> None:
        """A session with a warm-up turn and the measured ones."""
        sink = _Sink()
        asyncio.run(self._turns(sink))
        assert len(sink.ttfa_ms) == TURNS + 1
        self.ttfa_ms += sink.ttfa_ms[1:]

    @property
    def standard_error_ms(self) -> float:
        """Of the median, from the median absolute deviation as if times were normal.

        1.4826 makes the deviation a standard deviation, sqrt(pi/2) the mean's error the median's
        (Huber, Robust Statistics, 1981).
        """
        middle = median(self.ttfa_ms)
        deviation = 1.4826 * median(abs(ms - middle) for ms in self.ttfa_ms)
        return math.sqrt(math.pi / 2) * deviation / math.sqrt(len(self.ttfa_ms))

    async def _turns(self, sink: _Sink) -> None:
        facts = self.target.facts
        config = SessionConfig(model=facts["model"], avatar=facts["avatar"])
        async with (
            OpenTalking(self.target.url) as client,
            Session(client, config, sink) as session,
        ):
            await self._turn(session)
            cpu, wall = self._cpu_seconds(), time.monotonic()
            for _ in range(TURNS):
                await self._turn(session)
            self.cpu_s += self._cpu_seconds() - cpu
            self.wall_s += time.monotonic() - wall

    async def _turn(self, session: Session) -> None:
        result = await session.turn(TextInput("How are you?"))
        if result.outcome is not Outcome.COMPLETED:
            raise RuntimeError(f"a turn ended as {result.outcome}")

    def _cpu_seconds(self) -> float:
        pid = self.target.facts["opentalking"]["pid"]
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def cpu_percent(self) -> float:
        """Of one core."""
        return 100 * self.cpu_s / self.wall_s


def run() -> Measurement:
    """Start both targets and the exporter, alternate between them, and compare."""
    options = ["--mode", "unified", "--llm-text", ANSWER]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="talkscope-bench-")))
        # It polls nobody: that would be a cost of its own, on one side.
        polls = ["--target", f"http://127.0.0.1:{free_port()}"]
        exporter = stack.enter_context(children.exporter(polls, folder))
        under = children.demo_target([*options, "--agent", exporter.url], folder / "with", READY_S)
        ours = _Side(stack.enter_context(under))
        peer = _Side(
            stack.enter_context(children.demo_target(options, folder / "without", READY_S))
        )
        for number in range(ROUNDS):
            # Neither may always come first.
            for side in (ours, peer) if number % 2 else (peer, ours):
                side.hold_session()
    with_ms, without_ms = median(ours.ttfa_ms), median(peer.ttfa_ms)
    return Overhead(
        name=NAME,
        value=with_ms - without_ms,
        unit="ms of the server's median time to first audio",
        better="lower",
        peer="the same OpenTalking without the agent, in the same run; the ratio is of medians",
        peer_value=0.0,
        conditions={
            "turns": f"{ROUNDS * TURNS} on each side, in {ROUNDS} alternating sessions",
            "session": "256×256, 25 fps, VP8 and Opus, one at a time, loopback",
            "target": "real OpenTalking (unified) and OmniRT, synthetic runtime",
            "agent": "all hooks, reporting to a real exporter; all events relayed",
        },
        figures={
            TTFA: (with_ms, without_ms, "ms"),
            SPREAD: (ours.standard_error_ms, peer.standard_error_ms, "ms"),
            CPU: (ours.cpu_percent, peer.cpu_percent, "% of one core"),
        },
    )
