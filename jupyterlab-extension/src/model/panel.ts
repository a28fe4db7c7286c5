/**
 * What the sidebar shows. A pure function of what the server said.
 */
import type { CardState, IPanelState, ISavedState, ISeries } from '../shown';
import type { SnapshotInfo, Status } from '../wire';
import type { Connection } from './follower';
import { gpuOfLease, shownPool, shownVariable, time, warningOf } from './naming';
import { holding, waiting } from './switch';

export function panelState(
  status: Status | null,
  connection: Connection,
  series: ISeries,
  snapshots: SnapshotInfo[] | null
): IPanelState {
  return {
    connection,
    serviceAway: status !== null && status.broker !== 'ok',
    card: status ? card(status, series) : { kind: 'none' },
    pools: status?.pools.map(shownPool) ?? [],
    quotas:
      status?.quotas.map(quota => ({
        name: quota.name,
        used: quota.used,
        allowed: quota.allowed,
        freesAt: time(quota.frees_at)
      })) ?? [],
    saved: snapshots?.map(one => saved(one, status)) ?? null,
    savedBytes: status?.snapshots_bytes ?? 0,
    savedLimit: status?.snapshots_limit_bytes ?? null,
    saveProblems:
      status?.kernels.flatMap(kernel =>
        kernel.save_problem ? [{ notebook: kernel.notebook, problem: kernel.save_problem }] : []
      ) ?? []
  };
}

function card(status: Status, series: ISeries): CardState {
  const lease = status.lease;
  if (!lease || lease.state === 'ended') {
    return { kind: 'none' };
  }
  const gpu = gpuOfLease(lease, status.pools);
  if (lease.state === 'queued') {
    const serviceAway = status.broker !== 'ok';
    return { kind: 'queued', serviceAway, ...waiting(lease, lease.message) };
  }
  if (lease.state === 'starting') {
    return { kind: 'starting', gpu, message: lease.message };
  }
  if (lease.state === 'ending') {
    const ending = lease.ending;
    return {
      kind: 'ending',
      gpu,
      deadline: time(ending?.deadline),
      message: ending?.message ?? lease.message
    };
  }
  return {
    kind: 'held',
    warning: warningOf(lease),
    notebooks: status.kernels
      .filter(kernel => kernel.placement === 'worker')
      .map(kernel => ({
        kernel: kernel.id,
        path: kernel.notebook,
        name: kernel.notebook?.split('/').pop() ?? kernel.name,
        busy: kernel.busy
      })),
    commands: status.commands.map(one => ({
      id: one.id,
      command: one.command,
      since: Date.parse(one.started_at)
    })),
    series,
    ...holding(lease, status)
  };
}

export function saved(one: SnapshotInfo, status: Status | null): ISavedState {
  const kernels = status?.kernels ?? [];
  const home =
    kernels.find(kernel => one.notebook !== null && kernel.notebook === one.notebook) ??
    kernels.find(kernel => kernel.id === one.kernel);
  return {
    id: one.id,
    notebook: one.notebook,
    at: Date.parse(one.created_at),
    reason: one.reason,
    bytes: one.bytes,
    kept: one.kept,
    left: one.left,
    problem: one.complete ? null : (one.problem ?? ''),
    variables: one.verdicts.map(shownVariable),
    kernel: home?.id ?? null
  };
}
