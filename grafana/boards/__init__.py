"""The dashboards, one module each: `dashboard()` gives a builder of grafana-foundation-sdk."""

from __future__ import annotations

import json
from collections.abc import Iterator

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.boards import capacity, hardware, load, overview, turns

BOARDS = (overview, turns, capacity, load, hardware)


def rendered() -> Iterator[tuple[str, str]]:
    """Uid and JSON of every dashboard."""
    for module in BOARDS:
        board = module.dashboard().build()
        yield board.uid, json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
