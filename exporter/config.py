"""What the exporter is told: flags, environment and a YAML file, validated.

What comes in: an argument list. What goes out: a `Config`. Every setting is one entry of
`SETTINGS`, from which flags, variables, keys of the file, help and reference table follow.
A flag wins over a variable, a variable over the file, the file over the default. What may be a
secret can also come from a file of its own, as container platforms hand secrets over.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import yaml

from exporter.accelerators import baseline
from exporter.accelerators.groups import KINDS, Selector, SelectorError, parse_selector
from exporter.sources.redis_bus import without_password
from exporter.turns import TURN_LIMIT_S

DEFAULT_LISTEN: Final = "127.0.0.1:9109"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")

CONFIG_VARIABLE: Final = "TALKSCOPE_CONFIG"

EPILOG = """\
Unified mode publishes its events inside its own process; attach --log, or let a client relay
what it sees. Spans are sent when OTEL_EXPORTER_OTLP_ENDPOINT is set (all standard OTEL_*
variables are honoured).

A flag wins over its variable, a variable over the file. SIGHUP reads the file again.

examples:
  python -m exporter --target http://127.0.0.1:8000 --redis redis://127.0.0.1:6379/0
  python -m exporter --target http://127.0.0.1:8000 --log /var/log/opentalking/unified.log
  python -m exporter --config /etc/talkscope/exporter.yaml
"""


@dataclass(frozen=True, slots=True)
class Config:
    """Validated settings, one field for each entry of `SETTINGS`. `None` switches the part off."""

    target: str
    listen: tuple[str, int]
    redis: str | None = field(repr=False)
    omnirt: tuple[str, ...]
    omnirt_api_key: str | None = field(repr=False)
    npu_exporter: str | None
    log: Path | None
    log_command: tuple[str, ...] | None
    bundle: Path | None
    ready_file: Path | None
    target_just_started: bool
    poll_interval: float
    queue_poll_interval: float
    turn_timeout: float
    accelerator_interval: float
    accelerator_baseline: Mapping[str, float] | None
    opentalking_processes: tuple[Selector, ...]
    omnirt_processes: tuple[Selector, ...]
    trust_accelerator_pids: bool
    ingest_token: str | None = field(repr=False)
    cors_origins: tuple[str, ...]
    ingest_rate: float
    ingest_burst: int
    log_level: str
    log_format: str
    file: Path | None
    """The YAML file that some of it was read from."""

    @property
    def follows_log(self) -> bool:
        """Whether the pipeline's log is read, from a file or from a command."""
        return self.log is not None or self.log_command is not None


class ConfigError(ValueError):
    """A setting is wrong; the message names the setting and the fix."""


def _url(name: str, told: object, schemes: set[str]) -> SplitResult:
    text = _text(name, told)
    wanted = " or ".join(f"{s}://" for s in sorted(schemes))
    problem = ConfigError(
        f"{name} {without_password(text)!r} is not a URL that begins with {wanted}"
    )
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 (raises for a port that is none)
    except ValueError:
        raise problem from None
    if parts.scheme not in schemes or not (parts.netloc or parts.path):
        raise problem
    return parts


def _http_url(name: str, told: object) -> str:
    return _url(name, told, {"http", "https"}).geturl()


def _redis_url(name: str, told: object) -> str:
    parts = _url(name, told, {"redis", "rediss", "unix"})
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdigit():
        raise ConfigError(f"{name}: database {database!r} is not a number, such as in …:6379/0")
    return parts.geturl()


def _backend_urls(name: str, told: object) -> tuple[str, ...]:
    urls = tuple(_http_url(name, item) for item in _items(name, told))
    instances = [urlsplit(url).netloc.rpartition("@")[2] for url in urls]
    for instance in instances:
        if instances.count(instance) > 1:
            raise ConfigError(f"{name} names {instance} twice; its metrics would count double")
    return urls


def _listen(name: str, told: object) -> tuple[str, int]:
    text = _text(name, told)
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{name} {text!r} is not HOST:PORT, such as {DEFAULT_LISTEN}")
    return host.strip("[]"), int(port)


def _path(name: str, told: object) -> Path:
    return Path(_text(name, told))


def _command(name: str, told: object) -> tuple[str, ...]:
    if isinstance(told, list):
        words = tuple(_text(name, word) for word in told)
    else:
        try:
            words = tuple(shlex.split(_text(name, told)))
        except ValueError as error:
            raise ConfigError(f"{name} {told!r} is not a command: {error}") from None
    if not words:
        raise ConfigError(f"{name} is empty; give a command, or leave the setting out")
    return words


def _secret(name: str, told: object) -> str:
    text = _text(name, told)
    if not re.fullmatch(r"[!-~]+", text):
        raise ConfigError(f"{name} must be printable ASCII without spaces, to fit in a header")
    return text


def _origins(name: str, told: object) -> tuple[str, ...]:
    origins = tuple(_text(name, item) for item in _items(name, told))
    for origin in origins:
        parts = _url(name, origin, {"http", "https"})
        if f"{parts.scheme}://{parts.netloc}" != origin:
            raise ConfigError(f"{name} {origin!r} is not an origin: scheme, host and port alone")
    return origins


def _seconds(name: str, told: object) -> float:
    value = _number(name, told)
    if not 0.1 <= value <= 3600:
        raise ConfigError(f"{name} {told!r} is not a number of seconds from 0.1 to 3600")
    return value


def _selectors(name: str, told: object) -> tuple[Selector, ...]:
    try:
        return tuple(parse_selector(_text(name, item)) for item in _items(name, told))
    except SelectorError as error:
        raise ConfigError(f"{name}: {error}") from None


def _baseline(name: str, told: object) -> Mapping[str, float]:
    try:
        return baseline.read(_path(name, told))
    except baseline.BaselineError as error:
        raise ConfigError(f"{name}: {error}") from None


def _rate(name: str, told: object) -> float:
    value = _number(name, told)
    if value < 0:
        raise ConfigError(f"{name} {told!r} is negative; 0 means no limit")
    return value


def _count(name: str, told: object) -> int:
    value = _number(name, told)
    if value < 1 or value != int(value):
        raise ConfigError(f"{name} {told!r} is not a whole number from 1 on")
    return int(value)


def _switch(name: str, told: object) -> bool:
    if isinstance(told, bool):
        return told
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    value = words.get(str(told).lower())
    if value is None:
        raise ConfigError(f"{name} {told!r} is neither true nor false")
    return value


def _one_of(choices: Sequence[str]) -> Callable[[str, object], str]:
    def read(name: str, told: object) -> str:
        if told not in choices:
            raise ConfigError(f"{name} {told!r} is none of {', '.join(choices)}")
        return str(told)

    return read


def _text(name: str, told: object) -> str:
    if not isinstance(told, str) or not told.strip():
        raise ConfigError(f"{name} {told!r} is not a text; put it in quotes")
    return told.strip()


def _items(name: str, told: object) -> list[Any]:
    """A YAML list, a repeated flag, or one text with commas in between."""
    if isinstance(told, list):
        return told
    return [item for item in _text(name, told).split(",") if item.strip()]


def _number(name: str, told: object) -> float:
    problem = ConfigError(f"{name} {told!r} is not a number")
    if isinstance(told, bool) or not isinstance(told, int | float | str):
        raise problem
    try:
        value = float(told)
    except ValueError:
        raise problem from None
    if not math.isfinite(value):
        raise problem
    return value


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `read` gets the name it was told under and the raw value."""

    key: str
    meaning: str
    read: Callable[[str, object], Any]
    variable: str
    metavar: str = ""
    default: Any = None
    shown_default: str = ""
    """The default as the reference writes it; empty where the part is off."""
    live: bool = False
    """Whether a reload can change it in the running process."""
    has_flag: bool = True
    """False for secrets: command lines are visible to every user of the machine."""
    from_file: bool = False
    """Whether the variable `<variable>_FILE` may name a file that holds the value and no more."""

    @property
    def flag(self) -> str:
        """`--ready-file` for `ready_file`."""
        return "--" + self.key.replace("_", "-")

    @property
    def file_variable(self) -> str:
        """`REDIS_URL_FILE` for `REDIS_URL`; of meaning where `from_file` is set."""
        return f"{self.variable}_FILE"


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("target", "OpenTalking's base URL", _http_url, "OPENTALKING_URL", "URL"),
    Setting(
        "redis",
        "the Redis of a split deployment; rediss:// for TLS, user, password and database in the "
        "URL (with a password, prefer the variable or its file to the flag)",
        _redis_url,
        "REDIS_URL",
        "URL",
        from_file=True,
    ),
    Setting(
        "omnirt",
        "an OmniRT behind it, whose own metrics are served along; may be given several times",
        _backend_urls,
        "TALKSCOPE_OMNIRT",
        "URL",
        default=(),
    ),
    Setting(
        "omnirt_api_key",
        "key of OmniRTs that ask for one",
        _secret,
        "TALKSCOPE_OMNIRT_API_KEY",
        has_flag=False,
        from_file=True,
    ),
    Setting(
        "npu_exporter",
        "MindCluster's NPU Exporter on the target's machine, whose `/metrics` is read instead of "
        "asking npu-smi",
        _http_url,
        "TALKSCOPE_NPU_EXPORTER",
        "URL",
    ),
    Setting(
        "log",
        "log of the process that runs the pipeline",
        _path,
        "TALKSCOPE_PIPELINE_LOG",
        "FILE",
    ),
    Setting(
        "log_command",
        "a command that prints that log as it grows, such as 'docker logs -f --since 0s NAME'",
        _command,
        "TALKSCOPE_PIPELINE_LOG_COMMAND",
        "COMMAND",
    ),
    Setting(
        "listen",
        "address to serve on, port 0 for any free one",
        _listen,
        "TALKSCOPE_LISTEN",
        "HOST:PORT",
        default=_listen("listen", DEFAULT_LISTEN),
        shown_default=DEFAULT_LISTEN,
    ),
    Setting("bundle", "write a run bundle into this new folder", _path, "TALKSCOPE_BUNDLE", "DIR"),
    Setting(
        "ready_file",
        'write {"url": ..., "pid": ...} here once it serves',
        _path,
        "TALKSCOPE_READY_FILE",
        "FILE",
    ),
    Setting(
        "target_just_started",
        "the target has not spoken yet: its next turn is a cold one",
        _switch,
        "TALKSCOPE_TARGET_JUST_STARTED",
        default=False,
        shown_default="false",
    ),
    Setting(
        "poll_interval",
        "between two readings of OpenTalking's and OmniRT's HTTP endpoints",
        _seconds,
        "TALKSCOPE_POLL_INTERVAL",
        "SECONDS",
        default=2.0,
        shown_default="2",
        live=True,
    ),
    Setting(
        "queue_poll_interval",
        "between two readings of the queues in Redis",
        _seconds,
        "TALKSCOPE_QUEUE_POLL_INTERVAL",
        "SECONDS",
        default=1.0,
        shown_default="1",
        live=True,
    ),
    Setting(
        "turn_timeout",
        "a turn of which nothing is heard for this long counts as incomplete; longer than the "
        "longest audio that is uploaded to be spoken, since that makes no event before its end",
        _seconds,
        "TALKSCOPE_TURN_TIMEOUT",
        "SECONDS",
        default=TURN_LIMIT_S,
        shown_default=f"{TURN_LIMIT_S:g}",
        live=True,
    ),
    Setting(
        "accelerator_interval",
        "between two readings of accelerator memory; everything else of a device is read at most "
        "once a second",
        _seconds,
        "TALKSCOPE_ACCELERATOR_INTERVAL",
        "SECONDS",
        default=1.0,
        shown_default="1",
        live=True,
    ),
    Setting(
        "accelerator_baseline",
        "what was on the devices before the target started, written by "
        "`python -m exporter.accelerators.baseline FILE`",
        _baseline,
        "TALKSCOPE_ACCELERATOR_BASELINE",
        "FILE",
    ),
    Setting(
        "opentalking_processes",
        f"OpenTalking's processes, KIND:VALUE with a KIND of {', '.join(KINDS)}; may be given "
        "several times",
        _selectors,
        "TALKSCOPE_OPENTALKING_PROCESSES",
        "SELECTOR",
        default=(),
        shown_default="command:opentalking, and the port of a target on loopback",
    ),
    Setting(
        "omnirt_processes",
        "OmniRT's, likewise",
        _selectors,
        "TALKSCOPE_OMNIRT_PROCESSES",
        "SELECTOR",
        default=(),
        shown_default="command:omnirt, and the ports of each on loopback",
    ),
    Setting(
        "trust_accelerator_pids",
        "the driver's process ids are those of the exporter's container; else a process in one "
        "must hold a device to be told",
        _switch,
        "TALKSCOPE_TRUST_ACCELERATOR_PIDS",
        default=False,
        shown_default="false",
    ),
    Setting(
        "ingest_token",
        "bearer token that POST /v1/marks asks for",
        _secret,
        "TALKSCOPE_INGEST_TOKEN",
        live=True,
        has_flag=False,
        from_file=True,
    ),
    Setting(
        "cors_origins",
        "web origins whose pages may send marks, such as https://app.example.com; may be given "
        "several times",
        _origins,
        "TALKSCOPE_CORS_ORIGINS",
        "ORIGIN",
        default=(),
        live=True,
    ),
    Setting(
        "ingest_rate",
        "batches a second that one client address may send; 0: no limit",
        _rate,
        "TALKSCOPE_INGEST_RATE",
        "NUMBER",
        default=0.0,
        shown_default="0",
        live=True,
    ),
    Setting(
        "ingest_burst",
        "batches that an address may send at once before the rate holds",
        _count,
        "TALKSCOPE_INGEST_BURST",
        "NUMBER",
        default=100,
        shown_default="100",
        live=True,
    ),
    Setting(
        "log_level",
        f"least important lines to log: {', '.join(LOG_LEVELS)}",
        _one_of(LOG_LEVELS),
        "TALKSCOPE_LOG_LEVEL",
        "LEVEL",
        default="info",
        shown_default="info",
        live=True,
    ),
    Setting(
        "log_format",
        f"{' or '.join(LOG_FORMATS)} (one object a line)",
        _one_of(LOG_FORMATS),
        "TALKSCOPE_LOG_FORMAT",
        "FORMAT",
        default="text",
        shown_default="text",
    ),
)

_BY_KEY: Final = {setting.key: setting for setting in SETTINGS}
_REPEATED: Final = frozenset(
    {"omnirt", "cors_origins", "opentalking_processes", "omnirt_processes"}
)


def parse(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Config:
    """Read flags, environment and file. Raises `ConfigError`; exits for `--help`."""
    env = os.environ if environment is None else environment
    flags = vars(_parser().parse_args(arguments))
    named = flags.get("config") or env.get(CONFIG_VARIABLE)
    path = Path(named) if named else None
    content = _read(path) if path is not None else {}
    values: dict[str, Any] = {"file": path}
    for setting in SETTINGS:
        if (told := flags.get(setting.key)) is not None:
            values[setting.key] = setting.read(setting.flag, told)
        elif (named := _from_environment(setting, env)) is not None:
            values[setting.key] = setting.read(*named)
        elif (told := content.get(setting.key)) is not None:
            values[setting.key] = setting.read(f"{path}: {setting.key}", told)
        else:
            values[setting.key] = setting.default
    if values["target"] is None:
        raise ConfigError("--target is missing: give OpenTalking's URL, or set OPENTALKING_URL")
    if values["log"] is not None and values["log_command"] is not None:
        raise ConfigError("--log and --log-command are two ways to the same log; give one of them")
    return Config(**values)


def _from_environment(setting: Setting, env: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that tells the setting, and what it tells; an empty one tells nothing."""
    told = env.get(setting.variable)
    named = env.get(setting.file_variable) if setting.from_file else None
    if not named:
        return (setting.variable, told) if told else None
    if told:
        raise ConfigError(
            f"{setting.variable} and {setting.file_variable} are both set; give one of them"
        )
    try:
        content = Path(named).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"{setting.file_variable}: cannot read {named}: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{setting.file_variable}: {named} is not UTF-8 text") from error
    if not content:
        raise ConfigError(f"{setting.file_variable}: {named} is empty; write the value into it")
    return setting.file_variable, content


def changed(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """Keys that differ: those that a running exporter can take over, and those it cannot."""
    keys = [s.key for s in SETTINGS if getattr(old, s.key) != getattr(new, s.key)]
    return [k for k in keys if _BY_KEY[k].live], [k for k in keys if not _BY_KEY[k].live]


def reference() -> str:
    """The settings as a Markdown table, for docs/exporter.md."""
    lines = ["| key in the file | flag | variable | default | reload | is |", "|" + "---|" * 6]
    for s in SETTINGS:
        flag = f"`{s.flag}{f' {s.metavar}' if s.metavar else ''}`" if s.has_flag else "none"
        default = f"`{s.shown_default}`" if s.shown_default else ""
        live = "live" if s.live else "restart"
        variable = f"`{s.variable}`" + (f" or `{s.file_variable}`" if s.from_file else "")
        lines.append(f"| `{s.key}` | {flag} | {variable} | {default} | {live} | {s.meaning} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m exporter",
        description="Talkscope's sidecar: sees an OpenTalking deployment, assembles turns, and "
        "serves them as Prometheus metrics, OpenTelemetry spans and a run bundle.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help=f"read settings from this YAML file [{CONFIG_VARIABLE}]"
    )
    for setting in SETTINGS:
        if not setting.has_flag:
            continue
        default = f", {setting.shown_default}" if setting.shown_default else ""
        text = f"{setting.meaning} [{setting.variable}{default}]"
        if setting.read is _switch:
            parser.add_argument(setting.flag, action="store_const", const=True, help=text)
        else:
            action = "append" if setting.key in _REPEATED else "store"
            parser.add_argument(setting.flag, action=action, metavar=setting.metavar, help=text)
    return parser


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as `ConfigError`, so that the exit status is decided in one place."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(message)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or "not UTF-8 text"
        raise ConfigError(f"{where} is not YAML: {problem}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a mapping; write one `key: value` a line")
    for key in content:
        if key not in _BY_KEY:
            near = difflib.get_close_matches(str(key), _BY_KEY, n=1, cutoff=0.0)
            raise ConfigError(f"{path}: unknown key {key!r}; the nearest known one is {near[0]!r}")
    return content
