import { describe, expect, it } from 'vitest';
import { asides, type ISeen, switchState } from '../src/model/switch';
import type { SwitchState } from '../src/shown';
import type { KernelStatus, Move, Status } from '../src/wire';
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

function seen(changes: Partial<ISeen> = {}): ISeen {
  return { status: status(), connection: 'live', kernel: 'k1', answered: () => false, ...changes };
}

function shown(said: Partial<Status>, changes: Partial<ISeen> = {}): SwitchState {
  return switchState(seen({ status: status(said), ...changes }));
}

const during = (running: Move, said: Partial<Status> = {}, one: Partial<KernelStatus> = {}) =>
  shown({ kernels: [kernel({ move: running, ...one })], ...said });

describe('the switch without certainty', () => {
  it('is hidden where the server has no such interface', () => {
    expect(shown({}, { connection: 'absent' })).toEqual({ kind: 'hidden' });
  });

  it.each(['away', 'signed-out'] as const)(
    'claims nothing while the connection is %s',
    connection => {
      const state = shown({ kernels: [onGpu()], lease: lease() }, { connection });
      expect(state).toEqual({ kind: 'unknown', why: connection });
    }
  );

  it('says that it is connecting before the first word', () => {
    const state = switchState(seen({ status: null, connection: 'connecting' }));
    expect(state).toEqual({ kind: 'unknown', why: 'connecting' });
  });

  it('says that there is no kernel', () => {
    expect(shown({}, { kernel: null })).toEqual({ kind: 'unknown', why: 'no-kernel' });
    expect(shown({}, { kernel: 'other' })).toEqual({ kind: 'unknown', why: 'no-kernel' });
  });
});

describe('CPU', () => {
  it('knows how many GPUs are free', () => {
    const state = shown({ pools: [pool(), simulated()] });
    expect(state).toMatchObject({ kind: 'cpu', held: null, serviceAway: false, startsAnew: false });
    expect(state.kind === 'cpu' && state.pools.map(one => one.free)).toEqual([3, 1]);
  });

  it('knows of a GPU that another notebook holds', () => {
    expect(shown({ lease: lease() })).toMatchObject({ kind: 'cpu', held: { model: 'H100' } });
    expect(shown({ lease: lease({ state: 'queued' }) })).toMatchObject({ held: null });
    expect(shown({ lease: lease({ state: 'ending' }) })).toMatchObject({ held: null });
  });

  it('knows that the GPU service does not answer', () => {
    expect(shown({ broker: 'unreachable' })).toMatchObject({ kind: 'cpu', serviceAway: true });
  });

  it('knows that other languages start anew', () => {
    const state = shown({ kernels: [kernel({ movable: 'fresh', language: 'R' })] });
    expect(state).toMatchObject({ kind: 'cpu', startsAnew: true });
  });

  it('comes back after a move that was cancelled or done', () => {
    for (const step of ['cancelled', 'done'] as const) {
      expect(during(move(step, { ended_at: at(0) })).kind).toBe('cpu');
    }
  });
});

describe('waiting', () => {
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

  it('shows place, estimate and reason, and can be cancelled', () => {
    expect(during(move('waiting'), { lease: queued })).toEqual({
      kind: 'waiting',
      place: 2,
      ahead: 1,
      startsAt: NOON + 6 * 60_000,
      message: 'All 8 GPUs are in use.',
      canCancel: true,
      serviceAway: false
    });
  });

  it('says what it waits for before it has a place', () => {
    const state = during(move('waiting', { message: 'Asking for a GPU.' }), {
      broker: 'unreachable'
    });
    expect(state).toMatchObject({
      place: null,
      message: 'Asking for a GPU.',
      serviceAway: true
    });
  });
});

describe('on the way', () => {
  it.each(['starting', 'checking'] as const)('shows %s', step => {
    expect(during(move(step))).toMatchObject({ kind: step, target: 'worker', canCancel: true });
  });

  it.each(['holding', 'saving', 'loading', 'switching'] as const)('shows %s with sizes', step => {
    const running = move(step, {
      bytes_done: 8e8,
      bytes_total: 1.2e9,
      can_cancel: step !== 'switching'
    });
    expect(during(running)).toMatchObject({
      kind: 'moving',
      phase: step,
      bytesDone: 8e8,
      bytesTotal: 1.2e9,
      canCancel: step !== 'switching',
      because: null
    });
  });

  it('says why it moves back although nobody asked, and offers no cancel', () => {
    const ending = lease({
      state: 'ending',
      ending: { reason: 'idle', deadline: at(2), message: 'The GPU was idle.' }
    });
    const running = move('saving', { target: 'server', asked: false });
    expect(during(running, { lease: ending }, { placement: 'worker' })).toMatchObject({
      kind: 'moving',
      target: 'server',
      because: 'The GPU was idle.',
      canCancel: false
    });
  });

  it('says that a lost notebook is brought back', () => {
    const running = move('waiting', {
      target: 'server',
      asked: false,
      message: 'The GPU was lost.'
    });
    expect(during(running, {}, { placement: 'worker' })).toEqual({
      kind: 'recovering',
      message: 'The GPU was lost.'
    });
  });
});

describe('the question', () => {
  it('lists what would stay behind, and out of how many', () => {
    const state = during(refused());
    expect(state).toMatchObject({
      kind: 'consent',
      move: 'move-refused',
      target: 'worker',
      total: 14
    });
    expect(state.kind === 'consent' && state.left).toEqual([
      {
        name: 'log',
        type: '_io.TextIOWrapper',
        bytes: null,
        fate: 'left',
        reason: 'An open file belongs to the process that opened it.',
        hint: 'Open it again after the move.'
      }
    ]);
  });

  it('is asked on the way back too', () => {
    const state = during(
      refused({ target: 'server' }),
      { lease: lease() },
      { placement: 'worker' }
    );
    expect(state).toMatchObject({ kind: 'consent', target: 'server' });
  });

  it('is not asked again once it was answered', () => {
    const said = { kernels: [kernel({ move: refused() })] };
    expect(shown(said, { answered: id => id === 'move-refused' }).kind).toBe('cpu');
  });

  it('is over when the notebook has got there otherwise', () => {
    const state = during(refused(), { lease: lease() }, { placement: 'worker' });
    expect(state.kind).toBe('on');
  });
});

describe('on', () => {
  it('shows device, use, memory and time', () => {
    expect(shown({ lease: lease(), kernels: [onGpu()] })).toMatchObject({
      kind: 'on',
      gpu: { model: 'H100', simulated: false, count: 1 },
      meter: { utilisationPercent: 37, memoryBytes: 12.4e9, memoryTotalBytes: 80e9 },
      since: NOON - 42 * 60_000,
      latestEnd: NOON + 360 * 60_000,
      idleAfterSeconds: 600,
      stayedBehind: []
    });
  });

  it('does not hide what stayed behind', () => {
    const one = onGpu({ last_verdict: [verdict('x'), left('log')] });
    const state = shown({ lease: lease(), kernels: [one] });
    expect(state.kind === 'on' && state.stayedBehind.map(found => found.name)).toEqual(['log']);
  });

  it('is still on when nothing is known of the lease', () => {
    expect(shown({ lease: null, kernels: [onGpu()] })).toMatchObject({ kind: 'on', meter: null });
  });

  it('knows simulated GPUs', () => {
    const one = lease({
      pool: 'simulated',
      devices: [
        { id: 'SIM-0', index: 0, name: 'simulated GPU 0', memory_bytes: 8e9, simulated: true }
      ]
    });
    expect(shown({ lease: one, kernels: [onGpu()] })).toMatchObject({ gpu: { simulated: true } });
  });
});

describe('warning and ending', () => {
  it('shows the countdown’s end, the reason and what is left of Keep', () => {
    const warned = lease({
      warning: {
        reason: 'idle',
        at: at(4.5),
        message: 'Idle for 5 minutes.',
        keep: { minutes: 30, times_left: 2 },
        resident_bytes: 12e9
      }
    });
    expect(shown({ lease: warned, kernels: [onGpu()] })).toMatchObject({
      kind: 'warning',
      warning: {
        reason: 'idle',
        at: NOON + 270_000,
        keep: { minutes: 30, timesLeft: 2 },
        residentBytes: 12e9
      }
    });
  });

  it('shows that a lease ends, and until when', () => {
    const ending = lease({
      state: 'ending',
      reason: 'expired',
      ending: { reason: 'expired', deadline: at(2), message: 'The time is over.' }
    });
    expect(shown({ lease: ending, kernels: [onGpu()] })).toEqual({
      kind: 'ending',
      gpu: { model: 'H100', simulated: false, count: 1, memoryBytes: 80e9 },
      deadline: NOON + 120_000,
      message: 'The time is over.',
      reason: 'expired'
    });
  });
});

describe('what stands beside the switch', () => {
  const savedAt = (id: string) => (id === 's1' ? NOON - 60_000 : null);

  it.each(['moved-back', 'restored', 'lost', 'cut', 'restore-offer'] as const)(
    'is a notice of the kind %s, until it is dismissed',
    kind => {
      const one = kernel({ notices: [notice(kind, { snapshot: 's1' })] });
      const found = asides(seen({ status: status({ kernels: [one] }) }), savedAt);
      expect(found).toMatchObject([{ kind, savedAt: NOON - 60_000 }]);
      expect(asides(seen(), savedAt)).toEqual([]);
    }
  );

  it('is a move that failed, until it was read', () => {
    const failed = move('failed', {
      ended_at: at(0),
      error: 'limit-reached',
      message: 'You use 1 of 1 GPUs.',
      hint: 'Release the other one first.'
    });
    const said = status({ kernels: [kernel({ move: failed })] });
    expect(asides(seen({ status: said }), savedAt)).toMatchObject([
      { kind: 'failed', message: 'You use 1 of 1 GPUs.', hint: 'Release the other one first.' }
    ]);
    expect(asides(seen({ status: said, answered: () => true }), savedAt)).toEqual([]);
  });

  it('is not a question: that has its own place', () => {
    const said = status({ kernels: [kernel({ move: refused() })] });
    expect(asides(seen({ status: said }), savedAt)).toEqual([]);
  });
});
