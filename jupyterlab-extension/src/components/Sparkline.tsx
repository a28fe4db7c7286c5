/**
 * The last minutes of use in the size of a word; the panel has the chart with values.
 */

const WIDTH = 280;
const HEIGHT = 36;

export function Sparkline(props: {
  times: number[];
  values: number[];
  max: number;
  windowMs: number;
  label: string;
}): JSX.Element {
  const { times, values, max, windowMs } = props;
  const end = times.at(-1) ?? 0;
  const points = times.map((time, index) => {
    const x = WIDTH * (1 - (end - time) / windowMs);
    const y = HEIGHT - 1 - (HEIGHT - 2) * Math.min(1, (values[index] ?? 0) / max);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const first = points[0]?.split(',')[0] ?? '0';
  return (
    <svg
      className="gpuhub-Sparkline"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={props.label}
    >
      {points.length > 1 && (
        <>
          <polygon points={`${first},${HEIGHT} ${points.join(' ')} ${WIDTH},${HEIGHT}`} />
          <polyline points={points.join(' ')} />
        </>
      )}
    </svg>
  );
}
