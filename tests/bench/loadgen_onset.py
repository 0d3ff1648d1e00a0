"""How well the first talking frame is found without decoding, beside what the pictures show.

Sessions with the real OpenTalking and OmniRT decode their pictures and read the number that the
synthetic avatar draws: the truth. Every packet also goes to a second meter which is told nothing
of pictures, as in a load test.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple
from unittest import mock

from exporter.stages import Outcome
from loadgen.marks import NullSink
from loadgen.media.frames import Frame
from loadgen.media.meter import MediaMeter
from loadgen.media.onset import Basis, FirstTimestamps
from loadgen.media.packets import Packet
from loadgen.media.peer import warm_up
from loadgen.media.speech import Speech
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import TextInput
from talkscope import children
from tests.bench.measurement import Measurement
from tests.bench.receiving import percentile

NAME = "loadgen-onset"

WIDTH_HEIGHT_SESSIONS = ((256, 256, 5), (416, 704, 4))
TURNS = 23
"""Of each session."""
ANSWER = "Hello there, all."
PAUSES_S = (0.2, 0.6, 1.0, 2.0, 3.0)
"""Between turns: the encoder refines its still picture for a second or so after a speech."""
FRAME_MS = 40.0
LAG_S = 0.02
READY_S = 120.0
MISSED_MS = 10_000.0
"""Stands for the error of an onset that was not found."""


class Errors(NamedTuple):
    """Of one turn, in ms, `MISSED_MS` where nothing was found."""

    ours: float
    after_sound: float
    """Of the first picture at or after the first sound."""
    doubled: float
    """Of the first one twice as large as the mean of the second before the input."""
    basis: Basis


@dataclass
class Run:
    """All turns at one picture size."""

    size: str
    turns: list[Errors]
    untold: int
    """Turns whose pictures did not tell the truth either, or that failed."""
    lag_p99_ms: float
    seconds: float


class Onsets(Measurement):
    """Errors are often nothing: for the ratio they count as one millisecond at least."""

    @property
    def ratio(self) -> float:
        """How many times better than the peer."""
        return max(1.0, self.peer_value) / max(1.0, self.value)


class _Witness(MediaMeter):
    """A decoding session's meter with one beside it that never hears of a picture."""

    errors: list[Errors | None]

    def __init__(self, *, decoding: bool) -> None:
        super().__init__(decoding=decoding)
        self._blind = MediaMeter(decoding=False)
        self._input_at = 0.0

    def on_packet(self, packet: Packet) -> None:
        self._blind.on_packet(packet)
        super().on_packet(packet)

    def begin_turn(self, at: float) -> None:
        self._blind.begin_turn(at)
        self._input_at = at
        super().begin_turn(at)

    def end_turn(self, told: FirstTimestamps | None = None) -> Speech:
        guess, truth = self._blind.end_turn(), super().end_turn(told)
        at, begin = truth.first_talking_frame, self._input_at
        if at is None or truth.talking_basis is not Basis.DECODED_BARCODE:
            self.errors.append(None)
            return truth
        sound = self.first_audio or begin

        def error(found: float | None) -> float:
            return MISSED_MS if found is None else 1e3 * abs(found - at)

        frames = self._frames.all()
        usual = mean(f.size for f in frames if begin - 1 <= f.arrival < begin)
        doubled = _first(frames, lambda f: f.arrival >= begin and f.size >= 2 * usual)
        after_sound = _first(frames, lambda f: f.arrival >= sound)
        found = guess.first_talking_frame
        self.errors.append(
            Errors(error(found), error(after_sound), error(doubled), guess.talking_basis)
        )
        return truth


def _first(frames: Sequence[Frame], wanted: Callable[[Frame], bool]) -> float | None:
    return next((f.arrival for f in frames if wanted(f)), None)


async def _feel_lag(lags: list[float]) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(LAG_S)
        lags.append(time.monotonic() - began - LAG_S)


async def _converse(client: OpenTalking, config: SessionConfig, seed: int, turns: int) -> int:
    """Hold one session; return how many of its turns failed."""
    pauses = random.Random(seed)
    failed = 0
    async with Session(client, config, NullSink()) as session:
        for _ in range(turns):
            await asyncio.sleep(pauses.choice(PAUSES_S))
            result = await session.turn(TextInput("How are you?"))
            failed += result.outcome is not Outcome.COMPLETED
    return failed


async def _hold(target: children.DemoTarget, sessions: int, turns: int) -> tuple[int, float]:
    """All sessions at once; return their failed turns and the p99 of the loop's lag in ms."""
    facts = target.facts
    config = SessionConfig(model=facts["model"], avatar=facts["avatar"])
    await warm_up()
    lags: list[float] = []
    feeling = asyncio.create_task(_feel_lag(lags))
    try:
        async with OpenTalking(target.url) as client:
            talks = [_converse(client, config, seed, turns) for seed in range(sessions)]
            failed = sum(await asyncio.gather(*talks))
    finally:
        feeling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeling
    return failed, 1e3 * percentile(lags, 0.99)


def talk(width: int, height: int, sessions: int, turns: int) -> Run:
    """Hold sessions with a target of that picture size."""
    size, errors = f"{width}×{height}", list[Errors | None]()
    options = ["--mode", "unified", "--llm-text", ANSWER]
    options += ["--width", str(width), "--height", str(height)]
    with (
        tempfile.TemporaryDirectory(prefix="talkscope-bench-") as folder,
        children.demo_target(
            options,
            Path(folder) / "target",
            READY_S,
        ) as target,
        mock.patch("loadgen.session.MediaMeter", type("Witness", (_Witness,), {"errors": errors})),
    ):
        began = time.monotonic()
        failed, lag = asyncio.run(_hold(target, sessions, turns))
    found = [e for e in errors if e is not None]
    run = Run(size, found, len(errors) - len(found) + failed, lag, time.monotonic() - began)
    print(f"{size}: {_row(run)}", flush=True)
    return run


def _row(run: Run) -> str:
    bases = Counter(str(e.basis) for e in run.turns)
    ours = [e.ours for e in run.turns]
    return (
        f"{len(ours)} turns in {run.seconds:.0f} s, {run.untold} untold; error p95 "
        f"{percentile(ours, 0.95):.1f} ms, worst {max(ours):.1f} ms; "
        + ", ".join(f"{count} by {basis}" for basis, count in bases.most_common())
        + f"; event loop's lag p99 {run.lag_p99_ms:.1f} ms"
    )


def run() -> Measurement:
    """Speak some 200 turns at two picture sizes and compare."""
    runs = [talk(*shape, TURNS) for shape in WIDTH_HEIGHT_SESSIONS]
    turns = [turn for run in runs for turn in run.turns]

    def figures(name: str, statistic: Callable[[Sequence[float]], float], unit: str) -> None:
        rows[name] = (
            statistic([t.ours for t in turns]),
            statistic([t.after_sound for t in turns]),
            unit,
        )

    rows: dict[str, tuple[float, float, str]] = {}
    figures("error, median", median, "ms")
    figures("error, p99", lambda e: percentile(e, 0.99), "ms")
    figures("onsets within a frame", lambda e: 100 * mean(x <= FRAME_MS for x in e), "%")
    figures("the very frame", lambda e: 100 * mean(x < 1.0 for x in e), "%")
    figures("missed", lambda e: float(sum(x == MISSED_MS for x in e)), "turns")
    doubled = [t.doubled for t in turns]
    sized = [t.ours for t in turns if t.basis is Basis.FRAME_SIZES]
    return Onsets(
        name=NAME,
        value=percentile([t.ours for t in turns], 0.95),
        unit="ms, error of the first talking frame, p95",
        better="lower",
        peer="the first picture at or after the first sound",
        peer_value=percentile([t.after_sound for t in turns], 0.95),
        conditions={
            "truth": "the synthetic avatar's frame numbers, decoded in the same sessions",
            "ours": "a meter that is given the same packets and no picture",
            "target": "real OpenTalking (unified) and OmniRT, synthetic runtime, loopback",
            "turns": f"{len(turns)}, {PAUSES_S[0]} to {PAUSES_S[-1]} s apart",
            **{run.size: _row(run) for run in runs},
            "another naive one": "first picture twice as large as usual: p95 "
            f"{percentile(doubled, 0.95):.0f} ms, "
            f"{100 * mean(x <= FRAME_MS for x in doubled):.1f} % within a frame",
            "found by frame sizes alone": f"{len(sized)}, p95 {percentile(sized, 0.95):.1f} ms, "
            f"{100 * mean(x <= FRAME_MS for x in sized):.1f} % within a frame",
            "missed": f"counts as {MISSED_MS:.0f} ms",
        },
        figures=rows,
    )
