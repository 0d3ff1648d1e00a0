"""Every query can be read, asks for series that exist, and uses variables that are defined."""

import re

import promql_parser
import pytest

from exporter import gauges, stages
from exporter.stages import Instrument
from grafana import names, rules
from tests.grafana.expressions import (
    DASHBOARDS,
    RATE_INTERVAL,
    Asked,
    as_sent,
    names_in,
    of_alerts,
    of_panels,
    variables_in,
)

PANELS = list(of_panels())
EVERYTHING = [*PANELS, *of_alerts()]

FIXED_WINDOWS = {"2m", "5m", "15m", "1h"}
"""Windows that a panel's words name ("of the last 15 minutes"); all others follow the zoom."""


def of_histogram(family):
    return {f"{family}_bucket", f"{family}_sum", f"{family}_count"}


def of_stage(stage):
    match stage.instrument:
        case Instrument.HISTOGRAM:
            found = of_histogram(stage.family)
        case Instrument.COUNTER:
            found = {f"{stage.family}_total"}
        case _:
            found = {stage.family}
    return found | {
        name.replace(stage.family, names.of_viewers(stage)) for name in found if stage.family
    }


def known():
    found = {names.UP} | names.OF_EXPORTER | names.OF_PROBE | names.OF_GENERATOR
    found |= of_histogram(gauges.BACKEND_CHUNK_DURATION)
    for stage in stages.STAGES.values():
        if stage.family is not None:
            found |= of_stage(stage)
    found |= {gauge.exported for gauge in gauges.GAUGES.values()}
    found |= {f"{count.family}_total" for count in gauges.COUNTS}
    return found | {rule["record"] for group in rules.groups() for rule in group["rules"]}


KNOWN = known()


@pytest.mark.parametrize("asked", EVERYTHING, ids=str)
def test_it_parses_and_asks_only_for_series_that_exist(asked):
    assert names_in(as_sent(asked.expr)) <= KNOWN


@pytest.mark.parametrize("asked", PANELS, ids=str)
def test_its_variables_are_defined_on_its_dashboard(asked):
    defined = {v["name"] for v in DASHBOARDS[asked.board]["templating"]["list"]}
    assert variables_in(asked.expr) <= defined


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_variable_of_a_dashboard_is_used_and_asks_for_series_that_exist(uid):
    used = {"datasource"}.union(*(variables_in(a.expr) for a in PANELS if a.board == uid))
    for variable in DASHBOARDS[uid]["templating"]["list"]:
        assert variable["name"] in used
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"])
            assert asked is not None
            assert names_in(asked[1]) <= KNOWN


@pytest.mark.parametrize("asked", PANELS, ids=str)
def test_a_rate_follows_the_zoom_and_other_windows_are_those_that_the_text_names(asked):
    for function, argument in re.findall(r"(\w+)\(([^()]*\[[^\]]+\])", asked.expr):
        window = argument[argument.index("[") + 1 : -1]
        assert window == RATE_INTERVAL or window in FIXED_WINDOWS or function == "increase"


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_leads_to_all_the_others(uid):
    board = DASHBOARDS[uid]
    [link] = board["links"]
    assert link["type"] == "dashboards"
    assert all(set(link["tags"]) <= set(other["tags"]) for other in DASHBOARDS.values())


def test_the_lint_finds_a_query_that_is_wrong():
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        promql_parser.parse(as_sent("rate(x[$__rate_interval]"))
    assert names_in("sum by (a) (rate(renamed_bucket[1m])) / on () up") - KNOWN == {
        "renamed_bucket"
    }
    assert variables_in('x{a=~"$model", b=~"${backend}"}[$__rate_interval]') == {
        "model",
        "backend",
    }
    assert as_sent('x{a=~"$model"}[$__rate_interval]') == 'x{a=~".*"}[1m]'
    assert str(Asked("b", "p", "e")) == "b: p: e"


def test_the_generators_names_are_those_that_it_serves():
    metrics = pytest.importorskip("loadgen.load.metrics", reason="the load generator is not here")
    registry = metrics.Metrics(lambda: 0, lambda: 0).registry
    levels = {metrics.PREFIX + name for _, name, _ in metrics._Levels._FAMILIES}
    served = levels | {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    }
    assert served >= names.OF_GENERATOR
