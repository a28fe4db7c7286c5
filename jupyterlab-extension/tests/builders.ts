/**
 * Makes what a server says, with everything that a test does not care about filled in.
 */
import type {
  KernelNotice,
  KernelStatus,
  Lease,
  Move,
  Pool,
  SnapshotInfo,
  Status,
  Verdict
} from '../src/wire';

export const NOON = Date.parse('2026-11-25T12:00:00Z');

export const at = (minutes: number): string => new Date(NOON + minutes * 60_000).toISOString();

export function pool(changes: Partial<Pool> = {}): Pool {
  return {
    name: 'h100',
    title: 'NVIDIA H100 80GB HBM3',
    memory_bytes: 80e9,
    sharing: 'exclusive',
    simulated: false,
    total: 8,
    free: 3,
    waiting: 0,
    ...changes
  };
}

export const simulated = (changes: Partial<Pool> = {}): Pool =>
  pool({
    name: 'simulated',
    title: 'simulated GPU',
    memory_bytes: 8e9,
    simulated: true,
    total: 2,
    free: 1,
    ...changes
  });

export function lease(changes: Partial<Lease> = {}): Lease {
  return {
    id: 'lease-1',
    revision: 1,
    user: 'ann',
    server: '',
    pool: 'h100',
    gpus: 1,
    priority: 'normal',
    state: 'active',
    reason: null,
    message: '',
    created_at: at(-50),
    granted_at: at(-43),
    active_at: at(-42),
    ends_at: at(360),
    ended_at: null,
    position: null,
    devices: [
      {
        id: 'GPU-1',
        index: 0,
        name: 'NVIDIA H100 80GB HBM3',
        memory_bytes: 80e9,
        simulated: false
      }
    ],
    link: null,
    needs_key: false,
    warning: null,
    ending: null,
    usage: {
      at: at(0),
      utilisation_percent: 37,
      memory_bytes: 12.4e9,
      memory_total_bytes: 80e9,
      simulated: false,
      processes: []
    },
    idle_seconds: 0,
    ...changes
  };
}

export function verdict(name: string, changes: Partial<Verdict> = {}): Verdict {
  return {
    name,
    type: 'numpy.ndarray',
    bytes: 1000,
    verdict: 'kept',
    reason: null,
    hint: null,
    excluded: false,
    ...changes
  };
}

export const left = (name: string): Verdict =>
  verdict(name, {
    type: '_io.TextIOWrapper',
    bytes: null,
    verdict: 'left',
    reason: 'An open file belongs to the process that opened it.',
    hint: 'Open it again after the move.'
  });

export function move(step: Move['step'], changes: Partial<Move> = {}): Move {
  return {
    id: `move-${step}`,
    kernel: 'k1',
    target: 'worker',
    step,
    message: 'Something happens.',
    started_at: at(-1),
    ended_at: null,
    bytes_done: 0,
    bytes_total: null,
    can_cancel: true,
    asked: true,
    verdicts: [],
    error: null,
    hint: null,
    ...changes
  };
}

export const refused = (changes: Partial<Move> = {}): Move =>
  move('refused', {
    ended_at: at(0),
    can_cancel: false,
    error: 'left-needs-consent',
    verdicts: [...Array.from({ length: 13 }, (_, n) => verdict(`x${n}`)), left('log')],
    ...changes
  });

export function notice(
  kind: KernelNotice['kind'],
  changes: Partial<KernelNotice> = {}
): KernelNotice {
  return {
    id: `notice-${kind}`,
    kind,
    at: at(-3),
    message: 'Something happened.',
    snapshot: null,
    verdicts: [],
    ...changes
  };
}

export function kernel(changes: Partial<KernelStatus> = {}): KernelStatus {
  return {
    id: 'k1',
    name: 'python3',
    notebook: 'work/train.ipynb',
    language: 'python',
    placement: 'server',
    movable: 'state',
    busy: false,
    lease: null,
    move: null,
    last_verdict: [],
    saved_at: null,
    save_problem: null,
    notices: [],
    ...changes
  };
}

export const onGpu = (changes: Partial<KernelStatus> = {}): KernelStatus =>
  kernel({ placement: 'worker', lease: 'lease-1', ...changes });

export function status(changes: Partial<Status> = {}): Status {
  return {
    server: '',
    user: 'ann',
    lease: null,
    kernels: [kernel()],
    commands: [],
    pools: [pool()],
    quotas: [],
    policy: {
      idle_after_seconds: 600,
      warn_seconds: 300,
      keep_minutes: 30,
      keep_times: 2,
      automatic_save_seconds: 300,
      automatic_save_work_seconds: 10
    },
    broker: 'ok',
    snapshots_bytes: 0,
    snapshots_limit_bytes: 20e9,
    snapshots_per_notebook: 5,
    ...changes
  };
}

export function snapshot(id: string, changes: Partial<SnapshotInfo> = {}): SnapshotInfo {
  return {
    id,
    notebook: 'work/train.ipynb',
    kernel: 'k1',
    created_at: at(-60),
    reason: 'release',
    bytes: 1.2e9,
    python: '3.11.7',
    complete: true,
    problem: null,
    kept: 13,
    left: 1,
    verdicts: [verdict('df', { type: 'pandas.DataFrame', bytes: 8e8 }), left('log')],
    ...changes
  };
}
