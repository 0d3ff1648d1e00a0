"""Every expression of the dashboards and alerts, and what is in one.

What comes in: the boards as generated. What goes out: expressions as Grafana would send them, and
the names of the series they ask for. It must not know what a query should return.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser

from grafana import alerts, boards

DASHBOARDS: dict[str, dict[str, Any]] = {uid: json.loads(text) for uid, text in boards.rendered()}

RATE_INTERVAL = "$__rate_interval"


class Asked(NamedTuple):
    """One query of a panel."""

    board: str
    panel: str
    expr: str
    """As it stands in the JSON, variables included."""

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}: {self.expr}"


def of_panels() -> Iterator[Asked]:
    """All queries of all panels."""
    for uid, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Asked(uid, panel["title"], target["expr"])


def of_alerts() -> Iterator[Asked]:
    """All alerts' expressions."""
    for alert in alerts.ALERTS:
        yield Asked("alerts", alert.name, alert.expr)


def variables_in(expr: str) -> set[str]:
    """The dashboard's own variables that an expression uses; not those built into Grafana."""
    return {name for name in re.findall(r"\$\{?(\w+)", expr) if not name.startswith("__")}


def as_sent(expr: str, window: str = "1m") -> str:
    """The expression with all values of every variable chosen."""
    return re.sub(r"\$\{?\w+\}?", ".*", expr.replace(RATE_INTERVAL, window))


def selectors(expr: str) -> list[promql_parser.VectorSelector]:
    """Every selector of an expression, windows included."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: object) -> None:
        match node:
            case promql_parser.VectorSelector():
                found.append(node)
            case promql_parser.MatrixSelector():
                found.append(node.vector_selector)
            case promql_parser.AggregateExpr():
                visit(node.expr)
                visit(node.param)
            case promql_parser.BinaryExpr():
                visit(node.lhs)
                visit(node.rhs)
            case promql_parser.Call():
                for argument in node.args:
                    visit(argument)
            case (
                promql_parser.ParenExpr() | promql_parser.SubqueryExpr() | promql_parser.UnaryExpr()
            ):
                visit(node.expr)
            case _:
                pass

    visit(promql_parser.parse(expr))
    return found


def names_in(expr: str) -> set[str]:
    """Names of the series that an expression asks for."""
    return {selector.name for selector in selectors(expr)}
