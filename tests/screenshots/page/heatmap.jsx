// Grafana's heatmap is not among its packages: cells drawn on @grafana/ui's plot instead.

import { interpolateBlues } from 'd3-scale-chromatic';
import { useMemo } from 'react';
import { formattedValueToString, getDisplayProcessor } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { UPlotChart, UPlotConfigBuilder, useTheme2 } from '@grafana/ui';

/** Rates of each bucket alone, from cumulative ones: edges ascending, a row of values each. */
function buckets(panel, times) {
  const series = panel.answers
    .flatMap((answer) => answer.series)
    .map(({ metric, values }) => ({
      edge: Number(metric.le.replace('+Inf', 'Infinity')),
      at: new Map(values.map(([seconds, text]) => [1000 * seconds, Number(text)])),
    }))
    .sort((one, other) => one.edge - other.edge);
  return series.map(({ edge, at }, row) => ({
    edge,
    values: times.map((time) => (at.get(time) ?? 0) - (series[row - 1]?.at.get(time) ?? 0)),
  }));
}

export function Heatmap({ panel, width, height, step, range }) {
  const theme = useTheme2();
  const [from, to] = [range.from.valueOf(), range.to.valueOf()];
  const { config, data } = useMemo(() => {
    const times = [];
    for (let time = from; time <= to; time += step) {
      times.push(time);
    }
    const rows = buckets(panel, times);
    const most = Math.max(...rows.flatMap(({ values }) => values));
    const { filterValues, color, yAxis, cellGap } = panel.options;
    const unit = { type: 'number', config: { unit: yAxis.unit } };
    const display = getDisplayProcessor({ field: unit, theme });

    const config = new UPlotConfigBuilder('utc');
    config.addScale({
      scaleKey: 'x',
      isTime: true,
      orientation: ScaleOrientation.Horizontal,
      direction: ScaleDirection.Right,
      range: () => [from, to],
    });
    config.addScale({
      scaleKey: 'y',
      orientation: ScaleOrientation.Vertical,
      direction: ScaleDirection.Up,
      range: () => [0, rows.length],
    });
    config.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, theme });
    config.addAxis({
      scaleKey: 'y',
      placement: AxisPlacement.Left,
      size: 60,
      theme,
      grid: { show: false },
      splits: () => rows.map((_, row) => row + 1).filter((_, row) => row % 4 === 0),
      values: (_, splits) =>
        splits.map((row) => {
          const { edge } = rows[row - 1];
          return Number.isFinite(edge) ? formattedValueToString(display(edge)) : '+Inf';
        }),
    });
    config.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, pointsBuilder: () => null });
    config.addHook('draw', (plot) => {
      rows.forEach(({ values }, row) =>
        values.forEach((value, column) => {
          if (value <= filterValues.le) {
            return;
          }
          const left = plot.valToPos(times[column] - step, 'x', true);
          const right = plot.valToPos(times[column], 'x', true);
          const [low, high] = [plot.valToPos(row, 'y', true), plot.valToPos(row + 1, 'y', true)];
          plot.ctx.fillStyle = interpolateBlues(1 - (value / most) ** color.exponent);
          plot.ctx.fillRect(left, high, right - left - cellGap, low - high - cellGap);
        })
      );
    });
    return { config, data: [times, times.map(() => null)] };
  }, [panel]);
  return <UPlotChart config={config} data={data} width={width} height={height} />;
}
