"""The target that a command measures: options in, where it is and how to look into it out.

A running deployment is named with --target; --start demo runs the real target on loopback for as
long as the command lasts.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkscope import children
from talkscope.demo import exporter_arguments
from talkscope.status import CommandError, Status


@dataclass(frozen=True, slots=True)
class MeasuredTarget:
    """Where to measure, and how to look into it."""

    url: str
    exporter: list[str]
    mode: str | None
    demo: dict[str, Any] | None
    """`target.json` of the demo target."""


def check_target(told: argparse.Namespace) -> None:
    """Raise CommandError when the options that choose the target contradict one another."""
    if bool(told.target) == bool(told.start):
        raise CommandError("give either --target URL or --start demo", Status.USAGE)
    if told.target and (told.mode or told.demo_options):
        raise CommandError("--mode and --demo-options go with --start demo", Status.USAGE)
    if told.start and (told.redis or told.log):
        raise CommandError("--redis and --log go with --target", Status.USAGE)
    if told.log is not None and not told.log.is_file():
        raise CommandError(f"--log {told.log} is not a file that can be read", Status.USAGE)


@contextlib.contextmanager
def measured_target(told: argparse.Namespace, out: Path) -> Iterator[MeasuredTarget]:
    """Yield the target, started first if that was asked for."""
    if told.start is None:
        arguments = ["--target", told.target]
        arguments += ["--redis", told.redis] if told.redis else []
        arguments += ["--log", str(told.log)] if told.log else []
        yield MeasuredTarget(told.target, arguments, None, None)
        return
    mode = told.mode or "unified"
    try:
        options = ["--mode", mode, *shlex.split(told.demo_options)]
    except ValueError as error:
        raise CommandError(f"--demo-options: {error}", Status.USAGE) from error
    if told.model:
        options += ["--model", told.model]
    baseline = _baseline(out)
    with children.demo_target(options, out / "target", told.timeout) as demo:
        yield MeasuredTarget(demo.url, [*exporter_arguments(demo), *baseline], mode, demo.facts)


def _baseline(out: Path) -> list[str]:
    """What is on the devices while the target does not run yet, as an exporter's arguments."""
    from exporter.accelerators import baseline

    file = out / "accelerator-baseline.json"
    return ["--accelerator-baseline", str(file)] if baseline.write(file) else []
