/**
 * The cells that make lost variables again, to look at before agreeing.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ICellShown } from '../shown';

const LINES_SHOWN = 6;

export function RebuildList(props: {
  cells: ICellShown[];
  cannot: { name: string; reason: string }[];
  trans: TranslationBundle;
}): JSX.Element {
  const { cells, cannot, trans } = props;
  return (
    <div className="gpuhub-Rebuild">
      <p>
        {trans._n(
          'This cell of yours makes them again. It runs as if you ran it yourself:',
          'These %1 cells of yours make them again, in this order. They run as if you ran them yourself:',
          cells.length
        )}
      </p>
      <ol className="gpuhub-Rebuild-cells" aria-label={trans.__('Cells to run again')} tabIndex={0}>
        {cells.map(one => (
          <li key={one.number}>
            <div className="gpuhub-Rebuild-head">
              <span className="gpuhub-Rebuild-number">[{one.number}]</span>
              <span>{trans.__('for %1', one.makes.join(', '))}</span>
              {one.seconds >= 1 && (
                <span className="gpuhub-mod-secondary">
                  {trans._n('took %1 second', 'took %1 seconds', Math.round(one.seconds))}
                </span>
              )}
            </div>
            <pre>{shortened(one.code)}</pre>
            {one.warnings.map(text => (
              <div key={text} className="gpuhub-Rebuild-warning">
                {text}
              </div>
            ))}
          </li>
        ))}
      </ol>
      {cannot.length > 0 && (
        <p className="gpuhub-mod-secondary">
          {trans.__('No cell makes %1 again.', cannot.map(one => one.name).join(', '))}
        </p>
      )}
    </div>
  );
}

function shortened(code: string): string {
  const lines = code.trimEnd().split('\n');
  return lines.length <= LINES_SHOWN
    ? lines.join('\n')
    : `${lines.slice(0, LINES_SHOWN - 1).join('\n')}\n…`;
}
