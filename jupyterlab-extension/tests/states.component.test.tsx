import { nullTranslator } from '@jupyterlab/translation';
import { fireEvent, render, screen, within } from '@testing-library/react';
import { describe, expect, it, vi } from 'vitest';
import { Comparison } from '../src/components/Comparison';
import { RebuildList } from '../src/components/Rebuild';
import { type IStatesActions, States } from '../src/components/States';
import { shownVariable } from '../src/model/naming';
import { news } from '../src/model/news';
import { panelState } from '../src/model/panel';
import type { SnapshotInfo, Status } from '../src/wire';
import { at, kernel, left, move, NOON, snapshot, status, verdict } from './builders';

const trans = nullTranslator.load('jupyterlab_gpuhub');

function draw(saved: SnapshotInfo[] | null, said: Partial<Status> = {}) {
  const actions = {
    restore: vi.fn(),
    compare: vi.fn(),
    remove: vi.fn(),
    openNotebook: vi.fn()
  } satisfies IStatesActions;
  const series = { times: [], utilisationPercent: [], memoryBytes: [] };
  render(
    <States
      state={panelState(status(said), 'live', series, saved)}
      trans={trans}
      now={() => NOON}
      actions={actions}
    />
  );
  return actions;
}

const here = kernel({ id: 'k1', notebook: 'a.ipynb' });
const two = [
  snapshot('s2', {
    notebook: 'a.ipynb',
    created_at: at(-5),
    reason: 'automatic',
    kept: 2,
    left: 1,
    verdicts: [verdict('x'), verdict('y'), left('log')]
  }),
  snapshot('s1', { notebook: 'a.ipynb', created_at: at(-65), verdicts: [verdict('x')] })
];

describe('the saved states', () => {
  it('teach what saves when there are none', () => {
    draw([]);
    expect(screen.getByText(/saved by themselves/)).toBeTruthy();
  });

  it('stand under their notebooks, with what they take of the limit', () => {
    draw([...two, snapshot('s3', { notebook: 'b.ipynb' })], {
      snapshots_bytes: 1.2e9,
      snapshots_limit_bytes: 20e9
    });
    expect(
      within(screen.getByRole('region', { name: 'a.ipynb' })).getAllByRole('listitem')
    ).toHaveLength(2);
    expect(screen.getByRole('region', { name: 'b.ipynb' })).toBeTruthy();
    expect(screen.getByRole('meter').getAttribute('aria-valuetext')).toBe('1.2 GB of 20.0 GB');
    expect(screen.getByText('by itself')).toBeTruthy();
  });

  it('say why a notebook is not saved automatically', () => {
    draw(two, { kernels: [{ ...here, save_problem: 'There is no room left.' }] });
    expect(screen.getByRole('status').textContent).toBe(
      'a.ipynb could not be saved automatically. There is no room left.'
    );
  });

  it('restore all, or what was chosen inside', () => {
    const actions = draw(two, { kernels: [here] });
    fireEvent.click(
      screen.getAllByRole('button', { name: /^Restore the state/ })[0] as HTMLElement
    );
    expect(actions.restore.mock.calls[0]?.[1]).toBeNull();
    fireEvent.click(screen.getByRole('button', { name: /by itself/ }));
    expect(screen.getByText('An open file belongs to the process that opened it.')).toBeTruthy();
    fireEvent.click(screen.getByRole('checkbox', { name: 'y' }));
    fireEvent.click(screen.getByRole('button', { name: 'Restore 1 variable' }));
    expect(actions.restore.mock.calls[1]?.[0]).toMatchObject({ id: 's2' });
    expect(actions.restore.mock.calls[1]?.[1]).toEqual(['x']);
  });

  it('compare two, the earlier first, and never one or three', () => {
    const actions = draw([...two, snapshot('s3', { notebook: 'a.ipynb', created_at: at(-99) })]);
    const button = screen.getByRole('button', { name: 'Compare' }) as HTMLButtonElement;
    const boxes = screen.getAllByRole('checkbox');
    expect(button.disabled).toBe(true);
    fireEvent.click(boxes[0] as HTMLElement);
    expect(button.disabled).toBe(true);
    fireEvent.click(boxes[1] as HTMLElement);
    fireEvent.click(button);
    expect(actions.compare.mock.calls[0]?.map((one: { id: string }) => one.id)).toEqual([
      's1',
      's2'
    ]);
    fireEvent.click(boxes[2] as HTMLElement);
    expect(button.disabled).toBe(true);
  });

  it('let a damaged one only be deleted', () => {
    const actions = draw([snapshot('s9', { complete: false, problem: 'It was never finished.' })]);
    expect(screen.getByText('It was never finished.')).toBeTruthy();
    const restore = screen.getByRole('button', { name: /^Restore/ }) as HTMLButtonElement;
    expect(restore.disabled).toBe(true);
    fireEvent.click(screen.getByRole('button', { name: /^Delete/ }));
    expect(actions.remove).toHaveBeenCalledOnce();
  });
});

describe('a comparison', () => {
  it('shows what is different, and the rest when asked', () => {
    const x = shownVariable(verdict('x'));
    render(
      <Comparison
        trans={trans}
        changes={[
          { name: 'a', change: 'added', before: null, after: x },
          { name: 'b', change: 'same', before: x, after: x },
          { name: 'c', change: 'unknown', before: shownVariable(left('c')), after: x }
        ]}
      />
    );
    expect(screen.getAllByRole('row')).toHaveLength(3);
    expect(screen.getByText('_io.TextIOWrapper, left behind')).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Show 1 variable that is the same' }));
    expect(screen.getAllByRole('row')).toHaveLength(4);
  });

  it('says when nothing is different', () => {
    render(<Comparison trans={trans} changes={[]} />);
    expect(screen.getByText('All variables are the same in both.')).toBeTruthy();
  });
});

describe('the cells to run again', () => {
  it('show their text as text, what they are for, and what else they do', () => {
    render(
      <RebuildList
        trans={trans}
        cannot={[{ name: 'z', reason: '' }]}
        cells={[
          {
            number: 3,
            code: '<b>conn</b> = 1\n'.repeat(20),
            makes: ['conn'],
            seconds: 12,
            warnings: ['It writes, moves or deletes files.']
          }
        ]}
      />
    );
    expect(screen.getByText('[3]')).toBeTruthy();
    expect(screen.getByText('for conn')).toBeTruthy();
    expect(screen.getByText('took 12 seconds')).toBeTruthy();
    expect(screen.getByText('It writes, moves or deletes files.')).toBeTruthy();
    expect(screen.getByText(/<b>conn<\/b>/).textContent?.split('\n')).toHaveLength(6);
    expect(screen.getByText('No cell makes z again.')).toBeTruthy();
  });
});

describe('a move that left something behind', () => {
  const ended = (verdicts = [left('log')]) =>
    status({
      kernels: [
        kernel({ id: 'k1', move: move('done', { ended_at: at(0) }), last_verdict: verdicts })
      ]
    });
  const before = status({ kernels: [kernel({ id: 'k1', move: move('loading') })] });

  it('is news once', () => {
    expect(news(before, ended())).toContainEqual({ kind: 'carried', kernel: 'k1' });
    expect(news(ended(), ended())).toEqual([]);
    expect(news(null, ended())).toEqual([]);
  });

  it('is none where all came along, or was excluded', () => {
    expect(news(before, ended([verdict('x')]))).toEqual([]);
    expect(news(before, ended([{ ...left('log'), excluded: true }]))).toEqual([]);
  });
});
