// What Prometheus answered, as the data frames that Grafana's data source makes of it.

import {
  FieldColorModeId,
  FieldType,
  getDisplayProcessor,
  getFieldDisplayName,
  getMinMaxAndDelta,
} from '@grafana/data';

// What Grafana's plugins add where a panel's JSON says nothing.
const OF_PLUGIN = {
  timeseries: {
    color: { mode: FieldColorModeId.PaletteClassic },
    custom: {
      drawStyle: 'line',
      lineInterpolation: 'linear',
      lineWidth: 1,
      fillOpacity: 0,
      gradientMode: 'none',
      showPoints: 'auto',
      pointSize: 5,
      spanNulls: false,
      axisPlacement: 'auto',
      axisGridShow: true,
    },
  },
  stat: { color: { mode: FieldColorModeId.Thresholds } },
  heatmap: {},
};

function fieldConfig(panel) {
  if (panel.fieldConfig.overrides.length > 0) {
    throw new Error(`${panel.title}: overrides are not applied here`);
  }
  const [plugin, told] = [OF_PLUGIN[panel.type], panel.fieldConfig.defaults];
  const thresholds = told.thresholds && {
    ...told.thresholds,
    steps: told.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity })),
  };
  return { ...plugin, ...told, thresholds, custom: { ...plugin.custom, ...told.custom } };
}

function legend({ legend, expr }, labels) {
  if (legend === '__auto') {
    // The display name is then made of the labels.
    return Object.keys(labels).length > 0 ? '' : expr;
  }
  return legend.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? '');
}

/** One frame a series: times in ms and numbers; what is not finite is a gap. */
export function frames(panel, step, theme) {
  const config = fieldConfig(panel);
  const found = panel.answers.flatMap((answer) =>
    answer.series.map(({ metric, values }) => {
      const { __name__: name, ...labels } = metric;
      const numbers = values.map(([, text]) => Number(text));
      return {
        refId: answer.expr,
        length: values.length,
        fields: [
          {
            name: 'Time',
            type: FieldType.time,
            config: { interval: step },
            values: values.map(([seconds]) => 1000 * seconds),
          },
          {
            name: name ?? 'Value',
            type: FieldType.number,
            labels,
            config: { ...config, displayNameFromDS: legend(answer, labels) },
            values: numbers.map((value) => (Number.isFinite(value) ? value : null)),
          },
        ],
      };
    })
  );
  found.forEach((frame, frameIndex) => {
    frame.fields.forEach((field, fieldIndex) => {
      field.state = { origin: { frameIndex, fieldIndex }, seriesIndex: frameIndex };
      field.display = getDisplayProcessor({ field, theme });
    });
    const value = frame.fields[1];
    value.state.range = getMinMaxAndDelta(value);
    value.state.displayName = getFieldDisplayName(value, frame, found);
  });
  return found;
}

/** Turns that are points in a panel, each once though every query asks for them. */
export function exemplars(panel) {
  const found = new Map();
  const answered = panel.answers.flatMap((answer) => answer.exemplars);
  for (const { timestamp, value, labels } of answered) {
    found.set(labels.trace_id, { time: 1000 * timestamp, value: Number(value) });
  }
  return [...found.values()];
}
