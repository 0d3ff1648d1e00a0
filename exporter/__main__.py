"""`python -m exporter`: serve until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from exporter.app import create_app
from exporter.bundle import BundleExistsError
from exporter.config import Config, ConfigError, parse
from exporter.service import Exporter
from exporter.spans import ProtocolError

WRONG_USAGE = 64

log = logging.getLogger("exporter")


def main() -> int:
    """Run the exporter; return its exit status (0 good, 1 failed, 64 wrong usage)."""
    try:
        config = parse()
        start_logging(config)
        return asyncio.run(_serve(config))
    except (ConfigError, ProtocolError, BundleExistsError) as error:
        print(f"exporter: {error}", file=sys.stderr)
        return WRONG_USAGE
    except OSError as error:
        print(f"exporter: {error}", file=sys.stderr)
        return 1


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; a traceback stays within its line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def start_logging(config: Config) -> None:
    """Log to stderr, in the configured format."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines()
        if config.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    # One line for each poll would drown everything else.
    logging.getLogger("httpx").setLevel(logging.WARNING)


async def _serve(config: Config) -> int:
    with bind(*config.listen) as listener:
        exporter = Exporter(config)
        app = create_app(exporter)
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server = _Server(app, url, config)
        # uvicorn raises the signal it was stopped by once more after its clean shutdown; by
        # then everything is written, and the exit status is to be 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _already_stopped)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, exporter)
        await server.serve(sockets=[listener])
        return 0 if server.started else 1


def reload(exporter: Exporter) -> None:
    """Read the configuration again; a wrong one changes nothing."""
    if exporter.config.file is None:
        log.warning("nothing to reload: no configuration file was given with --config")
        return
    try:
        config = parse()
    except ConfigError as error:
        log.error("the old configuration stays: %s", error)
        return
    exporter.reconfigure(config)
    logging.getLogger().setLevel(exporter.config.log_level.upper())


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to an address. Raises OSError that names it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only on sockets that name TCP as their protocol;
    # with it on, each small answer waits some 40 ms, and the clock that clients measure is off
    # by half of that.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror}; name another address with --listen"
        ) from error
    return listener


def _already_stopped(_number: int, _frame: FrameType | None) -> None:
    return None


class _Server(uvicorn.Server):
    """Says where it serves once it really does."""

    def __init__(self, app: FastAPI, url: str, config: Config) -> None:
        super().__init__(
            # Lines of uvicorn go through our own handler, in the format that was asked for.
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                lifespan="on",
                timeout_graceful_shutdown=3,
            )
        )
        self._url = url
        self._settings = config

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        log.info("serving on %s, watching %s", self._url, self._settings.target)
        if self._settings.ready_file is not None:
            _announce(self._settings.ready_file, self._url)


def _announce(path: Path, url: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
