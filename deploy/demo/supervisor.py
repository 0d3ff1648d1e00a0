"""Runs the real target on loopback: OpenTalking and OmniRT, beside a stand-in provider.

What comes in: a command line. What goes out: running processes, their logs in `RUNDIR/logs`,
`RUNDIR/target.json` once all are ready, and one line `ready: URL (cold start N s)` on stdout;
progress goes to stderr. It then waits for SIGTERM, SIGINT or SIGHUP, for the end of stdin if asked
to, or for a child to die, and stops everything; with `--restart` a child that dies is started
again. It must not know what the target consists of (target.py and services.py do) nor how processes
live and die (processes.py does).

Exit status: 0 after a stop that was asked for, 1 if the target could not be started or did not
last, 64 for wrong usage.

Standard library only: it runs under any Python from 3.11, outside the target's environments.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import services
from knobs import KnobError, ProviderKnobs, RuntimeKnobs, add_arguments, from_arguments
from processes import ChildError, Crew, EndedError
from services import NotInstalledError, Settings
from target import Target, prepare, write_atomically

WRONG_USAGE = 64
STDIN = 0
END_OF_STDIN = "end of stdin"
DEFAULT_VENVS = services.HERE.parents[1] / "build" / "target"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """Somebody asked for the end; the message says how."""


class Progress:
    """Lines on stderr, each with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """Print one line."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {line}", file=sys.stderr, flush=True)


class Stop:
    """The wish to stop, from a signal or from the end of stdin. Wishing twice changes nothing."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wish: asyncio.Future[str] = self._loop.create_future()
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._ask, number.name)

    def on_stdin_eof(self) -> None:
        """Stop when stdin ends."""
        try:
            self._loop.add_reader(STDIN, self._read_stdin)
        except OSError:
            # It is closed, or a plain file or /dev/null, which the loop cannot watch: these end
            # at once.
            self._ask(END_OF_STDIN)

    async def until_asked(self) -> str:
        """Wait for the wish; return how it came."""
        return await asyncio.shield(self._wish)

    def _read_stdin(self) -> None:
        if not os.read(STDIN, 4096):
            self._loop.remove_reader(STDIN)
            self._ask(END_OF_STDIN)

    def _ask(self, how: str) -> None:
        if not self._wish.done():
            self._wish.set_result(how)


async def supervise(
    settings: Settings, timeout: float, *, stop_on_stdin_eof: bool, restart: bool
) -> None:
    """Run the target until somebody asks for the end.

    With `restart` a child that ends while the target runs is started again.

    Raises ChildError, NotInstalledError, or StoppedError if the end was asked for before all was
    ready; in every case nothing of the target is left running.
    """
    progress = Progress()
    stop = Stop()
    if stop_on_stdin_eof:
        stop.on_stdin_eof()
    async with Crew(settings.directory / "logs") as crew:
        target = Target(settings, crew, progress.say, timeout)
        try:
            await _unless_ended(target.start(), crew, stop)
            described = settings.directory / "target.json"
            write_atomically(described, target.describe())
            started, ready = target.cold_start
            print(f"ready: {target.url} (cold start {ready - started:.1f} s)", flush=True)
            with contextlib.suppress(StoppedError):
                while True:
                    try:
                        await _unless_ended(asyncio.Event().wait(), crew, stop)
                    except EndedError as end:
                        if not restart:
                            raise
                        await _unless_ended(target.replace(end.child), crew, stop)
                        write_atomically(described, target.describe())
        finally:
            progress.say("stopping")


async def _unless_ended(work: Coroutine[Any, Any, object], crew: Crew, stop: Stop) -> None:
    """Await `work`, but raise StoppedError or ChildError if one of those comes first."""
    working = asyncio.create_task(work)
    asked = asyncio.create_task(stop.until_asked())
    ended = asyncio.create_task(crew.until_one_ends())
    tasks = (working, asked, ended)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            raise StoppedError(asked.result())
        if ended.done():
            raise ended.result()
        working.result()
    finally:
        for task in tasks:
            task.cancel()
        # Nothing may still be starting when the crew is stopped.
        await asyncio.gather(*tasks, return_exceptions=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with the status of wrong usage; argparse's own, 2, means something else here."""
        self.print_usage(sys.stderr)
        self.exit(WRONG_USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="supervisor.py",
        description="Run the real OpenTalking and OmniRT on loopback, beside a stand-in provider.",
    )
    parser.add_argument("--mode", choices=("unified", "split"), required=True)
    parser.add_argument("--dir", type=Path, required=True, help="folder for this run's files")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_VENVS, help="made by install.py")
    parser.add_argument("--model", choices=services.MODELS, default="wav2lip")
    parser.add_argument("--width", type=_even(64, 1920), default=256, help="of the video, pixels")
    parser.add_argument("--height", type=_even(64, 1920), default=256, help="of the video, pixels")
    parser.add_argument("--fps", type=_whole(1, 60), default=25, help="of the video")
    parser.add_argument(
        "--benchmark-timing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="OpenTalking's speech.timing event",
    )
    parser.add_argument(
        "--listen",
        type=_listen,
        metavar="HOST:PORT",
        help="where OpenTalking answers HTTP, such as 0.0.0.0:8000 in a container (default: a free "
        "port of loopback); for WebRTC there is --media-address",
    )
    parser.add_argument(
        "--timeout", type=_whole(1, 3600), default=120, help="for each process to be ready, s"
    )
    parser.add_argument(
        "--stop-on-stdin-eof", action="store_true", help="stop when standard input ends"
    )
    parser.add_argument(
        "--restart", action="store_true", help="start a process that dies again, as a host would"
    )
    parser.add_argument(
        "--agent",
        metavar="URL",
        help="run OpenTalking's processes under Talkscope's agent, which reports to this exporter "
        "(with the token of TALKSCOPE_TOKEN or TALKSCOPE_TOKEN_FILE, if it asks for one)",
    )
    parser.add_argument(
        "--media-address",
        type=_addresses,
        default=(services.LOOPBACK,),
        metavar="HOST",
        help="offered for media: an IPv4 address, or a name that is looked up once. Another one "
        "than 127.0.0.1, the default, is for network namespaces and containers of this machine",
    )
    parser.add_argument(
        "--ca-bundle",
        type=_file,
        metavar="FILE",
        help="certificates that OpenTalking's HTTP clients trust. They read them for every request "
        "to the language model and the voice: certifi's take 20 ms of processor time (default)",
    )
    add_arguments(parser, ProviderKnobs)
    add_arguments(parser, RuntimeKnobs)
    return parser


def _listen(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    # All else would leave nothing on 127.0.0.1, where the supervisor itself looks.
    if host not in (services.LOOPBACK, "0.0.0.0"):
        raise argparse.ArgumentTypeError(f"HOST must be {services.LOOPBACK} or 0.0.0.0")
    return host, _whole(1, 65535)(port)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _addresses(text: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(text, None, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        reason = f"must be an IPv4 address, or a name that has one: {error}"
        raise argparse.ArgumentTypeError(reason) from None
    return tuple(sorted({str(address[0]) for *_, address in found}))


def _file(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return path


def _even(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = _whole(low, high)(text)
        if number % 2:
            raise argparse.ArgumentTypeError("must be even: VP8 stores colour at half resolution")
        return number

    return parse


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = _parser()
    options = parser.parse_args()
    try:
        settings = Settings(
            mode=options.mode,
            directory=options.dir.resolve(),
            venvs=options.venvs.resolve(),
            model=options.model,
            width=options.width,
            height=options.height,
            fps=options.fps,
            benchmark_timing=options.benchmark_timing,
            listen=options.listen,
            provider=from_arguments(ProviderKnobs, options),
            runtime=from_arguments(RuntimeKnobs, options),
            agent=options.agent,
            media_address=options.media_address,
            ca_bundle=options.ca_bundle,
        )
    except KnobError as error:
        parser.error(f"option --{error.knob.replace('_', '-')}: {error}")
    try:
        prepare(settings)
        asyncio.run(
            supervise(
                settings,
                options.timeout,
                stop_on_stdin_eof=options.stop_on_stdin_eof,
                restart=options.restart,
            )
        )
    except (ChildError, NotInstalledError) as error:
        return _failed(str(error))
    except StoppedError as error:
        return _failed(f"{error} before the target was ready; stopped")
    except KeyboardInterrupt:
        return _failed("SIGINT before anything was started")
    return 0


def _failed(message: str) -> int:
    print(f"supervisor.py: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
