"""`talkscope`: reads the command line and hands over to the command.

Commands import what they need when they run, so that each works with the extra it needs alone.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from exporter import __version__
from talkscope import bench, compare, demo, doctor, history, load, probe, report
from talkscope.status import CommandError, Status

DESCRIPTION = """\
Observability and load testing for real-time talking heads: how fast OpenTalking answers, how
well lips and voice agree, and whether last night's change made it worse.
"""

EPILOG = """\
exit status:
  0 good   1 regression or failed run   2 not enough data   3 invalid run (the generator was the
  bottleneck)   64 wrong usage   130 interrupted

The sidecar itself is `python -m exporter --help`.
"""


class _Parser(argparse.ArgumentParser):
    """Ends wrong usage with the status of wrong usage; argparse's own, 2, means something else."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)", Status.USAGE)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="talkscope",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"talkscope {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (bench, load, probe, doctor, report, compare, history, demo):
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    name = "talkscope"
    try:
        told = build_parser().parse_args(arguments)
        name = f"talkscope {told.command}"
        return int(told.run(told))
    except CommandError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(f"{name}: interrupted; everything it started has been stopped", file=sys.stderr)
        return Status.INTERRUPTED
    except ModuleNotFoundError as error:
        extra = _EXTRA.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(
            f"{name}: {error.name} is not installed: pip install 'talkscope[{extra}]'",
            file=sys.stderr,
        )
        return Status.USAGE


_EXTRA = {
    "aiortc": "loadgen",
    "av": "loadgen",
    "gevent": "loadgen",
    "httpx_sse": "loadgen",
    "locust": "loadgen",
    "msgspec": "report",
    "numpy": "loadgen",
    "websockets": "loadgen",
    "yaml": "report",
    "fastapi": "exporter",
    "pynvml": "exporter",
    "redis": "exporter",
    "uvicorn": "exporter",
}


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM takes the way of Ctrl-C, so that sessions are deleted and children stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
