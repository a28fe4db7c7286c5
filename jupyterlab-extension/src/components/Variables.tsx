/**
 * Variables and what becomes of them: name, type, why, what to do.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { size } from '../format';
import type { IVariable } from '../shown';

/** Those that stay behind (or were made anew), each with its reason and the way back. */
export function VariableList(props: {
  variables: IVariable[];
  label: string;
  trans: TranslationBundle;
}): JSX.Element {
  const { variables, trans } = props;
  return (
    <ul className="gpuhub-Variables" aria-label={props.label} tabIndex={0}>
      {variables.map(one => (
        <li key={one.name} className="gpuhub-Variables-one">
          <div className="gpuhub-Variables-head">
            <code className="gpuhub-Variables-name">{one.name}</code>
            <span className="gpuhub-Variables-type">{one.type}</span>
            {one.bytes !== null && (
              <span className="gpuhub-Variables-size">{size(one.bytes, trans)}</span>
            )}
          </div>
          {one.reason && <div className="gpuhub-Variables-reason">{one.reason}</div>}
          {one.hint && <div className="gpuhub-Variables-hint">{one.hint}</div>}
        </li>
      ))}
    </ul>
  );
}

/** A table to choose from: which variables of a saved state should come back. */
export function VariableChooser(props: {
  variables: IVariable[];
  chosen: ReadonlySet<string>;
  onChange: (chosen: ReadonlySet<string>) => void;
  trans: TranslationBundle;
}): JSX.Element {
  const { variables, chosen, onChange, trans } = props;
  const there = variables.filter(one => one.fate !== 'left');
  const gone = variables.filter(one => one.fate === 'left');
  const all = chosen.size === there.length;
  const someBox = React.useRef<HTMLInputElement>(null);
  React.useEffect(() => {
    if (someBox.current) {
      someBox.current.indeterminate = chosen.size > 0 && !all;
    }
  }, [chosen, all]);
  const flip = (name: string) => {
    const next = new Set(chosen);
    if (!next.delete(name)) {
      next.add(name);
    }
    onChange(next);
  };
  return (
    <div className="gpuhub-Chooser">
      <table>
        <thead>
          <tr>
            <th>
              <input
                ref={someBox}
                type="checkbox"
                aria-label={trans.__('All variables')}
                checked={all}
                onChange={() => onChange(new Set(all ? [] : there.map(one => one.name)))}
              />
            </th>
            <th scope="col">{trans.__('Name')}</th>
            <th scope="col">{trans.__('Type')}</th>
            <th scope="col" className="gpuhub-mod-number">
              {trans.__('Size')}
            </th>
          </tr>
        </thead>
        <tbody>
          {there.map(one => (
            <tr key={one.name} onClick={() => flip(one.name)}>
              <td>
                <input
                  type="checkbox"
                  aria-label={one.name}
                  checked={chosen.has(one.name)}
                  onClick={event => event.stopPropagation()}
                  onChange={() => flip(one.name)}
                />
              </td>
              <td>
                <code>{one.name}</code>
              </td>
              <td className="gpuhub-Chooser-type">{one.type}</td>
              <td className="gpuhub-mod-number">
                {one.bytes === null ? '' : size(one.bytes, trans)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {gone.length > 0 && (
        <>
          <h3>{trans.__('Not in this saved state')}</h3>
          <VariableList
            variables={gone}
            label={trans.__('Variables that were left behind')}
            trans={trans}
          />
        </>
      )}
    </div>
  );
}
