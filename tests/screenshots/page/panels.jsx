// A component for each type of panel that the dashboards have.

import { useLayoutEffect, useMemo, useRef, useState } from 'react';
import { getFieldDisplayValues } from '@grafana/data';
import { BigValue, BigValueGraphMode, EventsCanvas, TimeSeries, useTheme2, VizRepeater } from '@grafana/ui';

import { exemplars, frames } from './frames.js';
import { Heatmap } from './heatmap.jsx';

function Empty({ width, height }) {
  return <div style={{ width, height, display: 'grid', placeItems: 'center' }}>No data</div>;
}

function Points({ config, panel }) {
  const [points] = useState(() => exemplars(panel));
  const plot = useRef(null);
  useLayoutEffect(() => config.addHook('init', (made) => (plot.current = made)), [config]);
  return (
    <EventsCanvas
      id="exemplars"
      config={config}
      events={[points]}
      renderEventMarker={() => <div className="exemplar" />}
      mapEventToXYCoords={(events, { fieldIndex }) => {
        const { time, value } = events[fieldIndex];
        const { valToPos } = plot.current;
        return { x: valToPos(time, 'x'), y: valToPos(value, config.scaleKeys[1]) };
      }}
    />
  );
}

function Graph({ panel, width, height, step, range }) {
  const theme = useTheme2();
  // The same every time, else the plot is set up anew and loses its points.
  const series = useMemo(() => frames(panel, step, theme), [panel]);
  if (series.length === 0) {
    return <Empty width={width} height={height} />;
  }
  return (
    <TimeSeries
      frames={series}
      width={width}
      height={height}
      timeRange={range}
      timeZone="utc"
      legend={panel.options.legend}
      options={panel.options}
    >
      {(config) => <Points config={config} panel={panel} />}
    </TimeSeries>
  );
}

function Stat({ panel, width, height, step }) {
  const theme = useTheme2();
  const { colorMode, graphMode, justifyMode, orientation, reduceOptions, textMode, wideLayout } =
    panel.options;
  const data = frames(panel, step, theme);
  const values = () =>
    getFieldDisplayValues({
      data,
      fieldConfig: { defaults: panel.fieldConfig.defaults, overrides: [] },
      reduceOptions: { values: false, ...reduceOptions },
      replaceVariables: (text) => text,
      sparkline: graphMode !== BigValueGraphMode.None,
      theme,
      timeZone: 'utc',
    });
  return (
    <VizRepeater
      source={data}
      getValues={values}
      width={width}
      height={height}
      orientation={orientation}
      itemSpacing={3}
      autoGrid
      renderValue={({ value, width, height, count }) => (
        <BigValue
          value={value.display}
          sparkline={value.sparkline}
          count={count}
          {...{ width, height, theme, colorMode, graphMode, justifyMode, textMode, wideLayout }}
        />
      )}
    />
  );
}

export const PANELS = { timeseries: Graph, stat: Stat, heatmap: Heatmap };
