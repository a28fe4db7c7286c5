/**
 * Two saved states side by side: what is different in the later one.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { size } from '../format';
import type { IChangeShown, IVariable } from '../shown';

export function Comparison(props: {
  changes: IChangeShown[];
  trans: TranslationBundle;
}): JSX.Element {
  const { changes, trans } = props;
  const [all, setAll] = React.useState(false);
  const different = changes.filter(one => one.change !== 'same');
  const shown = all ? changes : different;
  return (
    <div className="gpuhub-Comparison">
      {shown.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">{trans.__('Name')}</th>
              <th scope="col">{trans.__('What happened')}</th>
              <th scope="col">{trans.__('Before')}</th>
              <th scope="col">{trans.__('After')}</th>
            </tr>
          </thead>
          <tbody>
            {shown.map(one => (
              <tr key={one.name} className={`gpuhub-mod-${one.change}`}>
                <td>
                  <code>{one.name}</code>
                </td>
                <td>{changeText(one.change, trans)}</td>
                <td>{variableText(one.before, trans)}</td>
                <td>{variableText(one.after, trans)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {different.length === 0 && <p>{trans.__('All variables are the same in both.')}</p>}
      {changes.length > different.length && !all && (
        <button type="button" className="gpuhub-Link" onClick={() => setAll(true)}>
          {trans._n(
            'Show %1 variable that is the same',
            'Show %1 variables that are the same',
            changes.length - different.length
          )}
        </button>
      )}
    </div>
  );
}

function changeText(change: IChangeShown['change'], trans: TranslationBundle): string {
  switch (change) {
    case 'added':
      return trans.__('added');
    case 'removed':
      return trans.__('removed');
    case 'changed':
      return trans.__('changed');
    case 'same':
      return trans.__('the same');
    default:
      return trans.__('cannot be told');
  }
}

function variableText(one: IVariable | null, trans: TranslationBundle): string {
  if (one === null) {
    return '';
  }
  if (one.fate === 'left') {
    return trans.__('%1, left behind', one.type);
  }
  return one.bytes === null ? one.type : trans.__('%1, %2', one.type, size(one.bytes, trans));
}
