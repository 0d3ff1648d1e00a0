"""Options of the load test beside Locust's own: a command line in, `Settings` out.

Locust hands the master's options to its workers, but files are read and checked once, where the
test is started, and travel as content (`Setup`). Addresses and ports are each process's own.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from loadgen import exporter_token
from loadgen.load.arrivals import ArrivalsError, parse
from loadgen.loopback import is_loopback
from loadgen.scenario import ScenarioError, Source

MAX_SESSIONS: Final = 500
MAX_RAMP: Final = 20.0
"""New sessions a second: a core connects 25 of them without the first frame suffering."""
TURN_TIMEOUT_S: Final = 180.0
GROUP: Final = "talkscope"


class SettingsError(ValueError):
    """An option cannot be used; the message names it and what is wanted."""


def add_arguments(parser: Any) -> None:
    """Add the options; variables are there for containers."""
    group = parser.add_argument_group(GROUP, "What the viewers of OpenTalking do. See docs/load.md")

    def add(flag: str, variable: str, **options: Any) -> None:
        action: Any = group.add_argument(flag, env_var=variable, **options)
        # The web page would show it as a text field, but most cannot change while it runs.
        action.include_in_web_ui = False

    add("--scenario", "TALKSCOPE_SCENARIO", metavar="FILE", help="YAML file of what viewers do")
    add("--model", "TALKSCOPE_MODEL", metavar="ID", help="default: the target's default model")
    add("--avatar", "TALKSCOPE_AVATAR", metavar="ID", help="default: the target's first avatar")
    add(
        "--arrivals",
        "TALKSCOPE_ARRIVALS",
        metavar="SPEC",
        help="open model: poisson:RATE (viewers a second), or a file with one instant a line in "
        "seconds from the start. Replaces --users and --spawn-rate",
    )
    add(
        "--max-sessions",
        "TALKSCOPE_MAX_SESSIONS",
        type=int,
        default=MAX_SESSIONS,
        metavar="N",
        help=f"sessions at once, all workers together ({MAX_SESSIONS})",
    )
    add(
        "--max-ramp",
        "TALKSCOPE_MAX_RAMP",
        type=float,
        default=MAX_RAMP,
        metavar="R",
        help=f"new sessions a second, all workers together ({MAX_RAMP:.0f})",
    )
    add(
        "--decode-fraction",
        "TALKSCOPE_DECODE_FRACTION",
        type=float,
        default=0.0,
        metavar="F",
        help="share of sessions, 0 to 1, that also decode their pictures, at ten times the cost "
        "(0)",
    )
    add(
        "--turn-timeout",
        "TALKSCOPE_TURN_TIMEOUT",
        type=float,
        default=TURN_TIMEOUT_S,
        metavar="S",
        help=f"longest wait for one answer, to the end of its playback ({TURN_TIMEOUT_S:.0f})",
    )
    add(
        "--allow-target",
        "TALKSCOPE_ALLOW_TARGET",
        action="append",
        metavar="HOST",
        help="the target's host must be one of these; required in CI (variable CI, or --ci) for "
        "any target that is not on loopback",
    )
    add("--ci", "TALKSCOPE_CI", action="store_true", help="behave as in CI: see --allow-target")
    add(
        "--exporter",
        "TALKSCOPE_EXPORTER",
        metavar="URL",
        help="exporter that gets every viewer's marks, so that one trace a turn reaches it",
    )
    add(
        exporter_token.FLAG,
        exporter_token.FILE_VARIABLE,
        metavar="FILE",
        help="file with the token that the exporter asks for, on every machine its own",
    )
    add(
        "--agent-exporter",
        "TALKSCOPE_AGENT_EXPORTER",
        metavar="URL",
        help="exporter that the agent inside OpenTalking reports to, if not the same",
    )
    add(
        "--records",
        "TALKSCOPE_RECORDS",
        metavar="DIR",
        help="new folder for the run's records and account (master, or single process)",
    )
    add(
        "--metrics-port",
        "TALKSCOPE_METRICS_PORT",
        type=int,
        default=0,
        metavar="PORT",
        help="serve Prometheus metrics here, further workers of the machine on the next free "
        "ports; 0: not at all (0)",
    )
    add(
        "--metrics-host",
        "TALKSCOPE_METRICS_HOST",
        default="127.0.0.1",
        metavar="IP",
        help="address to serve them on (127.0.0.1)",
    )
    add(
        "--candidate-address",
        "TALKSCOPE_CANDIDATE_ADDRESS",
        action="append",
        metavar="IP",
        help="address of this machine to offer for media, may be repeated (default: 127.0.0.1 for "
        "a loopback target, else every interface)",
    )
    add(
        "--stun",
        "TALKSCOPE_STUN",
        action="append",
        metavar="URL",
        help="STUN server (default: none)",
    )
    add("--seed", "TALKSCOPE_SEED", type=int, metavar="N", help="repeat the same random choices")


@dataclass(frozen=True, slots=True)
class Local:
    """What each process is told for itself."""

    addresses: tuple[str, ...] | None
    stun_urls: tuple[str, ...]
    metrics_host: str
    metrics_port: int
    exporter_token: str | None = field(repr=False)

    @classmethod
    def of(cls, told: Any) -> Self:
        """From the parsed command line, before Locust overwrites it with the master's.

        Raises SettingsError.
        """
        try:
            token = exporter_token.read(told.exporter_token_file, os.environ)
        except exporter_token.TokenError as error:
            raise SettingsError(str(error)) from error
        return cls(
            tuple(told.candidate_address) if told.candidate_address else None,
            tuple(told.stun or ()),
            told.metrics_host,
            told.metrics_port,
            token,
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is told where it is started, checked."""

    url: str
    source: Source
    model: str | None
    avatar: str | None
    arrivals: str | None
    max_sessions: int
    max_ramp: float
    decode_fraction: float
    turn_timeout: float
    exporter: str | None
    agent_exporter: str | None
    records: Path | None
    seed: int

    @classmethod
    def of(cls, host: str | None, told: Any) -> Self:
        """From Locust's `--host` and the parsed command line. Raises SettingsError."""
        url = _target(host, told)
        if told.max_sessions < 1:
            raise SettingsError(f"--max-sessions {told.max_sessions}: must be at least 1")
        if not told.max_ramp > 0:
            raise SettingsError(f"--max-ramp {told.max_ramp}: must be above 0")
        if not 0 <= told.decode_fraction <= 1:
            raise SettingsError(f"--decode-fraction {told.decode_fraction}: must be 0 to 1")
        if not told.turn_timeout > 0:
            raise SettingsError(f"--turn-timeout {told.turn_timeout}: must be above 0")
        seed = random.SystemRandom().randrange(2**32) if told.seed is None else told.seed
        try:
            source = Source.read(Path(told.scenario)) if told.scenario else Source.built_in()
            if told.arrivals:
                parse(told.arrivals, random.Random(seed))
        except (ScenarioError, ArrivalsError) as error:
            raise SettingsError(str(error)) from error
        users = getattr(told, "num_users", None)
        if not told.arrivals and users is not None and users > told.max_sessions:
            raise SettingsError(
                f"--users {users} is more than --max-sessions {told.max_sessions}; raise the "
                "limit if the target and the workers can bear it"
            )
        return cls(
            url=url,
            source=source,
            model=told.model,
            avatar=told.avatar,
            arrivals=told.arrivals or None,
            max_sessions=told.max_sessions,
            max_ramp=told.max_ramp,
            decode_fraction=told.decode_fraction,
            turn_timeout=told.turn_timeout,
            exporter=told.exporter,
            agent_exporter=told.agent_exporter or told.exporter,
            records=_new_folder(told.records),
            seed=seed,
        )


def _target(host: str | None, told: Any) -> str:
    if not host:
        raise SettingsError("name the target: --host http://127.0.0.1:8000")
    parts = urlsplit(host)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"--host {host!r} is not an http:// or https:// URL")
    allowed = told.allow_target or []
    in_ci = told.ci or os.environ.get("CI", "").lower() not in {"", "0", "false"}
    listed = parts.hostname in allowed or parts.netloc.rpartition("@")[2] in allowed
    if (allowed or (in_ci and not is_loopback(host))) and not listed:
        raise SettingsError(
            f"the target {parts.hostname} is not allowed"
            + (f"; --allow-target names {', '.join(allowed)}" if allowed else " in CI")
            + f". If it is meant to be loaded: --allow-target {parts.hostname}"
        )
    return host.rstrip("/")


def _new_folder(told: str | None) -> Path | None:
    if not told:
        return None
    folder = Path(told)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"--records {folder} is not empty; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--records {folder}: {error.strerror}") from error
    return folder


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is sent: everything that must be the same everywhere."""

    url: str
    name: str
    text: str
    files: Mapping[str, bytes]
    """The scenario file's name and content, and the audio that it names."""
    models: Mapping[str, str]
    avatars: Mapping[str, str]
    """Scenario → what its sessions ask for."""
    max_sessions: int
    max_ramp: float
    """This worker's share of the limits."""
    decode_fraction: float
    turn_timeout: float
    exporter: str | None
    agent_exporter: str | None
    open_model: bool
    seed: int

    @property
    def source(self) -> Source:
        """The scenario file."""
        return Source(self.name, self.text, self.files)

    def to_message(self) -> dict[str, Any]:
        """For Locust's messages."""
        return asdict(self)

    @classmethod
    def from_message(cls, content: Mapping[str, Any]) -> Self:
        """The setup again."""
        return cls(**content)
