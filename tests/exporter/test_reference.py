from exporter import reference, stages
from tests.processes import ROOT


def test_the_page_in_the_tree_is_the_catalogue():
    written = (ROOT / "docs" / "metrics.md").read_text()
    assert written == reference.render(), "run: python -m exporter.reference > docs/metrics.md"


def test_every_stage_mark_and_level_is_on_it():
    page = reference.render()
    for name in (*stages.STAGES, *stages.MARKS, *(g.family for g in stages.GAUGES.values())):
        assert name in page
