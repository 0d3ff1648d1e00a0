"""Recorded turns of many sessions at once, in the order a bus carries them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import redis

from exporter import upstream
from tests.recordings import sse_events

BATCH = 500

TURN = [
    (name, data)
    for _, name, data in sse_events("unified_wav2lip_synth.sse.txt")
    if name.startswith(("speech.", "subtitle."))
]
"""The events of one recorded turn."""

UNLIMITED = ("--client-output-buffer-limit", "pubsub", "0", "0", "0")
"""Redis cuts a subscriber off that falls behind for a moment, unless it is told not to."""


def messages(sessions: int, turns: int) -> Iterator[tuple[str, str]]:
    """(channel, payload) of every event: all sessions speak at the same time, turn after turn."""
    for _ in range(turns):
        for name, data in TURN:
            for session in range(sessions):
                told = {"event": name, "data": data | {"session_id": f"sess_{session}"}}
                channel = f"{upstream.EVENT_CHANNEL_PREFIX}sess_{session}"
                yield channel, json.dumps(told)


def open_sessions(url: str, sessions: int) -> None:
    """Write the hashes that OpenTalking keeps of its sessions."""
    told = {"model": "wav2lip", "avatar_id": "demo", "state": "ready"}
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as batch:
        for session in range(sessions):
            batch.hset(f"{upstream.SESSION_KEY_PREFIX}sess_{session}", mapping=told)
        batch.execute()


def publish(url: str, traffic: list[tuple[str, str]]) -> None:
    """Publish as fast as Redis takes it."""
    with redis.Redis.from_url(url) as client:
        for begin in range(0, len(traffic), BATCH):
            with client.pipeline(transaction=False) as batch:
                for channel, payload in traffic[begin : begin + BATCH]:
                    batch.publish(channel, payload)
                batch.execute()
