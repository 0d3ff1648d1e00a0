"""What the exporter is told at start: flags and environment, validated.

What comes in: an argument list. What goes out: a `Config`. Each flag has a variable of the same
meaning, for containers; the flag wins.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_LISTEN = "127.0.0.1:9109"

EPILOG = """\
Unified mode publishes its events inside its own process; attach --log, or let a client relay
what it sees. Spans are sent when OTEL_EXPORTER_OTLP_ENDPOINT is set (all standard OTEL_*
variables are honoured).

examples:
  talkscope-exporter --target http://127.0.0.1:8000 --redis redis://127.0.0.1:6379/0
  talkscope-exporter --target http://127.0.0.1:8000 --log /var/log/opentalking/unified.log
"""


@dataclass(frozen=True, slots=True)
class Config:
    """Validated settings. `None` switches the part off."""

    target: str
    host: str
    port: int
    redis: str | None = None
    log: Path | None = None
    bundle: Path | None = None
    ready_file: Path | None = None
    target_just_started: bool = False


class ConfigError(ValueError):
    """A setting is wrong; the message names the flag and the fix."""


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Read flags and environment. Raises `ConfigError`; exits for `--help`."""
    env = os.environ
    parser = _Parser(
        prog="python -m exporter",
        description="Talkscope's sidecar: sees an OpenTalking deployment, assembles turns, and "
        "serves them as Prometheus metrics, OpenTelemetry spans and a run bundle.",
        epilog=EPILOG.replace("talkscope-exporter", "python -m exporter"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--target",
        default=env.get("OPENTALKING_URL"),
        metavar="URL",
        help="OpenTalking's base URL [OPENTALKING_URL]",
    )
    parser.add_argument(
        "--redis",
        default=env.get("REDIS_URL"),
        metavar="URL",
        help="the Redis of a split deployment [REDIS_URL]",
    )
    parser.add_argument(
        "--log",
        type=Path,
        default=env.get("TALKSCOPE_PIPELINE_LOG"),
        metavar="FILE",
        help="log of the process that runs the pipeline [TALKSCOPE_PIPELINE_LOG]",
    )
    parser.add_argument(
        "--listen",
        default=env.get("TALKSCOPE_LISTEN", DEFAULT_LISTEN),
        metavar="HOST:PORT",
        help=f"address to serve on, port 0 for any free one [TALKSCOPE_LISTEN, {DEFAULT_LISTEN}]",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="write a run bundle into this new folder"
    )
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help='write {"url": ..., "pid": ...} here once it serves',
    )
    parser.add_argument(
        "--target-just-started",
        action="store_true",
        help="the target has not spoken yet: its next turn is a cold one",
    )
    told = parser.parse_args(arguments)
    if not told.target:
        raise ConfigError("--target is missing: give OpenTalking's URL, or set OPENTALKING_URL")
    host, port = _listen(told.listen)
    return Config(
        target=_url("--target", told.target, {"http", "https"}),
        redis=_url("--redis", told.redis, {"redis", "rediss", "unix"}) if told.redis else None,
        log=Path(told.log) if told.log else None,
        host=host,
        port=port,
        bundle=told.bundle,
        ready_file=told.ready_file,
        target_just_started=told.target_just_started,
    )


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as `ConfigError`, so that the exit status is decided in one place."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(message)


def _url(flag: str, value: str, schemes: set[str]) -> str:
    parts = urlsplit(value)
    if parts.scheme not in schemes or not (parts.netloc or parts.path):
        wanted = " or ".join(f"{s}://" for s in sorted(schemes))
        raise ConfigError(f"{flag} {value!r} is not a URL that begins with {wanted}")
    return value


def _listen(value: str) -> tuple[str, int]:
    host, separator, port = value.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {value!r} is not HOST:PORT, such as {DEFAULT_LISTEN}")
    return host.strip("[]"), int(port)
