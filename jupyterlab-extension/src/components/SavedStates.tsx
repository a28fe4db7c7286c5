/**
 * The saved states of all notebooks, newest first.
 */
import { ellipsesIcon } from '@jupyterlab/ui-components';
import * as React from 'react';
import { clock, size } from '../format';
import type { ISavedState } from '../shown';
import { locale, savedReason } from '../texts';
import { Facts, type IWithTexts } from './marks';

const FIRST_SHOWN = 6;

export interface ISavedActions {
  restore: (saved: ISavedState) => void;
  openNotebook: (path: string) => void;
  /** All of them, with what is in them. */
  openAll: () => void;
  /** Open the menu of one saved state, at a place in the window. */
  menu: (saved: ISavedState, x: number, y: number) => void;
}

export function SavedStates(
  props: IWithTexts & {
    saved: ISavedState[] | null;
    savedBytes: number;
    actions: ISavedActions;
  }
): JSX.Element {
  const { saved, trans, actions } = props;
  const [all, setAll] = React.useState(false);
  if (saved === null) {
    return <p className="gpuhub-mod-secondary">{trans.__('Reading…')}</p>;
  }
  if (saved.length === 0) {
    return (
      <p className="gpuhub-mod-secondary">
        {trans.__(
          'Nothing saved yet. Notebooks are saved by themselves after long cells and every few minutes, when they move, and when their server stops.'
        )}
      </p>
    );
  }
  const shown = all ? saved : saved.slice(0, FIRST_SHOWN);
  return (
    <>
      <ul className="gpuhub-Saved">
        {shown.map(one => (
          <SavedRow key={one.id} {...props} one={one} />
        ))}
      </ul>
      <p className="gpuhub-mod-secondary gpuhub-Saved-foot">
        {saved.length > shown.length && (
          <button type="button" className="gpuhub-Link" onClick={() => setAll(true)}>
            {trans._n('Show %1 more', 'Show %1 more', saved.length - shown.length)}
          </button>
        )}
        <span>{trans.__('%1 in your home folder', size(props.savedBytes, trans))}</span>
        <button type="button" className="gpuhub-Link" onClick={actions.openAll}>
          {trans.__('Look into them')}
        </button>
      </p>
    </>
  );
}

function SavedRow(props: IWithTexts & { one: ISavedState; actions: ISavedActions }): JSX.Element {
  const { one, trans, now, actions } = props;
  const name = one.notebook?.split('/').pop() ?? trans.__('no notebook');
  const when = clock(one.at, now(), locale(trans));
  const facts = [
    <time key="at" dateTime={new Date(one.at).toISOString()}>
      {when}
    </time>,
    savedReason(one.reason, trans),
    size(one.bytes, trans),
    one.left > 0
      ? trans.__('%1 kept, %2 left', one.kept, one.left)
      : trans._n('%1 variable', '%1 variables', one.kept)
  ];
  const closed = one.kernel === null && one.notebook !== null;
  return (
    <li className="gpuhub-Saved-one">
      <div className="gpuhub-Saved-text">
        <div className="gpuhub-Saved-name" title={one.notebook ?? undefined}>
          {name}
        </div>
        {one.problem === null ? (
          <div className="gpuhub-mod-secondary">
            <Facts facts={facts} />
          </div>
        ) : (
          <div className="gpuhub-Saved-problem">
            <Facts
              facts={[
                facts[0],
                one.problem || trans.__('Damaged or unfinished: it cannot be restored.')
              ]}
            />
          </div>
        )}
      </div>
      {one.problem === null &&
        (closed ? (
          <button
            type="button"
            className="gpuhub-Small"
            title={trans.__('Open %1 first, then restore.', one.notebook ?? '')}
            onClick={() => actions.openNotebook(one.notebook ?? '')}
          >
            {trans.__('Open')}
          </button>
        ) : (
          <button
            type="button"
            className="gpuhub-Small"
            disabled={one.kernel === null}
            aria-label={trans.__('Restore %1 of %2', name, when)}
            onClick={() => actions.restore(one)}
          >
            {trans.__('Restore')}
          </button>
        ))}
      <button
        type="button"
        className="gpuhub-More"
        aria-label={trans.__('More for %1 of %2', name, when)}
        aria-haspopup="menu"
        onClick={event => {
          const at = event.currentTarget.getBoundingClientRect();
          actions.menu(one, at.left, at.bottom);
        }}
      >
        <ellipsesIcon.react tag="span" width="16px" aria-hidden="true" />
      </button>
    </li>
  );
}
