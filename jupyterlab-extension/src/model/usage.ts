/**
 * The last ten minutes of a lease's telemetry, from the stored series and from live events.
 */
import type { ISeries } from '../shown';
import type { Usage, UsageSeries } from '../wire';

export const WINDOW_MS = 10 * 60 * 1000;

export class UsageHistory {
  get series(): ISeries {
    return this._series;
  }

  /** Start over for another lease; the same one goes on. */
  follow(lease: string | null): boolean {
    if (lease === this._lease) {
      return false;
    }
    this._lease = lease;
    this._series = { times: [], utilisationPercent: [], memoryBytes: [] };
    return true;
  }

  /** Take the stored series; samples that came live meanwhile stay. */
  load(stored: UsageSeries): void {
    const live = this._series;
    const last = (stored.times.at(-1) ?? 0) * 1000;
    const from = live.times.findIndex(time => time > last);
    const tail = from < 0 ? live.times.length : from;
    this._keep({
      times: [...stored.times.map(seconds => seconds * 1000), ...live.times.slice(tail)],
      utilisationPercent: [...stored.utilisation_percent, ...live.utilisationPercent.slice(tail)],
      memoryBytes: [...stored.memory_bytes, ...live.memoryBytes.slice(tail)]
    });
  }

  add(lease: string, usage: Usage): void {
    const at = Date.parse(usage.at);
    const last = this._series.times.at(-1) ?? 0;
    if (lease !== this._lease || Number.isNaN(at) || at <= last) {
      return;
    }
    this._keep({
      times: [...this._series.times, at],
      utilisationPercent: [...this._series.utilisationPercent, usage.utilisation_percent],
      memoryBytes: [...this._series.memoryBytes, usage.memory_bytes]
    });
  }

  private _keep(series: ISeries): void {
    const oldest = (series.times.at(-1) ?? 0) - WINDOW_MS;
    const from = Math.max(
      0,
      series.times.findIndex(time => time >= oldest)
    );
    this._series = {
      times: series.times.slice(from),
      utilisationPercent: series.utilisationPercent.slice(from),
      memoryBytes: series.memoryBytes.slice(from)
    };
  }

  private _lease: string | null = null;
  private _series: ISeries = { times: [], utilisationPercent: [], memoryBytes: [] };
}
