"""The variables that the dashboards share: model, backend, how warm the target was."""

from __future__ import annotations

from typing import Any

from exporter import gauges, stages
from grafana import panels

TURNS = f"{gauges.TURNS.family}_total"


def of_target(board: Any) -> Any:
    """Add the choice of models and backends."""
    return board.with_variable(
        panels.variable("model", "Model", f"label_values({TURNS}, model)")
    ).with_variable(panels.variable("backend", "Backend", f"label_values({TURNS}, backend)"))


def of_turns(board: Any) -> Any:
    """Add the choice of startup states as well."""
    return of_target(board).with_variable(
        panels.variable(
            "startup", "Startup", f"label_values({stages.GENERATION.family}_count, startup)"
        )
    )
