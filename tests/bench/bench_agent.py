"""What the agent costs OpenTalking: the same turns with it and without it, in one run.

Real targets run side by side, some under the agent, which reports to a real exporter.

The time to first audio is the server's own (`speech.timing`). What the agent adds is a fraction of
a millisecond, so what scatters is taken away: the stand-in's voice does not wait, its language
model waits just long enough for the agent's first request to fall into it, nobody watches, and
OpenTalking's HTTP clients read one certificate instead of certifi's bundle, which takes 2 × 20 ms
of processor time a turn. Turns go round the targets in an order drawn anew each time, so that
whatever else the machine does meets all of them; and as two processes of the same program differ
too, there are two targets of each kind.

The processor's share is that of OpenTalking's process while a viewer watches, with the default
delays, from the end of a session's warm-up turn to the end of its last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev

import certifi

from exporter import stages
from exporter.stages import Outcome
from loadgen import sse
from loadgen.marks import Record
from loadgen.opentalking import READY_STATES, EventName, OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import TextInput
from talkscope import children
from tests.bench.measurement import Measurement
from tests.processes import free_port

NAME = "agent-overhead"

QUESTION = "How are you?"
ANSWER = "Hello there, I am well."
READY_S = 120.0

EACH = 2
"""Targets with the agent, and as many without."""
ROUNDS = 300
"""Turns of each of them."""
WARM_UP = 5
FIRST_TOKEN_MS = 80.0
CALM = {
    "llm-first-token-ms": FIRST_TOKEN_MS,
    "llm-token-ms": 0,
    "tts-first-pcm-ms": 0,
    "tts-rtf": 0,
    "tts-chars-per-second": 1000,
    "chunk-ms": 0,
}
RESAMPLES = 2000

SESSIONS = 4
TURNS = 3
TICKS = os.sysconf("SC_CLK_TCK")

MEDIAN = "server's time to first audio, median"
ALIKE = "difference of the two targets of a kind"
CPU = "CPU of OpenTalking, one viewer"


class Overhead(Measurement):
    """The value is a difference, which may be nothing: the ratio is that of the medians."""

    @property
    def ratio(self) -> float:
        """How many times better than without the agent: 1 where it costs nothing."""
        ours, peer, _ = self.figures[MEDIAN]
        return peer / ours


def run() -> Measurement:
    """Measure the time to first audio, then the processor's share."""
    ours, peer = _times()
    added = _pooled(ours) - _pooled(peer)
    low, high = _interval(ours, peer)
    ours_cpu, peer_cpu = _shares()
    more = [a - b for a, b in zip(ours_cpu, peer_cpu, strict=True)]
    return Overhead(
        name=NAME,
        value=added,
        unit="ms added to the server's median time to first audio",
        better="lower",
        peer="the same OpenTalking without the agent, in the same run; the ratio is of medians",
        peer_value=0.0,
        conditions={
            "95 % interval": f"{low:+.2f} to {high:+.2f} ms ({RESAMPLES} resamples of the rounds)",
            "turns": f"{ROUNDS} on each of {EACH} targets with and {EACH} without the agent, "
            "in random order",
            "target": "real OpenTalking (unified) and OmniRT, synthetic runtime; language model "
            f"{FIRST_TOKEN_MS:g} ms, voice at once, one CA certificate, no viewer",
            "agent": "all hooks, reporting to a real exporter; all events relayed",
            "CPU": f"{SESSIONS * TURNS} turns a side in {SESSIONS} alternating sessions, default "
            f"delays, 256×256; {fmean(more):+.2f} points, standard error "
            f"{stdev(more) / SESSIONS**0.5:.2f}",
        },
        figures={
            MEDIAN: (_pooled(ours), _pooled(peer), "ms"),
            ALIKE: (_apart(ours), _apart(peer), "ms"),
            CPU: (fmean(ours_cpu), fmean(peer_cpu), "% of one core"),
        },
    )


@contextlib.contextmanager
def _targets(each: int, options: Sequence[str]) -> Iterator[list[children.DemoTarget]]:
    """As many targets with the agent as without it, the former first; and the exporter."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="talkscope-bench-")))
        # It polls nobody: that would be a cost of its own, on one side.
        polls = ["--target", f"http://127.0.0.1:{free_port()}"]
        exporter = stack.enter_context(children.exporter(polls, folder))
        options = ["--mode", "unified", "--llm-text", ANSWER, *options]
        kinds = [[*options, "--agent", exporter.url]] * each + [options] * each
        yield [
            stack.enter_context(children.demo_target(kind, folder / str(number), READY_S))
            for number, kind in enumerate(kinds)
        ]


# --- the time to first audio ---------------------------------------------------------------

Times = Sequence[Sequence[float]]
"""Milliseconds by target and round."""


def _times() -> tuple[Times, Times]:
    """With the agent and without it."""
    first = r"-----BEGIN.*?-----END [A-Z]+-----\n"
    with tempfile.NamedTemporaryFile("w", prefix="talkscope-bench-", suffix=".pem") as bundle:
        certificate = re.search(first, certifi.contents(), re.DOTALL)
        assert certificate is not None
        bundle.write(certificate[0])
        bundle.flush()
        knobs = [word for name, value in CALM.items() for word in (f"--{name}", str(value))]
        with _targets(EACH, [*knobs, "--ca-bundle", bundle.name]) as targets:
            times = asyncio.run(_take_turns(targets))
    return times[:EACH], times[EACH:]


async def _take_turns(targets: Sequence[children.DemoTarget]) -> Times:
    """All targets in a new order each round."""
    times: list[list[float]] = [[] for _ in targets]
    order = list(range(len(targets)))
    generator = random.Random(1)
    async with contextlib.AsyncExitStack() as stack:
        speakers = [await stack.enter_async_context(_speaker(target)) for target in targets]
        for _ in range(WARM_UP + ROUNDS):
            generator.shuffle(order)
            for number in order:
                times[number].append(await speakers[number].time_to_first_audio())
    return [of_one[WARM_UP:] for of_one in times]


@dataclass
class _Speaker:
    """A session that nobody watches."""

    client: OpenTalking
    session: str
    events: AsyncIterator[sse.Event]

    async def time_to_first_audio(self) -> float:
        """Of one turn, as the server says, in milliseconds."""
        found = None
        await self.client.speak(self.session, QUESTION)
        async for event in self.events:
            if event.name == EventName.SPEECH_TIMING:
                found = event.data[stages.TTFA.timing_field]
            elif event.name == EventName.SPEECH_ENDED:
                break
        assert found is not None
        return float(found)


@contextlib.asynccontextmanager
async def _speaker(target: children.DemoTarget) -> AsyncIterator[_Speaker]:
    facts = target.facts
    async with OpenTalking(target.url) as client:
        created = await client.create_session(avatar=facts["avatar"], model=facts["model"])
        async with asyncio.timeout(READY_S):
            while (await client.get_session(created.session))["state"] not in READY_STATES:
                await asyncio.sleep(0.05)
        async with client.events(created.session) as events:
            yield _Speaker(client, created.session, events)
        await client.delete(created.session)


def _pooled(times: Times) -> float:
    return median(ms for of_one in times for ms in of_one)


def _apart(times: Times) -> float:
    """How far targets of one kind are apart: what no number of turns takes away."""
    medians = [median(of_one) for of_one in times]
    return max(medians) - min(medians)


def _interval(ours: Times, peer: Times) -> tuple[float, float]:
    """95 % of the difference of medians, rounds drawn again (percentile bootstrap).

    A round is drawn whole, because what disturbs one of its turns may disturb the next.
    """
    generator = random.Random(1)
    found = []
    for _ in range(RESAMPLES):
        rounds = generator.choices(range(ROUNDS), k=ROUNDS)
        with_agent, without = (
            median(of_one[number] for of_one in times for number in rounds)
            for times in (ours, peer)
        )
        found.append(with_agent - without)
    found.sort()
    return found[round(0.025 * RESAMPLES)], found[round(0.975 * RESAMPLES) - 1]


# --- the processor's share -----------------------------------------------------------------


def _shares() -> tuple[Sequence[float], Sequence[float]]:
    """Per cent of a core in each session, with the agent and without it."""
    with _targets(1, []) as (with_agent, without):
        sides = _Watched(with_agent), _Watched(without)
        for number in range(SESSIONS):
            # Neither may always come first.
            for side in sides if number % 2 else reversed(sides):
                asyncio.run(side.hold_session())
    return sides[0].cpu_percent, sides[1].cpu_percent


class _Nothing:
    """Takes what the client sees and keeps none of it."""

    def send(self, record: Record) -> None:
        """See `loadgen.session`."""


@dataclass
class _Watched:
    """A target with one viewer at a time."""

    target: children.DemoTarget
    cpu_percent: list[float] = field(default_factory=list)

    async def hold_session(self) -> None:
        """A session with a warm-up turn and the measured ones."""
        facts: Mapping[str, str] = self.target.facts
        config = SessionConfig(model=facts["model"], avatar=facts["avatar"])
        async with (
            OpenTalking(self.target.url) as client,
            Session(client, config, _Nothing()) as session,
        ):
            await _turn(session)
            cpu, wall = self._cpu_seconds(), time.monotonic()
            for _ in range(TURNS):
                await _turn(session)
            used = self._cpu_seconds() - cpu
            self.cpu_percent.append(100 * used / (time.monotonic() - wall))

    def _cpu_seconds(self) -> float:
        pid = self.target.facts["opentalking"]["pid"]
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


async def _turn(session: Session) -> None:
    result = await session.turn(TextInput(QUESTION))
    if result.outcome is not Outcome.COMPLETED:
        raise RuntimeError(f"a turn ended as {result.outcome}")
