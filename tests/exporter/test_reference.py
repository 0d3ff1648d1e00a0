import pytest

from exporter import attributes, gauges, reference, stages
from tests.processes import ROOT


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_page_in_the_tree_is_the_catalogue(name):
    written = (ROOT / "docs" / name).read_text()
    assert written == reference.PAGES[name](), "run: make docs"


def test_every_stage_mark_and_level_is_on_it():
    page = reference.metrics()
    for name in (*stages.STAGES, *stages.MARKS, *(g.family for g in gauges.GAUGES.values())):
        assert name in page


def test_every_attribute_is_documented():
    names = {
        value
        for name, value in vars(attributes).items()
        if name.isupper() and isinstance(value, str) and name != "VALUE_PREFIX"
    }
    assert names == attributes.ON_TURNS.keys() | attributes.ON_STAGES.keys()
