/**
 * All saved states, by notebook: look into them, restore all or some, compare two, delete.
 */
import * as React from 'react';
import { clock, size } from '../format';
import type { IPanelState, ISavedState } from '../shown';
import { locale, savedReason } from '../texts';
import { type IWithTexts, Meter } from './marks';
import { VariableChooser } from './Variables';

export interface IStatesActions {
  /** `names` null: all of it. */
  restore: (saved: ISavedState, names: string[] | null) => void;
  compare: (first: ISavedState, second: ISavedState) => void;
  remove: (saved: ISavedState) => void;
  openNotebook: (path: string) => void;
}

export function States(
  props: IWithTexts & {
    state: Pick<IPanelState, 'saved' | 'savedBytes' | 'savedLimit' | 'saveProblems'>;
    actions: IStatesActions;
  }
): JSX.Element {
  const { state, trans, actions } = props;
  const [chosen, setChosen] = React.useState<ReadonlySet<string>>(new Set());
  const saved = state.saved ?? [];
  const pair = saved.filter(one => chosen.has(one.id));
  const flip = (id: string) => {
    const next = new Set([...chosen].filter(one => saved.some(other => other.id === one)));
    if (!next.delete(id)) {
      next.add(id);
    }
    setChosen(next);
  };
  const [later, earlier] = pair;
  const use = trans.__(
    '%1 of %2',
    size(state.savedBytes, trans),
    size(state.savedLimit ?? 0, trans)
  );
  return (
    <div className="gpuhub-States">
      <header className="gpuhub-States-head">
        <h2>{trans.__('Saved states')}</h2>
        <button
          type="button"
          className="gpuhub-Small"
          disabled={pair.length !== 2}
          title={trans.__('Choose two saved states to compare them.')}
          onClick={() => later && earlier && actions.compare(earlier, later)}
        >
          {trans.__('Compare')}
        </button>
      </header>
      {state.savedLimit !== null && (
        <p className="gpuhub-States-use">
          <Meter
            share={state.savedBytes / state.savedLimit}
            label={trans.__('What saved states take of your home folder')}
            text={use}
            full={state.savedBytes >= state.savedLimit}
          />
          <span>
            {trans.__(
              '%1 of your home folder. Beyond that the oldest go, never the newest of a notebook.',
              use
            )}
          </span>
        </p>
      )}
      {state.saveProblems.map(one => (
        <p key={one.notebook ?? ''} className="gpuhub-Trouble" role="status">
          {trans.__(
            '%1 could not be saved automatically. %2',
            one.notebook ?? trans.__('A notebook'),
            one.problem
          )}
        </p>
      ))}
      {state.saved === null && <p className="gpuhub-mod-secondary">{trans.__('Reading…')}</p>}
      {state.saved?.length === 0 && (
        <p className="gpuhub-mod-secondary">
          {trans.__(
            'Nothing saved yet. Notebooks are saved by themselves after long cells and every few minutes, when they move, and when their server stops.'
          )}
        </p>
      )}
      {byNotebook(saved).map(([notebook, own]) => (
        <section key={notebook ?? ''} aria-label={notebook ?? trans.__('no notebook')}>
          <h3>
            {notebook === null ? (
              trans.__('no notebook')
            ) : (
              <button
                type="button"
                className="gpuhub-Link"
                onClick={() => actions.openNotebook(notebook)}
              >
                {notebook}
              </button>
            )}
          </h3>
          <ul>
            {own.map(one => (
              <StateRow
                key={one.id}
                {...props}
                one={one}
                chosen={chosen.has(one.id)}
                flip={() => flip(one.id)}
              />
            ))}
          </ul>
        </section>
      ))}
    </div>
  );
}

function StateRow(
  props: IWithTexts & {
    one: ISavedState;
    chosen: boolean;
    flip: () => void;
    actions: IStatesActions;
  }
): JSX.Element {
  const { one, trans, now, actions } = props;
  const [open, setOpen] = React.useState(false);
  const [names, setNames] = React.useState<ReadonlySet<string>>(
    () =>
      new Set(one.variables.filter(variable => variable.fate !== 'left').map(({ name }) => name))
  );
  const when = clock(one.at, now(), locale(trans));
  const there = one.variables.filter(variable => variable.fate !== 'left').length;
  const id = React.useId();
  const usable = one.problem === null;
  return (
    <li className="gpuhub-States-one">
      <div className="gpuhub-States-row">
        <input
          type="checkbox"
          checked={props.chosen}
          disabled={!usable}
          aria-label={trans.__('Compare the state of %1', when)}
          onChange={props.flip}
        />
        <button
          type="button"
          className="gpuhub-States-fold"
          aria-expanded={open}
          aria-controls={id}
          disabled={!usable}
          onClick={() => setOpen(!open)}
        >
          <time dateTime={new Date(one.at).toISOString()}>{when}</time>
          <span>{savedReason(one.reason, trans)}</span>
          <span>{size(one.bytes, trans)}</span>
          <span>
            {usable
              ? trans.__('%1 kept, %2 left', one.kept, one.left)
              : one.problem || trans.__('Damaged or unfinished: it cannot be restored.')}
          </span>
        </button>
        <button
          type="button"
          className="gpuhub-Small"
          aria-label={trans.__('Restore the state of %1', when)}
          disabled={!usable || one.kernel === null}
          title={
            usable && one.kernel === null
              ? trans.__('Open %1 first, then restore.', one.notebook ?? '')
              : undefined
          }
          onClick={() => actions.restore(one, null)}
        >
          {trans.__('Restore')}
        </button>
        <button
          type="button"
          className="gpuhub-Small"
          aria-label={trans.__('Delete the state of %1', when)}
          onClick={() => actions.remove(one)}
        >
          {trans.__('Delete')}
        </button>
      </div>
      {open && (
        <div id={id} className="gpuhub-States-inside">
          <VariableChooser
            variables={one.variables}
            chosen={names}
            onChange={setNames}
            trans={trans}
          />
          {there > 0 && (
            <button
              type="button"
              className="gpuhub-Small"
              disabled={names.size === 0 || one.kernel === null}
              onClick={() => actions.restore(one, [...names])}
            >
              {trans._n('Restore %1 variable', 'Restore %1 variables', names.size)}
            </button>
          )}
        </div>
      )}
    </li>
  );
}

function byNotebook(saved: ISavedState[]): [string | null, ISavedState[]][] {
  const found = new Map<string | null, ISavedState[]>();
  for (const one of saved) {
    found.set(one.notebook, [...(found.get(one.notebook) ?? []), one]);
  }
  return [...found];
}
