/**
 * Use and memory of the last ten minutes; hovering shows the values of a moment.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import uPlot from 'uplot';
import { percent, size } from '../format';
import type { ISeries } from '../shown';
import { locale } from '../texts';
import { Facts } from './marks';

const HEIGHT_PX = 112;
const WINDOW_S = 10 * 60;

export function Chart(props: {
  series: ISeries;
  memoryTotalBytes: number;
  now: number;
  trans: TranslationBundle;
}): JSX.Element {
  const { series, memoryTotalBytes, trans } = props;
  const host = React.useRef<HTMLDivElement>(null);
  const plot = React.useRef<uPlot | null>(null);
  const [hovered, setHovered] = React.useState<number | null>(null);
  const theme = useTheme();

  React.useEffect(() => {
    const node = host.current;
    if (!node) {
      return undefined;
    }
    const chart = new uPlot(
      options(node, memoryTotalBytes, locale(trans), setHovered),
      [[], [], []],
      node
    );
    plot.current = chart;
    const observer = new ResizeObserver(() => {
      if (node.clientWidth > 0) {
        chart.setSize({ width: node.clientWidth, height: HEIGHT_PX });
      }
    });
    observer.observe(node);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
    // `theme` decides the colours, which a chart reads once.
  }, [memoryTotalBytes, trans, theme]);

  React.useEffect(() => {
    const end = Math.max(props.now, series.times.at(-1) ?? 0) / 1000;
    plot.current?.batch(() => {
      plot.current?.setData(
        [series.times.map(ms => ms / 1000), series.utilisationPercent, series.memoryBytes],
        false
      );
      plot.current?.setScale('x', { min: end - WINDOW_S, max: end });
    });
  }, [series, props.now, memoryTotalBytes, trans, theme]);

  const last = series.times.length - 1;
  const at = hovered !== null && hovered <= last ? hovered : last;
  const use = series.utilisationPercent[at];
  const memory = series.memoryBytes[at];
  const facts: React.ReactNode[] = [];
  if (hovered !== null && series.times[at] !== undefined) {
    facts.push(moment(series.times[at], locale(trans)));
  }
  if (use !== undefined) {
    facts.push(
      <span className="gpuhub-Chart-use">
        {hovered === null ? trans.__('use %1', percent(use, trans)) : percent(use, trans)}
      </span>
    );
  }
  if (memory !== undefined) {
    facts.push(
      <span className="gpuhub-Chart-memory">
        {hovered === null ? trans.__('memory %1', size(memory, trans)) : size(memory, trans)}
      </span>
    );
  }
  return (
    <div className="gpuhub-Chart">
      <div
        ref={host}
        className="gpuhub-Chart-plot"
        role="img"
        aria-label={trans.__('Use and memory of the GPU in the last 10 minutes')}
      />
      <div className="gpuhub-Chart-values">
        {facts.length > 0 ? <Facts facts={facts} /> : trans.__('No measurement of this GPU yet.')}
      </div>
    </div>
  );
}

function moment(at: number, language?: string): string {
  return new Intl.DateTimeFormat(language ?? 'en-GB', {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hour12: false
  }).format(new Date(at));
}

/** The theme's name; changes when JupyterLab's theme does. */
function useTheme(): string {
  const read = () => document.body.dataset['jpThemeName'] ?? '';
  const [theme, setTheme] = React.useState(read);
  React.useEffect(() => {
    const observer = new MutationObserver(() => setTheme(read()));
    observer.observe(document.body, { attributeFilter: ['data-jp-theme-name'] });
    return () => observer.disconnect();
  }, []);
  return theme;
}

function options(
  node: HTMLElement,
  memoryTotalBytes: number,
  language: string | undefined,
  onHover: (index: number | null) => void
): uPlot.Options {
  const style = getComputedStyle(node);
  const colour = (name: string) => style.getPropertyValue(name).trim() || '#888';
  const text = colour('--gpuhub-quiet');
  const grid = { stroke: colour('--jp-border-color3'), width: 1 };
  const axis = { stroke: text, font: `10px ${style.fontFamily}`, grid, ticks: { show: false } };
  const hours = new Intl.DateTimeFormat(language ?? 'en-GB', {
    hour: '2-digit',
    minute: '2-digit',
    hour12: false
  });
  return {
    width: node.clientWidth || 240,
    height: HEIGHT_PX,
    padding: [6, 0, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    hooks: { setCursor: [chart => onHover(chart.cursor.idx ?? null)] },
    scales: {
      x: { time: true },
      use: { range: [0, 100] },
      memory: { range: [0, Math.max(1, memoryTotalBytes)] }
    },
    axes: [
      {
        ...axis,
        size: 18,
        gap: 3,
        grid: { show: false },
        space: 60,
        values: (_chart, splits) => splits.map(second => hours.format(new Date(second * 1000)))
      },
      {
        ...axis,
        scale: 'use',
        size: 34,
        gap: 4,
        splits: [0, 50, 100],
        values: (_chart, splits) => splits.map(value => `${value} %`)
      },
      {
        ...axis,
        scale: 'memory',
        side: 1,
        size: 38,
        gap: 4,
        grid: { show: false },
        splits: [0, memoryTotalBytes / 2, memoryTotalBytes],
        values: (_chart, splits) => splits.map(value => gigabytes(value))
      }
    ],
    series: [
      {},
      {
        scale: 'use',
        stroke: colour('--gpuhub-use'),
        fill: colour('--gpuhub-use-fill'),
        width: 1.5,
        points: { show: false }
      },
      {
        scale: 'memory',
        stroke: colour('--gpuhub-memory'),
        width: 1.5,
        dash: [4, 3],
        points: { show: false }
      }
    ]
  };
}

function gigabytes(bytes: number): string {
  const value = bytes / 1e9;
  return `${value < 10 && value > 0 ? value.toFixed(1) : Math.round(value)} GB`;
}
