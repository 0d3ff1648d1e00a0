"""What the agent is told: environment variables in, `Settings` out.

It must not know what the settings are used for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

EXPORTER: Final = "TALKSCOPE_EXPORTER"
QUEUE: Final = "TALKSCOPE_AGENT_QUEUE"
TOKEN: Final = "TALKSCOPE_TOKEN"
TOKEN_FILE: Final = "TALKSCOPE_TOKEN_FILE"

DEFAULT_QUEUE: Final = 10_000


class SettingsError(ValueError):
    """The environment does not say, or says wrongly, how to reach the exporter."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to send, and how much to keep while that is not possible."""

    exporter: str
    queue: int = DEFAULT_QUEUE
    token: str | None = None


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings; raises `SettingsError`, which names the variable."""
    url = environment.get(EXPORTER, "").rstrip("/")
    if not url:
        raise SettingsError(f"{EXPORTER} is not set: the URL of the exporter")
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname)
        # Reading the port checks it.
        well_formed = well_formed and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise SettingsError(f"{EXPORTER}={url!r} is not an http or https URL")
    queue = environment.get(QUEUE, "") or str(DEFAULT_QUEUE)
    if not queue.isdecimal() or int(queue) < 1:
        raise SettingsError(f"{QUEUE}={queue!r} is not a whole number of at least 1")
    return Settings(url, int(queue), _token(environment))


def _token(environment: Mapping[str, str]) -> str | None:
    told, named = environment.get(TOKEN), environment.get(TOKEN_FILE)
    if not named:
        return _usable(TOKEN, told) if told else None
    if told:
        raise SettingsError(f"{TOKEN} and {TOKEN_FILE} are both set; give one of them")
    try:
        token = Path(named).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{TOKEN_FILE}: cannot read {named}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{TOKEN_FILE}: {named} is not UTF-8 text") from error
    if not token:
        raise SettingsError(f"{TOKEN_FILE}: {named} is empty; write the token into it")
    return _usable(f"{TOKEN_FILE}: {named}", token)


def _usable(where: str, token: str) -> str:
    if not re.fullmatch(r"[!-~]+", token):
        reason = "a token is printable ASCII without spaces, to fit in a header"
        raise SettingsError(f"{where}: {reason}")
    return token
