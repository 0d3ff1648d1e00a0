"""Machines that are none: network namespaces on one bridge, as root on Linux with `ip`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

HOST = "10.203.99.1"
"""The bridge's address: how this machine is reached from the namespaces."""

_NETWORK = "10.203.99"
_BRIDGE = "talkscope-br"


@dataclass(frozen=True)
class Machine:
    """A namespace."""

    name: str
    address: str

    def command(self, *told: str) -> list[str]:
        """Run a command there."""
        return ["ip", "netns", "exec", self.name, *told]


def _ip(*told: str) -> None:
    subprocess.run(["ip", *told], check=True, capture_output=True)


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """So many namespaces, each with an interface on one bridge; empty where that cannot be."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield []
        return
    made = [Machine(f"talkscope-{n}", f"{_NETWORK}.{10 + n}") for n in range(1, count + 1)]
    with contextlib.ExitStack() as stack:
        try:
            _ip("link", "add", _BRIDGE, "type", "bridge")
            stack.callback(_ip, "link", "del", _BRIDGE)
            _ip("addr", "add", f"{HOST}/24", "dev", _BRIDGE)
            _ip("link", "set", _BRIDGE, "up")
            for number, machine in enumerate(made):
                _ip("netns", "add", machine.name)
                stack.callback(_ip, "netns", "del", machine.name)
                here, there = f"ts-here{number}", f"ts-there{number}"
                _ip("link", "add", here, "type", "veth", "peer", "name", there)
                _ip("link", "set", here, "master", _BRIDGE, "up")
                _ip("link", "set", there, "netns", machine.name)
                inside = ["-n", machine.name]
                _ip(*inside, "addr", "add", f"{machine.address}/24", "dev", there)
                _ip(*inside, "link", "set", there, "up")
                _ip(*inside, "link", "set", "lo", "up")
        except subprocess.CalledProcessError:
            made = []
        yield made


@contextlib.contextmanager
def forwarded(address: str, port: int) -> Iterator[int]:
    """A TCP port on `address` that leads to the loopback `port`; what listens there stays alone."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(accept, address, 0), loop
    ).result(10)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
