"""What Grafana would be given for each panel: the answers of a Prometheus to its queries.

What comes in: the boards as generated, a Prometheus and a time range. What goes out: JSON for
`page/`. It must not know how a panel is drawn.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from grafana.__main__ import ROOT
from tests.grafana.expressions import DASHBOARDS, as_sent
from tests.prometheus import Prometheus

_DATASOURCES: Final = ROOT / "grafana/provisioning/datasources/talkscope.yaml"


def scrape_interval_s() -> int:
    """The data source's own word on how often Prometheus scrapes, seconds."""
    sources = yaml.safe_load(_DATASOURCES.read_text())["datasources"]
    (told,) = [s["jsonData"]["timeInterval"] for s in sources if s["type"] == "prometheus"]
    return int(told.removesuffix("s"))


def boards(prometheus: Prometheus, start: float, end: float) -> dict[str, Any]:
    """Every dashboard with what its panels show between two Unix times, all variables at "All".

    Grafana's steps are never shorter than the scrape interval, and $__rate_interval is four of
    them, as long as the range has no more steps than a panel has pixels.
    """
    step = scrape_interval_s()
    start, end = start - start % step, end - end % step

    def answer(target: dict[str, Any]) -> dict[str, Any]:
        expr = as_sent(target["expr"], f"{4 * step}s")
        return {
            "expr": expr,
            "legend": target["legendFormat"],
            "series": prometheus.range(expr, start, end, step),
            "exemplars": _exemplars(expr) if target.get("exemplar") else [],
        }

    def _exemplars(expr: str) -> list[dict[str, Any]]:
        return prometheus.exemplars(expr, start, end)

    return {
        "from": 1000 * start,
        "to": 1000 * end,
        "step": 1000 * step,
        "boards": [
            {
                "uid": uid,
                "title": board["title"],
                "panels": [
                    {**panel, "answers": [answer(target) for target in panel.get("targets", ())]}
                    for panel in board["panels"]
                ],
            }
            for uid, board in DASHBOARDS.items()
        ],
    }
