"""Questions to servers on loopback: is it there, and what does it say?

What comes in: a port and a path. What goes out: the JSON answer, or None while there is none to be
had. It must not know what an answer means, and it asks once: waiting and repeating is the caller's.

Written on asyncio streams because the standard library's HTTP client blocks, and the supervisor
stamps log lines on the same event loop.
"""

import asyncio
import json
from typing import Any

ANSWER_SECONDS = 5.0


async def get_json(port: int, path: str) -> Any:
    """Return the JSON body of a 200 answer to `GET path`; None for anything else."""
    request = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n\r\n"
    answer = await _exchange(port, request.encode(), until_closed=True)
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


async def redis_answers(port: int) -> bool:
    """Return whether a Redis server answers PING."""
    return await _exchange(port, b"PING\r\n", until_closed=False) == b"+PONG\r\n"


async def _exchange(port: int, request: bytes, *, until_closed: bool) -> bytes:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                await writer.drain()
                return await (reader.read() if until_closed else reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
