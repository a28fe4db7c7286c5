import { nullTranslator } from '@jupyterlab/translation';
import { fireEvent, render, screen, within } from '@testing-library/react';
import { describe, expect, it, type Mock, vi } from 'vitest';
import { Switch } from '../src/components/Switch';
import type { ISwitchActions } from '../src/components/SwitchParts';
import { asides, switchState } from '../src/model/switch';
import type { Room } from '../src/shown';
import type { Status } from '../src/wire';
import {
  at,
  kernel,
  lease,
  left,
  move,
  notice,
  NOON,
  onGpu,
  pool,
  refused,
  simulated,
  status,
  verdict
} from './builders';

const trans = nullTranslator.load('jupyterlab_gpuhub');

type Called = { [Name in keyof ISwitchActions]: Mock<ISwitchActions[Name]> };

function called(): Called {
  const names = [
    'on',
    'off',
    'cancel',
    'moveAnyway',
    'stay',
    'keep',
    'release',
    'openPanel',
    'dismiss',
    'restore',
    'choose'
  ] as const;
  return Object.fromEntries(names.map(name => [name, vi.fn()])) as unknown as Called;
}

function element(said: Partial<Status>, actions: Called, more = {}, room: Room = 'wide') {
  const seen = {
    status: status(said),
    connection: 'live' as const,
    kernel: 'k1',
    answered: () => false,
    ...more
  };
  return (
    <Switch
      state={switchState(seen)}
      asides={asides(seen, () => NOON - 60_000)}
      series={{ times: [NOON - 5000, NOON], utilisationPercent: [30, 37], memoryBytes: [1, 2] }}
      trans={trans}
      now={() => NOON}
      room={room}
      asking={false}
      actions={actions}
    />
  );
}

function draw(said: Partial<Status>, more = {}) {
  const actions = called();
  const view = render(element(said, actions, more));
  return { actions, view, again: (next: Partial<Status>) => view.rerender(element(next, actions)) };
}

const group = () => screen.getByRole('group', { name: 'GPU' });
const toggle = () => screen.getByRole('switch', { name: 'Run on a GPU' });
const spoken = () => screen.getByRole('status').textContent;
const queued = lease({
  state: 'queued',
  position: {
    place: 2,
    ahead: 1,
    waiting_for: 'gpu',
    message: 'All 8 GPUs are in use.',
    estimated_start: at(6)
  }
});
const warning = (timesLeft = 2) => ({
  reason: 'idle' as const,
  at: new Date(NOON + 271_000).toISOString(),
  message: 'Your GPU has been idle for 5 minutes.',
  keep: { minutes: 30, times_left: timesLeft },
  resident_bytes: 12.4e9
});

describe('the switch on the CPU', () => {
  it('is off, and says how many are free', () => {
    const { actions } = draw({});
    expect(toggle().getAttribute('aria-checked')).toBe('false');
    expect(toggle().title).toBe(
      'Run this notebook on a GPU. 3 GPUs are free. Its variables move with it.'
    );
    fireEvent.click(toggle());
    expect(actions.on).toHaveBeenCalledOnce();
    expect(toggle().getAttribute('aria-checked')).toBe('false');
  });

  it('calls simulated GPUs simulated', () => {
    draw({ pools: [simulated()] });
    expect(toggle().title).toContain('1 simulated GPU is free.');
  });

  it('cannot be flipped while the GPU service is away', () => {
    const { actions } = draw({ broker: 'unreachable' });
    expect(toggle().getAttribute('aria-disabled')).toBe('true');
    fireEvent.click(toggle());
    expect(actions.on).not.toHaveBeenCalled();
  });

  it('lets one choose where there are several kinds', () => {
    const { actions } = draw({ pools: [pool(), simulated()] });
    fireEvent.click(screen.getByRole('button', { name: 'Choose a kind of GPU' }));
    fireEvent.click(screen.getByRole('button', { name: /simulated GPU, 8\.0 GB/ }));
    expect(actions.on).toHaveBeenCalledWith('simulated');
  });
});

describe('the switch without certainty', () => {
  it('is neither on nor off', () => {
    draw({ lease: lease(), kernels: [onGpu()] }, { connection: 'away' });
    expect(group().textContent).toContain('no connection');
    expect(toggle().getAttribute('aria-disabled')).toBe('true');
  });

  it('stays out of sight where there is nothing to switch', () => {
    draw({}, { connection: 'absent' });
    expect(screen.queryByRole('group')).toBeNull();
  });
});

describe('the switch on the way', () => {
  it('shows the place in line, more on a click, and Cancel', () => {
    const { actions } = draw({ lease: queued, kernels: [kernel({ move: move('waiting') })] });
    const chip = screen.getByRole('button', { name: /2nd in line.*about 6 min/ });
    fireEvent.click(chip);
    const dialog = screen.getByRole('dialog', { name: 'Waiting for a GPU' });
    expect(dialog.textContent).toContain('All 8 GPUs are in use.');
    expect(dialog.textContent).toContain('1 person is ahead of you.');
    fireEvent.click(screen.getByRole('button', { name: 'Stop waiting' }));
    expect(actions.cancel).toHaveBeenCalledOnce();
    expect(spoken()).toBe('Waiting for a GPU: 2nd in line.');
  });

  it('shows that it starts and checks', () => {
    const { again } = draw({ kernels: [kernel({ move: move('starting') })] });
    expect(group().textContent).toContain('getting your GPU…');
    again({ kernels: [kernel({ move: move('checking') })] });
    expect(group().textContent).toContain('checking what can move…');
  });

  it('shows sizes and progress, and Cancel while it is possible', () => {
    const saving = move('saving', { bytes_done: 8e8, bytes_total: 1.2e9 });
    const { actions, again } = draw({ kernels: [kernel({ move: saving })] });
    expect(group().textContent).toContain('saving 0.8 of 1.2 GB');
    const bar = screen.getByRole('progressbar', { name: 'Progress of the move' });
    expect(bar.getAttribute('aria-valuenow')).toBe('67');
    fireEvent.click(screen.getByRole('button', { name: 'Cancel the move' }));
    expect(actions.cancel).toHaveBeenCalledOnce();
    again({ kernels: [kernel({ move: move('switching', { can_cancel: false }) })] });
    expect(screen.queryByRole('button', { name: 'Cancel the move' })).toBeNull();
  });

  it('waits for the running cell, and says so', () => {
    draw({ kernels: [kernel({ move: move('holding', { message: 'Waiting for the cell.' }) })] });
    expect(group().textContent).toContain('waiting for the running cell');
    expect(spoken()).toBe('Waiting for the cell.');
  });

  it('shows the way back', () => {
    const back = move('loading', { target: 'server', bytes_done: 1e8, bytes_total: 1e9 });
    draw({ lease: lease(), kernels: [onGpu({ move: back })] });
    expect(group().textContent).toContain('moving back');
    expect(group().textContent).toContain('restoring 0.1 of 1.0 GB');
  });
});

describe('the question', () => {
  const said = { kernels: [kernel({ move: refused() })] };

  it('names each variable with type, reason and way back, and asks', () => {
    const { actions } = draw(said);
    fireEvent.click(screen.getByRole('button', { name: /1 of 14 variables stays behind/ }));
    const dialog = screen.getByRole('dialog', { name: 'Before it moves to the GPU' });
    const list = within(dialog).getByRole('list', { name: 'Variables that would stay behind' });
    expect(list.textContent).toContain('log');
    expect(list.textContent).toContain('_io.TextIOWrapper');
    expect(list.textContent).toContain('An open file belongs to the process that opened it.');
    expect(list.textContent).toContain('Open it again after the move.');
    fireEvent.click(within(dialog).getByRole('button', { name: 'Stay' }));
    expect(actions.stay).toHaveBeenCalledOnce();
  });

  it('can be remembered for this notebook', () => {
    const { actions } = draw(said);
    fireEvent.click(screen.getByRole('button', { name: /stays behind/ }));
    fireEvent.click(screen.getByRole('button', { name: 'Move anyway' }));
    expect(actions.moveAnyway).toHaveBeenLastCalledWith(false);
    fireEvent.click(screen.getByRole('checkbox', { name: 'Remember for this notebook' }));
    fireEvent.click(screen.getByRole('button', { name: 'Move anyway' }));
    expect(actions.moveAnyway).toHaveBeenLastCalledWith(true);
  });

  it('appears by itself where somebody looks, without taking the focus from a cell', () => {
    vi.spyOn(document, 'hasFocus').mockReturnValue(true);
    const cell = document.body.appendChild(document.createElement('textarea'));
    cell.focus();
    const { again } = draw({ kernels: [kernel({ move: move('checking') })] });
    again(said);
    expect(screen.getByRole('dialog')).toBeTruthy();
    expect(document.activeElement).toBe(cell);
    again({});
    expect(screen.queryByRole('dialog')).toBeNull();
    cell.remove();
    vi.restoreAllMocks();
  });
});

describe('the switch on a GPU', () => {
  it('is on, with device, use, memory and time; flips back', () => {
    const { actions } = draw({ lease: lease(), kernels: [onGpu()] });
    expect(toggle().getAttribute('aria-checked')).toBe('true');
    for (const fact of ['H100', '37 %', '12.4 GB', '0:42']) {
      expect(group().textContent).toContain(fact);
    }
    fireEvent.click(toggle());
    expect(actions.off).toHaveBeenCalledOnce();
    expect(spoken()).toBe('This notebook runs on a GPU: H100.');
  });

  it('opens use, Release and the panel', () => {
    const { actions } = draw({
      lease: lease(),
      kernels: [onGpu({ last_verdict: [verdict('x'), left('log')] })]
    });
    const open = () => fireEvent.click(screen.getByRole('button', { name: /H100/ }));
    open();
    const dialog = screen.getByRole('dialog', { name: 'H100' });
    expect(
      within(dialog).getByRole('img', { name: 'Use of the GPU in the last 10 minutes' })
    ).toBeTruthy();
    expect(
      within(dialog).getByRole('meter', { name: 'Memory' }).getAttribute('aria-valuetext')
    ).toBe('12.4 of 80.0 GB');
    expect(dialog.textContent).toContain('1 variable stayed behind');
    expect(within(dialog).queryByRole('button', { name: 'Keep' })).toBeNull();
    fireEvent.click(within(dialog).getByRole('button', { name: 'Release' }));
    open();
    fireEvent.click(screen.getByRole('button', { name: 'Open panel' }));
    expect(actions.release).toHaveBeenCalledOnce();
    expect(actions.openPanel).toHaveBeenCalledOnce();
  });

  it('closes its pop-over on Escape, gives the focus back, and keeps keys to itself', () => {
    draw({ lease: lease(), kernels: [onGpu()] });
    const chip = screen.getByRole('button', { name: /H100/ });
    chip.focus();
    fireEvent.click(chip);
    const dialog = screen.getByRole('dialog');
    expect(document.activeElement).toBe(dialog);
    const heard = vi.fn();
    document.addEventListener('keydown', heard);
    fireEvent.keyDown(dialog, { key: 'd' });
    expect(heard).not.toHaveBeenCalled();
    document.removeEventListener('keydown', heard);
    fireEvent.keyDown(dialog, { key: 'Escape' });
    expect(screen.queryByRole('dialog')).toBeNull();
    expect(document.activeElement).toBe(chip);
  });

  it('closes its pop-over on a click elsewhere', () => {
    draw({ lease: lease(), kernels: [onGpu()] });
    fireEvent.click(screen.getByRole('button', { name: /H100/ }));
    fireEvent.pointerDown(document.body);
    expect(screen.queryByRole('dialog')).toBeNull();
  });

  it('always says simulated', () => {
    const device = { id: 'SIM-0', index: 0, memory_bytes: 8e9, simulated: true };
    const one = lease({ devices: [{ ...device, name: 'simulated GPU 0' }] });
    draw({ lease: one, kernels: [onGpu()] });
    expect(group().textContent).toContain('simulated GPU 0');
    expect(spoken()).toContain('simulated');
  });
});

describe('the warning', () => {
  it('counts down, says why, and offers Keep', () => {
    const { actions } = draw({ lease: lease({ warning: warning() }), kernels: [onGpu()] });
    expect(group().textContent).toContain('idle');
    expect(group().textContent).toContain('back to CPU in 4:31');
    const keep = screen.getByRole('button', { name: 'Keep' });
    expect(keep.title).toBe('Keep the GPU for 30 more minutes.');
    fireEvent.click(keep);
    expect(actions.keep).toHaveBeenCalledOnce();
  });

  it('stays open in the same pop-over, and names memory that is only held', () => {
    const { again } = draw({ lease: lease(), kernels: [onGpu()] });
    fireEvent.click(screen.getByRole('button', { name: /H100/ }));
    again({ lease: lease({ warning: warning() }), kernels: [onGpu()] });
    expect(screen.getByRole('dialog').textContent).toContain(
      '12.4 GB of GPU memory are still held by silent processes'
    );
  });

  it('offers no Keep when it is used up', () => {
    draw({ lease: lease({ warning: warning(0) }), kernels: [onGpu()] });
    expect(screen.queryByRole('button', { name: 'Keep' })).toBeNull();
  });

  it('becomes an ending with its own countdown', () => {
    const ending = { reason: 'idle' as const, deadline: at(1.5), message: 'It was idle.' };
    draw({ lease: lease({ state: 'ending', reason: 'idle', ending }), kernels: [onGpu()] });
    expect(group().textContent).toContain('saving, then back to CPU');
    expect(group().textContent).toContain('1:30 left');
  });
});

describe('a narrow toolbar', () => {
  const narrow = (said: Partial<Status>, room: Room) =>
    render(element(said, called(), {}, room)).container.textContent;

  it('says the use, leaves the rest to the pop-over, never the warning or its Keep', () => {
    const said = { lease: lease({ warning: warning() }), kernels: [onGpu()] };
    const calm = narrow({ lease: lease(), kernels: [onGpu()] }, 'narrow');
    expect(calm).toContain('37 %');
    expect(calm).not.toContain('GB');
    expect(narrow(said, 'tiny')).toContain('4:31');
    expect(screen.getByRole('button', { name: 'Keep' })).toBeTruthy();
  });

  it('says how far a move is, whatever the room', () => {
    const saving = move('saving', { bytes_done: 0.9e9, bytes_total: 1.2e9 });
    expect(narrow({ kernels: [kernel({ move: saving })] }, 'narrow')).toContain('moving');
    expect(narrow({ kernels: [kernel({ move: saving })] }, 'narrow')).toContain('saving 75 %');
    expect(narrow({ kernels: [kernel({ move: saving })] }, 'tiny')).toContain('75 %');
    expect(screen.getAllByTitle(/saving 0\.9 of 1\.2 GB/).length).toBeGreaterThan(0);
    const holding = { kernels: [kernel({ move: move('holding') })] };
    expect(narrow(holding, 'narrow')).toContain('waiting for your cell');
  });

  it('keeps the names that screen readers say', () => {
    narrow({ kernels: [kernel({ move: refused(), notices: [notice('lost')] })] }, 'tiny');
    expect(screen.getByRole('button', { name: '1 of 14 variables stays behind' })).toBeTruthy();
    expect(screen.getByRole('button', { name: /GPU lost/ })).toBeTruthy();
  });
});

describe('what stands beside the switch', () => {
  it('is a loss: what was restored, what is gone, what to run again', () => {
    const lost = notice('lost', {
      snapshot: 's1',
      message: 'The GPU was lost. Restored to 11:59; later changes are gone.',
      verdicts: [verdict('df'), left('log')]
    });
    const { actions } = draw({ kernels: [kernel({ notices: [lost] })] });
    fireEvent.click(screen.getByRole('button', { name: /GPU lost · restored to/ }));
    const dialog = screen.getByRole('dialog', { name: 'The GPU was lost' });
    expect(dialog.textContent).toContain('Back again: df.');
    expect(dialog.textContent).toContain('1 variable is gone');
    expect(dialog.textContent).toContain('Run the cells again');
    fireEvent.click(within(dialog).getByRole('button', { name: 'Dismiss' }));
    expect(actions.dismiss.mock.calls[0]?.[0]).toMatchObject({ id: 'notice-lost' });
    expect(toggle()).toBeTruthy();
  });

  it('is an offer to restore all, some or nothing', () => {
    const offer = notice('restore-offer', { snapshot: 's1', verdicts: [verdict('df')] });
    const { actions } = draw({ kernels: [kernel({ notices: [offer] })] });
    for (const [button, action] of [
      ['Restore', actions.restore],
      ['Choose variables…', actions.choose],
      ['Dismiss', actions.dismiss]
    ] as const) {
      fireEvent.click(screen.getByRole('button', { name: /^restore .*\?$/ }));
      fireEvent.click(screen.getByRole('button', { name: button }));
      expect(action).toHaveBeenCalledOnce();
    }
  });

  it('is a move that failed, with its reason and another try', () => {
    const failed = move('failed', {
      ended_at: at(0),
      error: 'limit-reached',
      message: 'You use 1 of 1 GPUs.',
      hint: 'Release the other one first.'
    });
    const { actions } = draw({ kernels: [kernel({ move: failed })] });
    fireEvent.click(screen.getByRole('button', { name: 'not moved' }));
    expect(screen.getByRole('dialog').textContent).toContain('You use 1 of 1 GPUs.');
    expect(screen.getByText('Release the other one first.')).not.toBeNull();
    fireEvent.click(screen.getByRole('button', { name: 'Try again' }));
    expect(actions.on).toHaveBeenCalledOnce();
  });
});
