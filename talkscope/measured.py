"""The target that a command measures: options in, where it is and how to look into it out.

A running deployment is named with --target; --start demo runs the real target on loopback for as
long as the command lasts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
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
    listen: str
    """Where the run's exporter must serve."""


def check_target(told: argparse.Namespace) -> None:
    """Raise CommandError when the options that choose the target contradict one another."""
    if bool(told.target) == bool(told.start):
        raise CommandError("give either --target URL or --start demo", Status.USAGE)
    if told.target and (told.mode or told.agent or told.demo_options):
        raise CommandError("--mode, --agent and --demo-options go with --start demo", Status.USAGE)
    token = exporter_token(told)
    if told.agent and token is not None:
        raise CommandError("the demo target's agent sends no token", Status.USAGE)
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
        yield MeasuredTarget(told.target, arguments, None, None, told.exporter_listen)
        return
    mode = told.mode or "unified"
    try:
        options = ["--mode", mode, *shlex.split(told.demo_options)]
    except ValueError as error:
        raise CommandError(f"--demo-options: {error}", Status.USAGE) from error
    listen = told.exporter_listen
    if told.agent:
        # The agent must know the exporter, which is started later.
        listen = children.with_port(listen)
        options += ["--agent", f"http://{listen}"]
    if told.model:
        options += ["--model", told.model]
    baseline = _baseline(out)
    with children.demo_target(options, out / "target", told.timeout) as demo:
        arguments = [*exporter_arguments(demo), *baseline]
        yield MeasuredTarget(demo.url, arguments, mode, demo.facts, listen)


def exporter_token(told: argparse.Namespace) -> str | None:
    """The token of the exporter that gets the marks, if one is told. Raises CommandError."""
    from loadgen.exporter_token import TokenError, read

    try:
        return read(told.exporter_token_file, os.environ)
    except TokenError as error:
        raise CommandError(str(error), Status.USAGE) from error


@contextlib.contextmanager
def run_exporter(
    told: argparse.Namespace, target: MeasuredTarget, arguments: Sequence[str], out: Path
) -> Iterator[str]:
    """Run the run's own exporter; yields its URL. It asks for the token, if there is one."""
    token = exporter_token(told)
    with children.exporter(arguments, out, listen=target.listen, token=token) as exporter:
        yield exporter.url


def _baseline(out: Path) -> list[str]:
    """What is on the devices while the target does not run yet, as an exporter's arguments."""
    from exporter.accelerators import baseline

    file = out / "accelerator-baseline.json"
    return ["--accelerator-baseline", str(file)] if baseline.write(file) else []
