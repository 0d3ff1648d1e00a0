"""`python -m exporter`: serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
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
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        config = parse()
        return asyncio.run(_serve(config))
    except (ConfigError, ProtocolError, BundleExistsError) as error:
        print(f"exporter: {error}", file=sys.stderr)
        return WRONG_USAGE
    except OSError as error:
        print(f"exporter: {error}", file=sys.stderr)
        return 1


async def _serve(config: Config) -> int:
    with bind(config.host, config.port) as listener:
        app = create_app(Exporter(config))
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server = _Server(app, url, config)
        # uvicorn raises the signal it was stopped by once more after its clean shutdown; by
        # then everything is written, and the exit status is to be 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _already_stopped)
        await server.serve(sockets=[listener])
        return 0 if server.started else 1


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
            uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=3)
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
