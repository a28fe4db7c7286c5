import { nullTranslator } from '@jupyterlab/translation';
import { fireEvent, render, screen, within } from '@testing-library/react';
import { describe, expect, it, vi } from 'vitest';
import { type IPanelActions, Panel } from '../src/components/Panel';
import type { Connection } from '../src/model/follower';
import { panelState } from '../src/model/panel';
import type { SnapshotInfo, Status } from '../src/wire';
import { at, kernel, lease, NOON, onGpu, pool, simulated, snapshot, status } from './builders';

const trans = nullTranslator.load('jupyterlab_gpuhub');

function draw(
  said: Partial<Status> | null,
  saved: SnapshotInfo[] | null = [],
  connection: Connection = 'live'
) {
  const actions = {
    refresh: vi.fn(),
    keep: vi.fn(),
    release: vi.fn(),
    openNotebook: vi.fn(),
    openAll: vi.fn(),
    restore: vi.fn(),
    menu: vi.fn()
  } satisfies IPanelActions;
  const series = {
    times: [NOON - 5000, NOON],
    utilisationPercent: [30, 37],
    memoryBytes: [1e9, 12.4e9]
  };
  render(
    <Panel
      state={panelState(said && status(said), connection, series, saved)}
      trans={trans}
      now={() => NOON}
      asking={false}
      moreUrl="/services/gpu/"
      actions={actions}
    />
  );
  return actions;
}

const section = (name: string) => screen.getByRole('region', { name });

describe('the card', () => {
  it('teaches while there is no GPU', () => {
    draw({});
    expect(screen.getByText('No GPU yet.')).toBeTruthy();
    expect(
      screen.getByText('Flip the switch in a notebook’s toolbar, or run “gpu on” in a terminal.')
    ).toBeTruthy();
  });

  it('shows the place in line, and stops waiting', () => {
    const position = {
      place: 3,
      ahead: 2,
      waiting_for: 'gpu' as const,
      message: 'All 8 GPUs are in use.',
      estimated_start: at(6)
    };
    const actions = draw({ lease: lease({ state: 'queued', position }) });
    expect(screen.getByRole('heading', { name: '3rd in line' })).toBeTruthy();
    expect(screen.getByText('2 people are ahead of you.')).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Stop waiting' }));
    expect(actions.release).toHaveBeenCalledOnce();
  });

  it('shows what is held: device, use, memory, what runs there, terms', () => {
    const actions = draw({
      lease: lease(),
      kernels: [onGpu(), kernel({ id: 'k2', notebook: 'other.ipynb' })],
      commands: [{ id: 'c1', command: 'python train.py', started_at: at(-12) }]
    });
    expect(screen.getByRole('meter', { name: 'Use' }).getAttribute('aria-valuetext')).toBe('37 %');
    expect(screen.getByRole('meter', { name: 'Memory' }).getAttribute('aria-valuetext')).toBe(
      '12.4 of 80.0 GB'
    );
    expect(
      screen.getByRole('img', { name: 'Use and memory of the GPU in the last 10 minutes' })
    ).toBeTruthy();
    const here = screen.getByRole('list', { name: 'What runs on this GPU' });
    expect(here.textContent).toContain('python train.py');
    expect(here.textContent).not.toContain('other.ipynb');
    fireEvent.click(within(here).getByRole('button', { name: 'train.ipynb' }));
    expect(actions.openNotebook).toHaveBeenCalledWith('work/train.ipynb');
    expect(screen.getByText('Counts as idle after 10 min without use.')).toBeTruthy();
    expect(screen.getByText(/Ends .* at the latest, in 6 h\./)).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Release' }));
    expect(actions.release).toHaveBeenCalledOnce();
  });

  it('warns with a countdown and Keep', () => {
    const warning = {
      reason: 'idle' as const,
      at: at(4.5),
      message: 'Your GPU has been idle for 5 minutes.',
      keep: { minutes: 30, times_left: 1 },
      resident_bytes: null
    };
    const actions = draw({ lease: lease({ warning }), kernels: [onGpu()] });
    const alert = screen.getByRole('alert');
    expect(alert.textContent).toContain('Your GPU has been idle for 5 minutes.');
    expect(alert.textContent).toMatch(/Back to the CPU at .*, in 4:30\./);
    const keep = screen.getByRole('button', { name: 'Keep' });
    expect(keep.title).toBe('Keep the GPU for 30 more minutes. You can do so once.');
    fireEvent.click(keep);
    expect(actions.keep).toHaveBeenCalledOnce();
  });

  it('says how long an ending has', () => {
    const ending = { reason: 'revoked' as const, deadline: at(2), message: 'Maintenance.' };
    draw({ lease: lease({ state: 'ending', ending }), kernels: [onGpu()] });
    expect(screen.getByText('Maintenance.')).toBeTruthy();
    expect(screen.getByText('Saving what runs on it, and moving it back: 2:00 left.')).toBeTruthy();
  });

  it('says simulated', () => {
    const device = { id: 'SIM-0', index: 0, memory_bytes: 8e9, simulated: true };
    draw({
      lease: lease({ devices: [{ ...device, name: 'simulated GPU 0' }] }),
      pools: [simulated()]
    });
    expect(screen.getByText('simulated GPU 0')).toBeTruthy();
    expect(section('Queue').textContent).toContain('simulated GPU, 8.0 GB');
  });
});

describe('queue and limits', () => {
  it('count what is free and who waits', () => {
    draw({ pools: [pool(), pool({ name: 'a100', free: 0, waiting: 2 })] });
    expect(section('Queue').textContent).toContain('3 of 8 free · nobody waits');
    expect(section('Queue').textContent).toContain('0 of 8 free · 2 wait');
  });

  it('show the week with what is used, allowed, and when hours come back', () => {
    draw({
      quotas: [
        { name: 'gpus_at_once', used: 1, allowed: 1, unit: 'GPUs', frees_at: null },
        {
          name: 'gpu_hours_per_week',
          used: 11.2,
          allowed: 20,
          unit: 'GPU-hours',
          frees_at: at(60 * 24 * 2)
        },
        { name: 'longest_lease_hours', used: null, allowed: 12, unit: 'hours', frees_at: null }
      ]
    });
    const text = section('Your limits').textContent;
    expect(text).toContain('1 of 1 GPU in use');
    expect(text).toContain('11.2 of 20 GPU-hours');
    expect(text).toContain('Hours come back from Friday on.');
    expect(text).toContain('At most 12 hours at a time');
  });

  it('say where there is no limit', () => {
    draw({
      quotas: [
        { name: 'gpu_hours_per_week', used: 2, allowed: null, unit: 'GPU-hours', frees_at: null }
      ]
    });
    expect(section('Your limits').textContent).toContain('This week: 2.0 GPU-hours, no limit');
  });
});

describe('saved states', () => {
  it('can be restored where the notebook is open', () => {
    const actions = draw({}, [snapshot('s1')]);
    expect(section('Saved states').textContent).toContain('13 kept, 1 left');
    expect(section('Saved states').textContent).toContain('before release');
    fireEvent.click(screen.getByRole('button', { name: /^Restore train\.ipynb of/ }));
    expect(actions.restore.mock.calls[0]?.[0]).toMatchObject({ id: 's1', kernel: 'k1' });
    fireEvent.click(screen.getByRole('button', { name: /^More for train\.ipynb/ }));
    expect(actions.menu).toHaveBeenCalledOnce();
  });

  it('open their notebook first where it is not', () => {
    const actions = draw({}, [snapshot('s1', { notebook: 'b.ipynb', kernel: 'gone' })]);
    fireEvent.click(screen.getByRole('button', { name: 'Open' }));
    expect(actions.openNotebook).toHaveBeenCalledWith('b.ipynb');
  });

  it('say what is wrong with a damaged one, and do not offer it', () => {
    draw({}, [snapshot('s1', { complete: false, problem: 'The file was cut off.' })]);
    expect(screen.getByText('The file was cut off.')).toBeTruthy();
    expect(screen.queryByRole('button', { name: /^Restore/ })).toBeNull();
  });

  it('teach while there is none', () => {
    draw({}, []);
    expect(section('Saved states').textContent).toContain('Nothing saved yet.');
  });

  it('are a few at first, and all on request', () => {
    draw(
      {},
      Array.from({ length: 9 }, (_, n) => snapshot(`s${n}`))
    );
    expect(screen.getAllByRole('button', { name: /^Restore/ })).toHaveLength(6);
    fireEvent.click(screen.getByRole('button', { name: 'Show 3 more' }));
    expect(screen.getAllByRole('button', { name: /^Restore/ })).toHaveLength(9);
  });
});

describe('the way on', () => {
  it('leads to the page of all leases, in a tab of its own', () => {
    draw({});
    const link = screen.getByRole('link', { name: 'All your leases and limits' });
    expect(link.getAttribute('href')).toBe('/services/gpu/');
    expect(link.getAttribute('target')).toBe('_blank');
  });
});

describe('trouble', () => {
  it.each([
    ['away', 'The server does not answer'],
    ['signed-out', 'You are not signed in'],
    ['absent', 'This server offers no GPUs']
  ] as const)('is said: %s', (connection, sentence) => {
    draw({}, [], connection);
    expect(screen.getByRole('status').textContent).toContain(sentence);
  });

  it('of the GPU service is told apart from the server’s', () => {
    draw({ broker: 'unreachable' });
    expect(screen.getByRole('status').textContent).toContain('The GPU service does not answer');
  });
});
