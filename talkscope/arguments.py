"""Types of command-line values: text in, a checked value out, or what is wrong with it."""

from __future__ import annotations

import argparse
import math
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from talkscope.status import CommandError, Status


def http_url(text: str) -> str:
    """The base URL of a web service."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// or https:// URL")
    return text.rstrip("/")


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """A duration from a second to a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= 86_400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 86400")
    return value


def new_folder(wanted: Path | None) -> Path:
    """Make and return the folder of a run's results. Raises CommandError if it is in use."""
    out = wanted or Path(f"talkscope-run-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise CommandError(f"--out {out} is not empty; name a new folder", Status.USAGE)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--out {out}: {error.strerror}", Status.USAGE) from error
    return out.resolve()


def instant(text: str) -> float:
    """A point in time as seconds since the Unix epoch; ISO 8601 without an offset is UTC."""
    try:
        value = float(text)
    except ValueError:
        try:
            told = datetime.fromisoformat(text)
        except ValueError:
            value = math.nan
        else:
            value = (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    if not 0.0 <= value <= 253_402_214_400.0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: give 2026-05-20T10:00Z or seconds since 1970"
        )
    return value


def min_change(text: str) -> tuple[float, bool]:
    """A least change: (0.05, True) for `5%`, (50.0, False) for `50ms` or `50`."""
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%").removesuffix("ms"))
    except ValueError:
        value = 0.0
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a share such as 5% nor 50ms")
    return (value / 100.0, True) if relative else (value, False)
