"""The single-session benchmark: a configuration in, `BenchResult` out.

It checks the target, opens one session, speaks a warm-up turn and the measured turns, and keeps
what the client itself saw, so that a run is usable without an exporter. It must not know how
anything is shown, nor files other than the speech it is given; starting the target and writing
a bundle are others' work.

`UsageError` is the caller's mistake, `RunFailedError` everything else that leaves nothing to
report. A run that breaks off later is a result with `failure` set.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from exporter.stages import Phase
from loadgen import audio
from loadgen.errors import TargetError
from loadgen.marks import MarkSink
from loadgen.media.peer import warm_up
from loadgen.media.tap import UnsupportedAiortcError, check_aiortc
from loadgen.opentalking import OpenTalking
from loadgen.result import TurnResult
from loadgen.session import Session, SessionConfig, SessionLimits, SessionReport
from loadgen.target import BenchError, RunFailedError, Target, UsageError, check
from loadgen.told import FirstTimestampsOf
from loadgen.turn import Input, TextInput

DEFAULT_PROMPT = "Please introduce yourself."
__all__ = [
    "BenchConfig",
    "BenchError",
    "BenchResult",
    "Progress",
    "RunFailedError",
    "Target",
    "UsageError",
    "run",
]

MAX_FAILURES = 3
"""Failed turns in a row that end a run."""


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to run. Unset `model` and `avatar` are the target's default and first one."""

    url: str
    model: str | None = None
    avatar: str | None = None
    prompt: str = DEFAULT_PROMPT
    audio: Path | None = None
    """A WAV file (16 kHz mono s16le) to speak instead of the prompt."""
    repeat: int = 3
    """Measured turns, after one warm-up turn."""
    pause: float = 1.0
    """Seconds between turns: OpenTalking flushes idle frames for up to a second after one."""
    addresses: tuple[str, ...] | None = None
    stun_urls: tuple[str, ...] = ()
    limits: SessionLimits = field(default_factory=SessionLimits)


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What the client saw of a run."""

    target: Target
    input: str
    started_unix: float
    ended_unix: float
    session: SessionReport
    turns: tuple[TurnResult, ...]
    failure: str | None
    """Why the run broke off, or None when every turn was spoken."""
    warnings: tuple[str, ...]
    """What went wrong beside the turns, such as a session that could not be deleted."""
    numbered: bool
    """The pictures carry the frame number that the synthetic runtime draws."""
    client: Mapping[str, str]
    """Versions of `python`, `aiortc` and `os`."""

    @property
    def measured(self) -> tuple[TurnResult, ...]:
        """The turns that count."""
        return tuple(t for t in self.turns if t.phase is Phase.MEASURED)

    @property
    def ok(self) -> bool:
        """Whether the run went to its end and every measured turn completed."""
        return self.failure is None and all(turn.ok for turn in self.measured)


class Progress(Protocol):
    """Hears how a run goes on; called between measurements, so it may write to a terminal."""

    def checked(self, target: Target) -> None:
        """The target answers and serves the model."""

    def queued(self, position: int, message: str) -> None:
        """The session waits for its place; `message` is the target's own word."""

    def opened(self, session: SessionReport) -> None:
        """The session is up and shows a picture."""

    def speaking(self, phase: Phase, number: int, total: int) -> None:
        """A turn of this phase is about to begin; `number` counts from 1."""

    def spoken(self, result: TurnResult) -> None:
        """That turn is over."""


async def run(
    config: BenchConfig,
    marks: MarkSink,
    progress: Progress,
    first_timestamps: FirstTimestampsOf | None = None,
) -> BenchResult:
    """Run the benchmark; `first_timestamps` is as in `Session`.

    Raises UsageError or RunFailedError; cancellation cleans up first.
    """
    said = _input_of(config)
    try:
        client = OpenTalking(config.url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    async with client:
        try:
            version = check_aiortc()
            target = await check(client, model=config.model, avatar=config.avatar)
            progress.checked(target)
            await warm_up()
            started_unix = time.time()
            session = Session(
                client,
                SessionConfig(
                    model=target.model,
                    avatar=target.avatar,
                    addresses=config.addresses,
                    stun_urls=config.stun_urls,
                    limits=config.limits,
                ),
                marks,
                on_queued=progress.queued,
                first_timestamps=first_timestamps,
            )
            turns: list[TurnResult] = []
            async with session:
                progress.opened(session.report)
                failure = await _speak(session, config, said, turns, progress)
        except (TargetError, UnsupportedAiortcError) as error:
            raise RunFailedError(str(error)) from error
    warnings = []
    if session.cleanup_error is not None:
        warnings.append(
            f"session {session.report.session} could not be deleted and may hold the target's "
            f"memory: {session.cleanup_error}"
        )
    return BenchResult(
        target=target,
        input=said.kind,
        started_unix=started_unix,
        ended_unix=time.time(),
        session=session.report,
        turns=tuple(turns),
        failure=failure,
        warnings=tuple(warnings),
        numbered=session.media.numbered,
        client={
            "python": platform.python_version(),
            "aiortc": version,
            "os": f"{platform.system()} {platform.machine()} {''.join(platform.libc_ver())}",
        },
    )


def _input_of(config: BenchConfig) -> Input:
    if config.repeat < 1:
        raise UsageError(f"{config.repeat} measured turns: a run needs at least one")
    if config.audio is not None:
        try:
            return audio.load(config.audio)
        except audio.AudioFileError as error:
            raise UsageError(str(error)) from error
    if not config.prompt.strip():
        raise UsageError("the prompt is empty")
    return TextInput(config.prompt)


async def _speak(
    session: Session,
    config: BenchConfig,
    said: Input,
    turns: list[TurnResult],
    progress: Progress,
) -> str | None:
    """Speak all turns into `turns`; return why the run broke off, or None."""
    plan = [(Phase.WARMUP, 1, 1)]
    plan += [(Phase.MEASURED, i, config.repeat) for i in range(1, config.repeat + 1)]
    failures = 0
    for phase, number, total in plan:
        if turns:
            await asyncio.sleep(config.pause)
        progress.speaking(phase, number, total)
        try:
            result = await session.turn(said, phase=phase)
        except TargetError as error:
            return f"the session died before turn {len(turns) + 1}: {error}"
        turns.append(result)
        progress.spoken(result)
        if session.trouble is not None:
            return f"the session died in turn {len(turns)}: {session.trouble}"
        failures = 0 if result.ok else failures + 1
        if failures == MAX_FAILURES:
            reason = result.error.message if result.error else result.outcome
            return f"{MAX_FAILURES} turns in a row failed, the last one: {reason}"
    return None
