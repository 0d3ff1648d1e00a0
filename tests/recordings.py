"""Reads the recordings in tests/captures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

CAPTURES = Path(__file__).parent / "captures"

_AT = re.compile(r"^: t=[\d.]+ms unix=([\d.]+)$")


def sse_events(name: str) -> list[tuple[float, str, dict[str, Any]]]:
    """(arrival in seconds since the epoch, event, data) of a recorded event stream."""
    events = []
    at, event = 0.0, ""
    for line in (CAPTURES / name).read_text().splitlines():
        if match := _AT.match(line):
            at = float(match[1])
        elif line.startswith("event:"):
            event = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            events.append((at, event, json.loads(line.removeprefix("data:"))))
    return events


def redis_messages(name: str) -> list[tuple[str, str]]:
    """(channel, payload) of a recorded PSUBSCRIBE."""
    lines = (CAPTURES / name).read_text().splitlines()
    found = []
    for index, line in enumerate(lines):
        if line == "pmessage" and index + 3 < len(lines):
            payload = lines[index + 3]
            if payload.startswith("{") and payload.endswith("}"):
                found.append((lines[index + 2], payload))
    return found


def log_lines(name: str) -> list[str]:
    """Lines of a recorded log."""
    return (CAPTURES / name).read_text().splitlines()
