/**
 * From the wire's shapes to what is shown: GPUs, variables, meters, times.
 */
import type { IGpu, IKeep, IMeter, IPoolShown, IVariable, IWarning } from '../shown';
import type { Lease, Pool, Status, Verdict } from '../wire';

/**
 * The short name that people use: "NVIDIA A100-SXM4-40GB" is "A100", "NVIDIA GeForce RTX 4090"
 * is "RTX 4090". What is not known stays as the driver says it.
 */
export function shortModel(name: string): string {
  const bare = name.replace(/^NVIDIA\s+/i, '').replace(/^(GeForce|Tesla|Quadro)\s+/i, '');
  const short = bare.replace(/[\s-]+(\d+\s?G[iB]?B?|SXM\d*|PCIe?|HBM\d*e?|NVL)\b.*$/i, '').trim();
  return short || name;
}

export function gpuOfPool(pool: Pool): IGpu {
  return {
    model: shortModel(pool.title),
    simulated: pool.simulated,
    count: 1,
    memoryBytes: pool.memory_bytes
  };
}

export function gpuOfLease(lease: Lease, pools: Pool[]): IGpu {
  const device = lease.devices[0];
  if (device) {
    return {
      model: shortModel(device.name),
      simulated: device.simulated,
      count: lease.devices.length,
      memoryBytes: device.memory_bytes
    };
  }
  const pool = pools.find(one => one.name === lease.pool);
  return pool
    ? { ...gpuOfPool(pool), count: lease.gpus }
    : { model: lease.pool, simulated: false, count: lease.gpus, memoryBytes: 0 };
}

export function shownPool(pool: Pool): IPoolShown {
  return {
    name: pool.name,
    gpu: gpuOfPool(pool),
    free: pool.free,
    total: pool.total,
    waiting: pool.waiting
  };
}

export function shownVariable(verdict: Verdict): IVariable {
  return {
    name: verdict.name,
    type: verdict.type,
    bytes: verdict.bytes,
    fate: verdict.verdict,
    reason: verdict.reason,
    hint: verdict.hint
  };
}

export function meterOf(lease: Lease | null): IMeter | null {
  const usage = lease?.usage;
  return usage
    ? {
        utilisationPercent: usage.utilisation_percent,
        memoryBytes: usage.memory_bytes,
        memoryTotalBytes: usage.memory_total_bytes
      }
    : null;
}

export function warningOf(lease: Lease | null): IWarning | null {
  const warning = lease?.warning;
  return warning
    ? {
        reason: warning.reason,
        at: Date.parse(warning.at),
        message: warning.message,
        keep: { minutes: warning.keep.minutes, timesLeft: warning.keep.times_left },
        residentBytes: warning.resident_bytes
      }
    : null;
}

export function keepOf(lease: Lease | null, status: Status): IKeep | null {
  const said = lease?.warning?.keep;
  if (said) {
    return { minutes: said.minutes, timesLeft: said.times_left };
  }
  return status.policy
    ? { minutes: status.policy.keep_minutes, timesLeft: status.policy.keep_times }
    : null;
}

export function time(text: string | null | undefined): number | null {
  const at = Date.parse(text ?? '');
  return Number.isNaN(at) ? null : at;
}
