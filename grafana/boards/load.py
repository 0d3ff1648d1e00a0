"""A load test: what the generator measured, beside whether it may be believed."""

from __future__ import annotations

from typing import Any

from grafana import panels


def dashboard() -> Any:
    """Results of a load test with the generator's own health."""
    board = panels.board(
        "talkscope-load",
        "Talkscope: load test",
        "What simulated viewers felt, and whether the generator was itself the bottleneck.",
    )
    return panels.lay_out(board, [])
