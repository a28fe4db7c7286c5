/**
 * Which row of the table a notebook's switch shows. A pure function of what the server said.
 */
import type { AsideKind, IAside, IHolding, IWaiting, MovePhase, SwitchState } from '../shown';
import type { KernelStatus, Lease, Move, Status } from '../wire';
import type { Connection } from './follower';
import { gpuOfLease, keepOf, meterOf, shownPool, shownVariable, time, warningOf } from './naming';

const NEEDS_CONSENT = 'left-needs-consent';

export interface ISeen {
  status: Status | null;
  connection: Connection;
  kernel: string | null;
  /** Ended moves whose question or failure was answered already. */
  answered: (move: string) => boolean;
}

export function switchState(seen: ISeen): SwitchState {
  const { status, connection } = seen;
  if (connection === 'absent') {
    return { kind: 'hidden' };
  }
  if (connection === 'away' || connection === 'signed-out') {
    return { kind: 'unknown', why: connection };
  }
  if (!status) {
    return { kind: 'unknown', why: 'connecting' };
  }
  const kernel = status.kernels.find(one => one.id === seen.kernel);
  if (!kernel) {
    return { kind: 'unknown', why: 'no-kernel' };
  }
  const move = kernel.move;
  if (move && !move.ended_at) {
    return moving(move, status);
  }
  if (move && asks(move, kernel) && !seen.answered(move.id)) {
    const left = move.verdicts.filter(one => one.verdict === 'left').map(shownVariable);
    return {
      kind: 'consent',
      move: move.id,
      target: move.target,
      left,
      total: move.verdicts.length
    };
  }
  return kernel.placement === 'worker' ? onWorker(kernel, status) : onServer(kernel, status);
}

/** What stands beside the switch until it has been read, oldest first. */
export function asides(seen: ISeen, savedAt: (snapshot: string) => number | null): IAside[] {
  const kernel = seen.status?.kernels.find(one => one.id === seen.kernel);
  if (!kernel) {
    return [];
  }
  const found: IAside[] = kernel.notices.map(notice => ({
    id: notice.id,
    kind: notice.kind as AsideKind,
    at: Date.parse(notice.at),
    message: notice.message,
    hint: null,
    snapshot: notice.snapshot,
    savedAt: notice.snapshot ? savedAt(notice.snapshot) : null,
    variables: notice.verdicts.map(shownVariable)
  }));
  const move = kernel.move;
  if (move?.ended_at && failed(move, kernel) && !seen.answered(move.id)) {
    found.push({
      id: move.id,
      kind: 'failed',
      at: Date.parse(move.ended_at),
      message: move.message,
      hint: move.hint,
      snapshot: null,
      savedAt: null,
      variables: move.verdicts.map(shownVariable)
    });
  }
  return found;
}

/** The move ended with a question that is still open. */
export function asks(move: Move, kernel: KernelStatus): boolean {
  return (
    Boolean(move.ended_at) &&
    move.step === 'refused' &&
    move.error === NEEDS_CONSENT &&
    move.target !== kernel.placement
  );
}

function failed(move: Move, kernel: KernelStatus): boolean {
  const refused = move.step === 'refused' && !asks(move, kernel);
  return (move.step === 'failed' || refused) && move.target !== kernel.placement;
}

function moving(move: Move, status: Status): SwitchState {
  const { target, message, can_cancel: canCancel, step } = move;
  if (step === 'waiting' && target === 'worker') {
    return {
      kind: 'waiting',
      canCancel,
      serviceAway: status.broker !== 'ok',
      ...waiting(status.lease, message)
    };
  }
  if (!move.asked && target === 'server' && (step === 'waiting' || step === 'starting')) {
    return status.lease?.state === 'ending' && step === 'starting'
      ? { kind: 'starting', target, message, canCancel: false }
      : { kind: 'recovering', message };
  }
  if (step === 'waiting' || step === 'starting') {
    return { kind: 'starting', target, message, canCancel };
  }
  if (step === 'checking') {
    return { kind: 'checking', target, message, canCancel };
  }
  return {
    kind: 'moving',
    target,
    phase: step as MovePhase,
    bytesDone: move.bytes_done,
    bytesTotal: move.bytes_total,
    message,
    canCancel: canCancel && move.asked,
    because: move.asked ? null : (status.lease?.ending?.message ?? null)
  };
}

export function waiting(lease: Lease | null, message: string): IWaiting {
  const position = lease?.state === 'queued' ? lease.position : null;
  return {
    place: position?.place ?? null,
    ahead: position?.ahead ?? null,
    startsAt: time(position?.estimated_start),
    message: position?.message || message
  };
}

export function holding(lease: Lease | null, status: Status): IHolding {
  return {
    gpu: lease
      ? gpuOfLease(lease, status.pools)
      : { model: '', simulated: false, count: 1, memoryBytes: 0 },
    meter: meterOf(lease),
    since: time(lease?.active_at ?? lease?.granted_at),
    latestEnd: time(lease?.ends_at),
    idleSeconds: lease?.idle_seconds ?? null,
    idleAfterSeconds: status.policy?.idle_after_seconds ?? null,
    keep: keepOf(lease, status)
  };
}

function onWorker(kernel: KernelStatus, status: Status): SwitchState {
  const lease = status.lease;
  if (lease?.state === 'ending') {
    return {
      kind: 'ending',
      gpu: gpuOfLease(lease, status.pools),
      deadline: time(lease.ending?.deadline),
      message: lease.ending?.message ?? lease.message,
      reason: lease.reason
    };
  }
  const warning = warningOf(lease);
  if (warning) {
    return { kind: 'warning', warning, ...holding(lease, status) };
  }
  return {
    kind: 'on',
    stayedBehind: kernel.last_verdict.filter(one => one.verdict === 'left').map(shownVariable),
    ...holding(lease, status)
  };
}

function onServer(kernel: KernelStatus, status: Status): SwitchState {
  const lease = status.lease;
  const held = lease && (lease.state === 'active' || lease.state === 'starting') ? lease : null;
  return {
    kind: 'cpu',
    pools: status.pools.map(shownPool),
    held: held ? gpuOfLease(held, status.pools) : null,
    serviceAway: status.broker !== 'ok',
    startsAnew: kernel.movable === 'fresh'
  };
}
