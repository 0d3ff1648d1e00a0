"""Panels: what a query shows, in which unit, and how a bad value looks.

A thin layer over grafana-foundation-sdk, so that no panel can be without unit and description.
It must not know PromQL beyond passing it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    FieldColorModeId,
    GridPos,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMappingResult,
    VariableHide,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

SECONDS: Final = "s"
BYTES: Final = "bytes"
SHARE: Final = "percentunit"
NUMBER: Final = "short"
FPS: Final = "suffix:fps"
WATTS: Final = "watt"
CELSIUS: Final = "celsius"
HERTZ: Final = "hertz"
PER_SECOND: Final = "suffix:/s"
BITS: Final = "bps"

FULL, HALF, THIRD, QUARTER, SIXTH = 24, 12, 8, 6, 4
"""Widths, of the 24 columns of a dashboard."""


Rows = Sequence[tuple[str, Sequence[Any]]]
"""Headings, each with its panels."""


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a panel."""

    expr: str
    legend: str = ""
    exemplars: bool = False


_NO_DATA: Final = SpecialValueMap(
    options=DashboardSpecialValueMapOptions(
        match=SpecialValueMatch.NULL_AND_NAN,
        # Not the colour of the lowest threshold, which may be red.
        result=ValueMappingResult(text="no data", color="text"),
    )
)


def _describe(meaning: str, bad: str) -> str:
    return f"{meaning}\n\nBad: {bad}"


def _targets(panel: Any, queries: tuple[Query, ...], *, instant: bool = False) -> None:
    for index, query in enumerate(queries):
        target = (
            prometheus.Dataquery()
            .datasource(PROMETHEUS)
            .expr(query.expr)
            .legend_format(query.legend or "__auto")
            .ref_id(chr(ord("A") + index))
        )
        if query.exemplars:
            target.exemplar(True)
        if instant:
            target.instant()
        panel.with_target(target)


def graph(
    title: str,
    *queries: Query,
    unit: str,
    meaning: str,
    bad: str,
    width: int = HALF,
    height: int = 8,
    limits: tuple[float, ...] = (),
    reach: float | None = None,
    stacked: bool = False,
    signed: bool = False,
) -> Any:
    """Lines over time; `limits` are drawn across, and the axis goes up to `reach` at least."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(_describe(meaning, bad))
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(1)
        .fill_opacity(40 if stacked else 5)
        # A turn among hours without one is a value without neighbours: no line shows it.
        .show_points(common_models.VisibilityMode.AUTO)
        .point_size(4)
        .legend(_legend(width))
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    if not signed:
        panel.min(0)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if limits:
        # Else a limit that is far off is not on the panel.
        reach = max(reach or 0.0, 1.05 * max(limits))
        steps = [Threshold(value=None, color="transparent")]
        steps += [Threshold(value=limit, color="red") for limit in sorted(limits)]
        panel.thresholds(
            dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        ).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    if reach is not None:
        panel.axis_soft_max(reach)
    _targets(panel, queries)
    return panel


def _legend(width: int) -> Any:
    """A table beside a wide graph; below a narrow one names only, as a table would cover it."""
    wide = width >= HALF
    return (
        common.VizLegendOptions()
        .display_mode(
            common_models.LegendDisplayMode.TABLE if wide else common_models.LegendDisplayMode.LIST
        )
        .placement(
            common_models.LegendPlacement.RIGHT if wide else common_models.LegendPlacement.BOTTOM
        )
        .show_legend(True)
        .calcs(["lastNotNull", "max"] if wide else [])
    )


def number(
    title: str,
    query: Query,
    *,
    unit: str,
    meaning: str,
    bad: str,
    width: int = SIXTH,
    limits: tuple[float, float] | None = None,
    high_is_good: bool = False,
) -> Any:
    """The value of now, with a sparkline. `limits`: where it turns yellow and where red."""
    panel = (
        stat.Panel()
        .title(title)
        .description(_describe(meaning, bad))
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(width)
        # Lower, and Grafana leaves out the sparkline.
        .height(5)
        .mappings([_NO_DATA])
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if limits is not None:
        first, second = sorted(limits)
        colours = ("red", "yellow", "green") if high_is_good else ("green", "yellow", "red")
        panel.thresholds(
            dashboard.ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps(
                [
                    Threshold(value=None, color=colours[0]),
                    Threshold(value=first, color=colours[1]),
                    Threshold(value=second, color=colours[2]),
                ]
            )
        )
    else:
        panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.FIXED).fixed_color("blue"))
    _targets(panel, (query,))
    return panel


def distribution(
    title: str, query: Query, *, unit: str, meaning: str, bad: str, width: int = HALF
) -> Any:
    """A histogram over time, from the rates of its buckets."""
    panel = (
        heatmap.Panel()
        .title(title)
        .description(_describe(meaning, bad))
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(width)
        .height(8)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .exponent(0.5)
            .steps(64)
        )
        .exemplars_color("rgba(255, 0, 255, 0.7)")
    )
    target = (
        prometheus.Dataquery()
        .datasource(PROMETHEUS)
        .expr(query.expr)
        .format(PromQueryFormat.HEATMAP)
        .legend_format("{{le}}")
        .ref_id("A")
    )
    if query.exemplars:
        target.exemplar(True)
    panel.with_target(target)
    return panel


def board(uid: str, title: str, description: str) -> Any:
    """A dashboard with the variables and links that all of them have."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["talkscope"])
        .editable()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(_link())
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )


def lay_out(dashboard_: Any, rows: Rows) -> Any:
    """Put rows of panels under their headings, left to right, wrapped at the dashboard's width."""
    y = 0
    for heading, panels in rows:
        row = dashboard.Row(heading)
        row.grid_pos(GridPos(h=1, w=FULL, x=0, y=y))
        dashboard_.with_row(row)
        x, y, height = 0, y + 1, 0
        for panel in panels:
            place = panel.build().grid_pos
            width, tall = place.w, place.h
            if x + width > FULL:
                x, y, height = 0, y + height, 0
            panel.grid_pos(GridPos(h=tall, w=width, x=x, y=y))
            dashboard_.with_panel(panel)
            x, height = x + width, max(height, tall)
        y += height
    return dashboard_


def variable(name: str, label: str, query: str) -> Any:
    """A variable of a dashboard, all values chosen at first."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        # Not a list of what is there: a series that appears later is shown as well.
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all"))
        .hide(VariableHide.DONT_HIDE)
    )


def _link() -> Any:
    return (
        dashboard.DashboardLink("Talkscope")
        .type(DashboardLinkType.DASHBOARDS)
        .tags(["talkscope"])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
