"""What `make screenshots` rests on, as far as it can be told without Node."""

import json
import re

import pytest
import yaml

from grafana.__main__ import ROOT
from tests.grafana.expressions import DASHBOARDS
from tests.screenshots import recorded
from tests.screenshots.pictures import LOCK, PAGE

PACKAGE = json.loads((PAGE / "package.json").read_text())
LOCKED = json.loads((PAGE / LOCK).read_text())["packages"]


def test_panels_are_drawn_by_the_grafana_that_is_shipped():
    image = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["image"]
    grafana = {v for name, v in PACKAGE["dependencies"].items() if name.startswith("@grafana/")}
    assert grafana == {image.removeprefix("grafana/grafana:")}


def test_what_is_installed_is_locked_by_hash_and_names_no_registry():
    assert LOCKED[""]["dependencies"] == PACKAGE["dependencies"]
    for name, package in LOCKED.items():
        assert name == "" or package["integrity"].startswith("sha512-")
        assert "resolved" not in package


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_panel_has_a_type_that_is_drawn(uid):
    drawn = re.search(r"PANELS = {(.*)}", (PAGE / "panels.jsx").read_text())
    types = {"row", *re.findall(r"(\w+):", drawn[1])}
    assert {panel["type"] for panel in DASHBOARDS[uid]["panels"]} <= types


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_dashboard_has_a_picture_in_the_docs(uid):
    assert f"(screenshots/{uid}.png)" in (ROOT / "docs/dashboards.md").read_text()
    assert (ROOT / f"docs/screenshots/{uid}.png").stat().st_size < 200_000


class Answering:
    """A Prometheus that keeps what it was asked."""

    def __init__(self):
        self.asked = set()

    def range(self, expr, start, end, step):
        self.asked.add((start, end, step))
        assert "$" not in expr
        return [{"metric": {}, "values": [[start, "1"]]}]

    def exemplars(self, expr, start, end):
        return []


def test_every_query_of_every_panel_is_asked_on_the_grid_of_grafana_s_steps():
    prometheus = Answering()
    found = recorded.boards(prometheus, 1003.0, 1099.0)
    assert prometheus.asked == {(1000.0, 1095.0, 5)}
    assert (found["from"], found["to"], found["step"]) == (1_000_000, 1_095_000, 5_000)
    for board in found["boards"]:
        for panel in board["panels"]:
            assert len(panel["answers"]) == len(panel.get("targets", ()))
