"""What is generated is what lies in the tree, and every link in it leads somewhere."""

import json
from dataclasses import replace

import pytest

from exporter import gauges
from grafana import alerts, boards
from grafana.__main__ import ROOT, files
from grafana.boards import overview

DASHBOARDS = {uid: json.loads(text) for uid, text in boards.rendered()}


@pytest.mark.parametrize(("path", "text"), list(files()), ids=lambda value: str(value)[:60])
def test_the_tree_has_what_would_be_generated(path, text):
    assert (ROOT / path).read_text() == text, "run `python -m grafana`"


def test_a_changed_catalogue_is_noticed(monkeypatch):
    """The check above is worth something: another family gives another file."""
    before = dict(files())
    monkeypatch.setattr(overview.gauges, "LIVE_DRIFT", replace(gauges.LIVE_DRIFT, family="renamed"))
    changed = [path for path, text in files() if text != before[path]]
    assert changed


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_every_alert_says_what_to_do(alert):
    page = ROOT / "docs/runbooks" / f"{alert.runbook}.md"
    assert alert.name.startswith(
        tuple(n.strip(" *") for n in page.read_text()[2:].split("\n")[0].split(","))
    )
    assert alert.summary
    assert alert.description.endswith(".")
    assert alert.severity in ("page", "warning")


def test_every_runbook_belongs_to_an_alert():
    pages = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")}
    assert pages == {alert.runbook for alert in alerts.ALERTS}


def _panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_panel_has_a_unit_and_says_what_is_bad(uid):
    panels = _panels(DASHBOARDS[uid])
    assert panels
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert "Bad: " in panel["description"], panel["title"]


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_lie_side_by_side_on_the_dashboard(uid):
    taken = set()
    for panel in DASHBOARDS[uid]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
