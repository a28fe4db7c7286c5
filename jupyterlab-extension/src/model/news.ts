/**
 * What changed in a way that people should hear of, wherever they look.
 *
 * A pure comparison of two states. Promises: the same thing is told once; what was already so
 * when the page was opened is not news, except an open offer to restore and a running countdown.
 */
import type { IWarning } from '../shown';
import type { KernelNotice, Lease, Status } from '../wire';
import { warningOf } from './naming';

export type News =
  | { kind: 'warning'; id: string; warning: IWarning }
  | { kind: 'warning-over' }
  | { kind: 'granted'; id: string; simulated: boolean; model: string; waited: boolean }
  /** Something came back or moved: perhaps without all that it had. */
  | { kind: 'carried'; kernel: string }
  | { kind: 'notice'; kernel: string; notebook: string | null; notice: KernelNotice };

/** Every lease is queued for a moment; only who waited longer may have looked away. */
const A_WAIT_MS = 5_000;

export function news(before: Status | null, now: Status): News[] {
  const found: News[] = [];
  const was = before ? warningOf(before.lease) : null;
  const is = warningOf(now.lease);
  if (is && now.lease && !(was && was.at === is.at && was.reason === is.reason)) {
    found.push({ kind: 'warning', id: now.lease.id, warning: is });
  } else if (was && !is) {
    found.push({ kind: 'warning-over' });
  }
  if (
    before?.lease?.state === 'queued' &&
    now.lease?.id === before.lease.id &&
    (now.lease.state === 'starting' || now.lease.state === 'active') &&
    waitedMs(now.lease) >= A_WAIT_MS
  ) {
    const pool = now.pools.find(one => one.name === now.lease?.pool);
    found.push({
      kind: 'granted',
      id: now.lease.id,
      simulated: pool?.simulated ?? false,
      model: pool?.title ?? now.lease.pool,
      waited: true
    });
  }
  const known = new Set(before?.kernels.flatMap(kernel => kernel.notices.map(one => one.id)));
  for (const kernel of now.kernels) {
    const earlier = before?.kernels.find(one => one.id === kernel.id);
    if (
      earlier &&
      !earlier.move?.ended_at &&
      kernel.move?.ended_at &&
      kernel.move.step === 'done' &&
      kernel.last_verdict.some(one => one.verdict === 'left' && !one.excluded)
    ) {
      found.push({ kind: 'carried', kernel: kernel.id });
    }
    for (const notice of kernel.notices) {
      if (!known.has(notice.id) && (before || notice.kind === 'restore-offer')) {
        found.push({ kind: 'notice', kernel: kernel.id, notebook: kernel.notebook, notice });
      }
    }
  }
  return found;
}

function waitedMs(lease: Lease): number {
  const until = lease.granted_at ?? lease.active_at;
  return until ? Date.parse(until) - Date.parse(lease.created_at) : 0;
}
