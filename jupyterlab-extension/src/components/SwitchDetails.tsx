/**
 * What the switch's pop-overs hold.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { clock, fromNow, gpuWithMemory, percent, sizePair, span } from '../format';
import type {
  IAside,
  IHolding,
  IPoolShown,
  ISeries,
  IVariable,
  IWaiting,
  IWarning,
  SwitchState
} from '../shown';
import {
  aheadText,
  estimateText,
  locale,
  residentText,
  savedSummary,
  warningSentence
} from '../texts';
import { type IWithTexts, Meter, useTick } from './marks';
import { PopoverButtons, TextButton } from './Popover';
import { Sparkline } from './Sparkline';
import { VariableList } from './Variables';

const WINDOW_MS = 10 * 60 * 1000;

export function WaitingDetails(
  props: IWithTexts & {
    waiting: IWaiting & { serviceAway: boolean };
    onPanel: () => void;
  }
): JSX.Element {
  const { waiting, trans, now } = props;
  useTick(10_000);
  return (
    <>
      <p>{waiting.message}</p>
      {waiting.ahead !== null && <p>{aheadText(waiting.ahead, trans)}</p>}
      {waiting.startsAt !== null && <p>{estimateText(waiting.startsAt, now(), trans)}</p>}
      <p className="gpuhub-mod-secondary">
        {trans.__(
          'You keep your place with the browser closed too. The notebook goes on here meanwhile.'
        )}
      </p>
      <PopoverButtons>
        <TextButton label={trans.__('Open the GPU panel')} onClick={props.onPanel} />
      </PopoverButtons>
    </>
  );
}

export function ConsentDetails(props: {
  state: Extract<SwitchState, { kind: 'consent' }>;
  trans: TranslationBundle;
  onMove: (remember: boolean) => void;
  onStay: () => void;
}): JSX.Element {
  const { state, trans } = props;
  const [remember, setRemember] = React.useState(false);
  const kept = state.total - state.left.length;
  return (
    <>
      <p>
        {trans._n(
          '%1 variable cannot move; nothing was moved yet.',
          '%1 variables cannot move; nothing was moved yet.',
          state.left.length
        )}
        {kept > 0 && ' '}
        {kept > 0 && trans._n('%1 other would follow.', 'The %1 others would follow.', kept)}
      </p>
      <VariableList
        variables={state.left}
        label={trans.__('Variables that would stay behind')}
        trans={trans}
      />
      <label className="gpuhub-Check">
        <input
          type="checkbox"
          checked={remember}
          onChange={event => setRemember(event.target.checked)}
        />
        {trans.__('Remember for this notebook')}
      </label>
      <PopoverButtons>
        <TextButton label={trans.__('Stay')} onClick={props.onStay} />
        <TextButton
          kind="accept"
          label={trans.__('Move anyway')}
          onClick={() => props.onMove(remember)}
        />
      </PopoverButtons>
    </>
  );
}

export function GpuDetails(
  props: IWithTexts & {
    state: IHolding;
    series: ISeries;
    warning: IWarning | null;
    stayedBehind: IVariable[];
    asking: boolean;
    close: () => void;
    actions: { keep: () => void; release: () => void; openPanel: () => void };
  }
): JSX.Element {
  const { state, series, warning, trans, now, actions, close } = props;
  useTick(1000);
  const { meter } = state;
  const total = meter?.memoryTotalBytes ?? state.gpu.memoryBytes;
  return (
    <>
      {warning && (
        <div className="gpuhub-Warning">
          <p>{warning.message}</p>
          <p>{warningSentence(warning.at, now(), trans)}</p>
          {warning.residentBytes ? <p>{residentText(warning.residentBytes, trans)}</p> : null}
        </div>
      )}
      {meter ? (
        <>
          <Sparkline
            times={series.times}
            values={series.utilisationPercent}
            max={100}
            windowMs={WINDOW_MS}
            label={trans.__('Use of the GPU in the last 10 minutes')}
          />
          <dl className="gpuhub-Facts-list">
            <dt>{trans.__('Use')}</dt>
            <dd>
              <Meter
                share={meter.utilisationPercent / 100}
                label={trans.__('Use')}
                text={percent(meter.utilisationPercent, trans)}
              />
              {percent(meter.utilisationPercent, trans)}
            </dd>
            <dt>{trans.__('Memory')}</dt>
            <dd>
              <Meter
                share={total ? meter.memoryBytes / total : 0}
                label={trans.__('Memory')}
                text={sizePair(meter.memoryBytes, total, trans)}
              />
              {sizePair(meter.memoryBytes, total, trans)}
            </dd>
          </dl>
        </>
      ) : (
        <p className="gpuhub-mod-secondary">{trans.__('No measurement of this GPU yet.')}</p>
      )}
      <HeldLines state={state} trans={trans} now={now} />
      {props.stayedBehind.length > 0 && (
        <details className="gpuhub-Fold">
          <summary>
            {trans._n(
              '%1 variable stayed behind',
              '%1 variables stayed behind',
              props.stayedBehind.length
            )}
          </summary>
          <VariableList
            variables={props.stayedBehind}
            label={trans.__('Variables that stayed behind')}
            trans={trans}
          />
        </details>
      )}
      <PopoverButtons>
        <TextButton
          label={trans.__('Open panel')}
          onClick={() => {
            close();
            actions.openPanel();
          }}
        />
        <TextButton
          label={trans.__('Release')}
          title={trans.__('Give the GPU back. Every notebook on it moves back with its variables.')}
          disabled={props.asking}
          onClick={() => {
            close();
            actions.release();
          }}
        />
        {warning && (
          <TextButton
            kind="accept"
            label={trans.__('Keep')}
            title={keepTitle(warning, trans)}
            disabled={props.asking || warning.keep.timesLeft <= 0}
            onClick={() => {
              close();
              actions.keep();
            }}
          />
        )}
      </PopoverButtons>
    </>
  );
}

export function keepTitle(warning: IWarning, trans: TranslationBundle): string {
  return warning.keep.timesLeft > 0
    ? trans._n(
        'Keep the GPU for %2 more minutes. You can do so once.',
        'Keep the GPU for %2 more minutes. You can do so %1 more times.',
        warning.keep.timesLeft,
        warning.keep.minutes
      )
    : trans.__('It cannot be kept any further. Using the GPU keeps it.');
}

/** Since when, how long it may be idle, when it ends at the latest. */
export function HeldLines(props: IWithTexts & { state: IHolding }): JSX.Element {
  const { state, trans, now } = props;
  const lines: string[] = [];
  const at = (when: number) => clock(when, now(), locale(trans));
  if (state.since !== null) {
    lines.push(trans.__('On since %1, for %2.', at(state.since), span(now() - state.since, trans)));
  }
  if (state.idleSeconds !== null && state.idleSeconds >= 60) {
    lines.push(trans.__('Idle for %1.', span(state.idleSeconds * 1000, trans)));
  } else if (state.idleAfterSeconds !== null) {
    lines.push(
      trans.__('Counts as idle after %1 without use.', span(state.idleAfterSeconds * 1000, trans))
    );
  }
  if (state.latestEnd !== null) {
    lines.push(
      trans.__(
        'Ends %1 at the latest, %2.',
        at(state.latestEnd),
        fromNow(state.latestEnd - now(), trans)
      )
    );
  }
  return (
    <ul className="gpuhub-Lines">
      {lines.map(line => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  );
}

export function PoolChoice(props: {
  pools: IPoolShown[];
  trans: TranslationBundle;
  onChoose: (pool: string) => void;
}): JSX.Element {
  const { pools, trans } = props;
  return (
    <ul className="gpuhub-Pools">
      {pools.map(pool => (
        <li key={pool.name}>
          <button
            type="button"
            className="gpuhub-Pools-one"
            onClick={() => props.onChoose(pool.name)}
          >
            <span className="gpuhub-Pools-name">{gpuWithMemory(pool.gpu, trans)}</span>
            <span className="gpuhub-mod-secondary">
              {pool.free > 0
                ? trans.__('%1 of %2 free', pool.free, pool.total)
                : trans._n('none free, %1 waits', 'none free, %1 wait', pool.waiting)}
            </span>
          </button>
        </li>
      ))}
    </ul>
  );
}

export function AsideDetails(
  props: IWithTexts & {
    aside: IAside;
    onDismiss: () => void;
    onRestore: () => void;
    onChoose: () => void;
    onAgain: () => void;
  }
): JSX.Element {
  const { aside, trans } = props;
  const offer = aside.kind === 'restore-offer';
  const left = aside.variables.filter(one => one.fate === 'left');
  const back = aside.variables.filter(one => one.fate !== 'left');
  return (
    <>
      <p>{aside.message}</p>
      {aside.hint && <p className="gpuhub-mod-secondary">{aside.hint}</p>}
      {back.length > 0 && (
        <p className="gpuhub-mod-secondary gpuhub-Names">{savedSummary(back, offer, trans)}</p>
      )}
      {left.length > 0 && (
        <>
          <h3>{leftTitle(aside, left.length, trans)}</h3>
          <VariableList
            variables={left}
            label={trans.__('Variables that are not there')}
            trans={trans}
          />
        </>
      )}
      {(aside.kind === 'lost' || aside.kind === 'cut') && (
        <p className="gpuhub-mod-secondary">
          {trans.__('Run the cells again that came after this state.')}
        </p>
      )}
      <PopoverButtons>
        <TextButton label={trans.__('Dismiss')} onClick={props.onDismiss} />
        {offer && <TextButton label={trans.__('Choose variables…')} onClick={props.onChoose} />}
        {offer && (
          <TextButton kind="accept" label={trans.__('Restore')} onClick={props.onRestore} />
        )}
        {aside.kind === 'failed' && (
          <TextButton kind="accept" label={trans.__('Try again')} onClick={props.onAgain} />
        )}
      </PopoverButtons>
    </>
  );
}

function leftTitle(aside: IAside, count: number, trans: TranslationBundle): string {
  if (aside.kind === 'restore-offer') {
    return trans._n('%1 variable was not saved', '%1 variables were not saved', count);
  }
  return aside.kind === 'moved-back'
    ? trans._n('%1 variable stayed behind', '%1 variables stayed behind', count)
    : trans._n('%1 variable is gone', '%1 variables are gone', count);
}
