/**
 * The small marks that all parts share: facts in a row, bars, a turning ring, a number that counts.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

/** Facts that stand side by side, with dots between them. */
export function Facts(props: { facts: React.ReactNode[] }): JSX.Element {
  return (
    <span className="gpuhub-Facts">
      {props.facts.map((fact, index) => (
        <span key={index} className="gpuhub-Facts-fact">
          {fact}
          {index < props.facts.length - 1 && (
            <span className="gpuhub-Facts-dot" aria-hidden="true">
              ·
            </span>
          )}
        </span>
      ))}
    </span>
  );
}

export function Spinner(): JSX.Element {
  return <span className="gpuhub-Spinner" aria-hidden="true" />;
}

/** How much of something is done. `share` null: not known, it moves. */
export function Progress(props: { share: number | null; label: string }): JSX.Element {
  const { share, label } = props;
  const known = share === null ? {} : { 'aria-valuenow': Math.round(share * 100) };
  return (
    <span
      className={`gpuhub-Progress ${share === null ? 'gpuhub-mod-unknown' : ''}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      {...known}
    >
      <span
        className="gpuhub-Progress-done"
        style={share === null ? undefined : { width: `${Math.min(1, Math.max(0, share)) * 100}%` }}
      />
    </span>
  );
}

/** A level: use, memory, a quota. */
export function Meter(props: {
  share: number;
  label: string;
  text: string;
  full?: boolean;
}): JSX.Element {
  const share = Math.min(1, Math.max(0, props.share));
  return (
    <span
      className={`gpuhub-Meter ${props.full ? 'gpuhub-mod-full' : ''}`}
      role="meter"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(share * 100)}
      aria-valuetext={props.text}
    >
      <span className="gpuhub-Meter-level" style={{ width: `${share * 100}%` }} />
    </span>
  );
}

/** Draw again every so often while mounted; 0: never. */
export function useTick(everyMs: number): void {
  const [, setTick] = React.useState(0);
  React.useEffect(() => {
    if (everyMs <= 0) {
      return undefined;
    }
    const timer = setInterval(() => setTick(tick => tick + 1), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
}

/** Says changes to screen readers; seen by nobody. */
export function LiveRegion(props: { text: string }): JSX.Element {
  return (
    <span className="gpuhub-LiveRegion" role="status" aria-live="polite">
      {props.text}
    </span>
  );
}

export interface IWithTexts {
  trans: TranslationBundle;
  now: () => number;
}
