"""`talkscope bench`: the benchmark page's end-to-end run, from options to the filled template."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkscope import options, report, run_file
from talkscope.arguments import new_folder, positive, seconds
from talkscope.measured import (
    MeasuredTarget,
    check_target,
    exporter_token,
    measured_target,
    run_exporter,
)
from talkscope.status import CommandError, Status

if TYPE_CHECKING:
    from loadgen.bench import BenchResult
    from loadgen.marks import Delivery

DESCRIPTION = """\
Opens one WebRTC session, speaks a warm-up turn and then the measured turns, and fills
OpenTalking's standard result template. Warm-up and measured turns are never averaged together.

Writes into --out: report.md, result.json, result.csv, the run bundle (bundle/) and its .tar.gz.
"""

EPILOG = """\
examples:
  talkscope bench --start demo
  talkscope bench --target http://127.0.0.1:8000 --model quicktalk --repeat 20 --tester me \\
      --redis redis://127.0.0.1:6379/0
  talkscope bench --target http://127.0.0.1:8000 --audio question.wav --log unified.log

Without --redis (split mode) or --log (unified mode) the stages of the LLM and TTS cannot be seen;
`talkscope doctor` says what each deployment shows.
"""

ACCELERATOR_INTERVAL_S = 0.2
"""5 Hz: a peak shorter than that is missed, and OpenTalking's chunks take longer."""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "bench",
        help="measure one session end to end and fill the result template",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to measure")
    options.target(
        what,
        "start the real target on loopback with a synthetic model, and measure its cold start",
    )
    said = what.add_mutually_exclusive_group()
    said.add_argument("--prompt", metavar="TEXT", help="what the user types (has a default)")
    said.add_argument(
        "--audio", type=Path, metavar="WAV", help="what the user says: 16 kHz mono s16le"
    )
    what.add_argument(
        "--repeat", type=positive, default=10, metavar="N", help="measured turns (%(default)s)"
    )
    what.add_argument(
        "--timeout",
        type=seconds,
        default=300.0,
        metavar="S",
        help="longest wait for any one step: target, session or turn (%(default).0f)",
    )
    see = parser.add_argument_group("how to see into the target")
    options.sight(see)
    options.media(see)
    page = parser.add_argument_group("what the report should say")
    page.add_argument("--backend", metavar="NAME", help="default: as the target lists it")
    page.add_argument("--tester", metavar="NAME")
    page.add_argument("--gpu-index", type=int, metavar="N", help="which device the target uses")
    page.add_argument("--opentalking-commit", metavar="HASH")
    page.add_argument("--backend-commit", metavar="HASH")
    page.add_argument("--weights", metavar="TEXT", help="version of the model's weights")
    page.add_argument("--quantization", metavar="TEXT", help="such as fp16 or int8")
    page.add_argument("--caching", metavar="TEXT", help="such as 'avatars prewarmed, 1 worker'")
    page.add_argument("--technique", metavar="TEXT", help="such as 'mouth inpainting'")
    page.add_argument("--input", metavar="TEXT", help="the Input column, such as 'audio+image'")
    page.add_argument("--notes", metavar="TEXT")
    options.out(parser)
    options.demo(parser)
    parser.set_defaults(run=run)


def run(told: argparse.Namespace) -> Status:
    """Run the benchmark and print its report."""
    check_target(told)
    out = new_folder(told.out)
    bundle = out / "bundle"
    try:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(measured_target(told, out))
            arguments = [*target.exporter, "--bundle", str(bundle)]
            arguments += ["--accelerator-interval", str(ACCELERATOR_INTERVAL_S)]
            with run_exporter(told, target, arguments, out) as url:
                result, delivery = asyncio.run(_measure(told, target, url))
                _write_run(bundle, told, target, result)
    except BaseException as error:
        # Nothing was measured: what is left would only be taken for a run.
        if not _has_turns(bundle):
            keep_logs = isinstance(error, CommandError) and error.names_logs
            shutil.rmtree(bundle if keep_logs else out, ignore_errors=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    for warning in (*result.warnings, *_undelivered(delivery)):
        print(f"warning: {warning}", file=sys.stderr)
    status = report.make(bundle, out)
    if result.failure is not None:
        print(f"talkscope bench: the run broke off: {result.failure}", file=sys.stderr)
        return Status.FAILED
    return status


async def _measure(
    told: argparse.Namespace, target: MeasuredTarget, exporter_url: str
) -> tuple[BenchResult, Delivery]:
    from loadgen import bench
    from loadgen.marks import MarksClient
    from loadgen.session import SessionLimits
    from loadgen.told import AgentTimestamps
    from loadgen.turn import TurnLimits

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    usual = SessionLimits()
    config = bench.BenchConfig(
        url=target.url,
        model=told.model,
        avatar=told.avatar,
        prompt=_prompt(told),
        audio=told.audio,
        repeat=told.repeat,
        addresses=tuple(told.candidate_address) if told.candidate_address else None,
        stun_urls=tuple(told.stun or ()),
        limits=SessionLimits(
            create=min(usual.create, told.timeout),
            ready=told.timeout,
            offer=min(usual.offer, told.timeout),
            turn=TurnLimits(turn=told.timeout),
        ),
    )
    try:
        async with (
            MarksClient(exporter_url, token=exporter_token(told)) as marks,
            AgentTimestamps(told.agent_exporter or exporter_url) as first_timestamps,
        ):
            result = await bench.run(config, marks, _Lines(), first_timestamps)
        return result, marks.delivery
    except bench.UsageError as error:
        raise CommandError(str(error), Status.USAGE) from error
    except bench.BenchError as error:
        raise CommandError(str(error)) from error
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _write_run(
    bundle: Path, told: argparse.Namespace, target: MeasuredTarget, result: BenchResult
) -> None:
    """Write `run.json` beside the exporter's files, before it seals them."""
    demo = target.demo
    stand_ins = _stand_ins(target, result)
    run_file.write(
        bundle,
        "bench",
        started_unix=result.started_unix,
        target=result.target.url,
        mode=target.mode,
        model=result.target.model,
        backend=told.backend or result.target.backend,
        avatar=result.target.avatar,
        tester=told.tester,
        gpu_index=told.gpu_index,
        input=told.input or result.input,
        prompt=None if told.audio else _prompt(told),
        audio=str(told.audio) if told.audio else None,
        repeat=told.repeat,
        opentalking_commit=told.opentalking_commit,
        backend_commit=told.backend_commit,
        weights=told.weights or (run_file.DEMO_WEIGHTS if demo else None),
        quantization=told.quantization,
        caching=told.caching,
        technique=told.technique or (run_file.DEMO_TECHNIQUE if demo else None),
        notes=told.notes,
        stand_ins=stand_ins,
        synthetic=bool(stand_ins),
        **run_file.of_demo(demo),
        client=dict(result.client),
    )


def _prompt(told: argparse.Namespace) -> str:
    from loadgen.bench import DEFAULT_PROMPT

    return DEFAULT_PROMPT if told.prompt is None else str(told.prompt)


def _stand_ins(target: MeasuredTarget, result: BenchResult) -> list[str]:
    """What was not real. A synthetic model betrays itself by the frame number it draws."""
    if target.demo is not None:
        return list(run_file.DEMO_STAND_INS)
    if result.numbered:
        return ["the model: the pictures carry the frame number of Talkscope's synthetic runtime"]
    return []


def _has_turns(bundle: Path) -> bool:
    turns = bundle / "turns.jsonl"
    return turns.exists() and turns.stat().st_size > 0


def _undelivered(delivery: Delivery) -> list[str]:
    if not delivery.lost:
        return []
    return [f"{delivery.lost} records did not reach the exporter; the report lacks them"]


class _Lines:
    """Progress on stderr, one line a step with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def checked(self, target: Any) -> None:
        self._say(f"target: {target.model} on {target.backend}, avatar {target.avatar}")

    def queued(self, position: int, message: str) -> None:
        self._say(f"session: queued at position {position} ({message})")

    def opened(self, session: Any) -> None:
        values = ", ".join(f"{key} {value:.0f}" for key, value in session.values().items())
        self._say(f"session: connected ({values})")

    def speaking(self, phase: str, number: int, total: int) -> None:
        self._say(f"{phase} turn {number} of {total}: …")

    def spoken(self, result: Any) -> None:
        from exporter import stages

        shown = (stages.PERCEIVED_TTFA, stages.PERCEIVED_TTFV, stages.PLAYBACK_FPS, stages.AV_DRIFT)
        values = result.values()
        text = ", ".join(f"{s.key} {values[s.key]:.1f}" for s in shown if s.key in values)
        if result.error is not None:
            text = f"{result.error.message} ({result.error.code})"
        self._say(f"{result.phase} turn: {result.outcome}{', ' if text else ''}{text}")

    def _say(self, line: str) -> None:
        elapsed = time.monotonic() - self._started
        print(f"[{elapsed:6.1f} s] {line}", file=sys.stderr, flush=True)
