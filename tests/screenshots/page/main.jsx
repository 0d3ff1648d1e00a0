// One dashboard, whose uid is the address' fragment, laid out as its JSON says.

import { createRoot } from 'react-dom/client';
import { createTheme, dateTime, ThemeContext } from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';

import { PANELS } from './panels.jsx';
import './page.css';

// Grafana's grid: 24 columns, rows of 30 px with 8 px between.
const [COLUMNS, ROW, GAP, MARGIN] = [24, 30, 8, 16];

function Panel({ panel, board, size }) {
  const Content = PANELS[panel.type];
  if (Content === undefined) {
    throw new Error(`${panel.title}: panels of type ${panel.type} cannot be drawn`);
  }
  return (
    <PanelChrome title={panel.title} {...size}>
      {(width, height) => <Content {...board} panel={panel} width={width} height={height} />}
    </PanelChrome>
  );
}

function Board({ title, panels, ...board }) {
  const column = (window.innerWidth - 2 * MARGIN + GAP) / COLUMNS;
  const bottom = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <main style={{ margin: MARGIN, height: bottom * (ROW + GAP), position: 'relative' }}>
      {panels.map((panel, index) => {
        const { x, y, w, h } = panel.gridPos;
        const size = { width: Math.floor(w * column - GAP), height: h * (ROW + GAP) - GAP };
        const place = { position: 'absolute', left: x * column, top: y * (ROW + GAP), ...size };
        return (
          <section key={index} style={place}>
            {panel.type === 'row' ? (
              <h2>{panel.title}</h2>
            ) : (
              <Panel panel={panel} board={board} size={size} />
            )}
          </section>
        );
      })}
    </main>
  );
}

/** When nothing has changed on the page for this long, ms: legends are measured, then plots drawn. */
function settled(quiet = 500) {
  return new Promise((resolve) => {
    let timer = setTimeout(resolve, quiet);
    const again = () => {
      clearTimeout(timer);
      timer = setTimeout(resolve, quiet);
    };
    const all = { attributes: true, childList: true, subtree: true };
    new MutationObserver(again).observe(document.documentElement, all);
  });
}

for (const failure of ['error', 'unhandledrejection']) {
  window.addEventListener(failure, () => (document.body.dataset.failed = 'yes'));
}
const { from, to, step, boards } = await (await fetch('boards.json')).json();
const board = boards.find(({ uid }) => `#${uid}` === window.location.hash);
const range = { from: dateTime(from), to: dateTime(to), raw: { from: '', to: '' } };
const theme = createTheme({ colors: { mode: 'dark' } });
const root = createRoot(document.getElementById('root'));
const render = (content) =>
  root.render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      {content}
    </ThemeContext.Provider>
  );
// Fonts before plots, whose axes are as wide as the text that was measured.
render(null);
await settled();
await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 12px Inter`)));
render(<Board {...board} step={step} range={range} />);
await settled();
document.body.dataset.drawn = 'yes';
