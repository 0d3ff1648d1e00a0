"""`talkscope probe`: one synthetic viewer, for ever, from options to marks and a few counts."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from datetime import UTC, datetime
from typing import Any

from talkscope import options
from talkscope.arguments import http_url, positive
from talkscope.measured import exporter_token
from talkscope.status import CommandError, Status

DESCRIPTION = """\
Speaks a short turn at every interval, as a viewer would, until it is stopped: so that quiet hours
are measured too and a bad change is seen before the first user feels it. What it feels goes to the
exporter, and from there into the same metrics and traces as any viewer's; whether it gets answers
at all it serves itself (--listen): talkscope_probe_turns_total by outcome.
"""

EPILOG = """\
examples:
  talkscope probe --target http://127.0.0.1:8000 --exporter http://127.0.0.1:9109
  talkscope probe --target http://opentalking:8000 --exporter http://exporter:9109 --every 60 \\
      --listen 0.0.0.0:9110

A target that is down does not end it. Exit status: 130 stopped, 64 wrong usage.
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "probe",
        help="be one viewer for ever, so that quiet hours are measured too",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--target", type=http_url, required=True, metavar="URL", help="base URL of OpenTalking"
    )
    parser.add_argument(
        "--exporter", type=http_url, required=True, metavar="URL", help="where its marks go"
    )
    parser.add_argument(
        "--agent-exporter",
        type=http_url,
        metavar="URL",
        help="exporter that the agent inside OpenTalking reports to, if it is another",
    )
    options.token(parser)
    options.session(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="what it types (has a default)")
    parser.add_argument(
        "--every",
        type=interval,
        default=15.0,
        metavar="S",
        help="seconds from one turn to the next, such as 15 or 15s (%(default).0f)",
    )
    parser.add_argument(
        "--turns",
        type=positive,
        default=40,
        metavar="N",
        help="turns of a session before it is renewed (%(default)s)",
    )
    parser.add_argument(
        "--listen",
        type=address,
        metavar="HOST:PORT",
        default=("127.0.0.1", 9110),
        help="where it serves its own metrics (127.0.0.1:9110)",
    )
    options.media(parser)
    parser.set_defaults(run=run)


def interval(text: str) -> float:
    """Seconds from a second to an hour, `s` or not."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 3600")
    return value


def address(text: str) -> tuple[str, int]:
    """HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9110")
    return host, int(port)


def run(told: argparse.Namespace) -> Status:
    """Probe until stopped."""
    from prometheus_client import start_http_server

    from loadgen.probe import ProbeConfig, ProbeMetrics

    usual = ProbeConfig(told.target)
    config = ProbeConfig(
        told.target,
        # Compose passes an unset variable as an empty text.
        model=told.model or None,
        avatar=told.avatar or None,
        prompt=told.prompt or usual.prompt,
        every=told.every,
        turns=told.turns,
        addresses=tuple(told.candidate_address) if told.candidate_address else None,
        stun_urls=tuple(told.stun or ()),
    )
    metrics = ProbeMetrics()
    host, port = told.listen
    try:
        server, _ = start_http_server(port, host, registry=metrics.registry)
    except OSError as error:
        raise CommandError(f"--listen {host}:{port}: {error.strerror or error}") from error
    try:
        asyncio.run(_run(told, config, metrics, server.server_port))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        server.shutdown()
    return Status.GOOD


async def _run(told: argparse.Namespace, config: Any, metrics: Any, port: int) -> None:
    from loadgen.marks import MarksClient
    from loadgen.probe import Probe
    from loadgen.told import AgentTimestamps

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    _say(f"probing {config.url} every {config.every:g} s; metrics on {told.listen[0]}:{port}")
    async with (
        MarksClient(told.exporter, role="probe", token=exporter_token(told)) as marks,
        AgentTimestamps(told.agent_exporter or told.exporter) as first_timestamps,
    ):
        await Probe(config, marks, metrics, _say, first_timestamps).run()


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", file=sys.stderr, flush=True)
