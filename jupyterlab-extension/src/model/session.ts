/**
 * What this browser knows of the server's session, and what one can ask of it. No DOM.
 *
 * Promises: what is kept is what the server said last, never what was asked for; an answer that
 * was overtaken by an event is dropped; times are told in the browser's clock, corrected by the
 * server's where the two differ.
 */
import { type ISignal, Signal } from '@lumino/signaling';
import type { IClient } from '../client';
import type { ISeries } from '../shown';
import type { IStreamEvent } from '../stream';
import type {
  IUsageEvent,
  KernelStatus,
  Lease,
  Placement,
  RebuildPlan,
  RebuildResult,
  RestoreResult,
  SnapshotComparison,
  SnapshotInfo,
  Status
} from '../wire';
import { type Connection, Follower } from './follower';
import type { IClock, IPage } from './ports';
import { UsageHistory } from './usage';

/** A smaller difference is the line's, not the clock's. */
const CLOCK_DIFFERENCE_MS = 3000;

export class SessionModel {
  constructor(
    private readonly _client: IClient,
    private readonly _clock: IClock,
    page: IPage,
    chance: () => number = Math.random
  ) {
    this._follower = new Follower(_client, _clock, page, chance, {
      onStatus: (status, serverTime) => this._takeAnswer(status, serverTime),
      onEvent: event => this._takeEvent(event),
      onConnection: connection => {
        if (connection === 'live' || connection === 'polling') {
          this._historyWanted = true;
        }
        this._tell();
      }
    });
  }

  /** Something that is shown may be different now. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get connection(): Connection {
    return this._follower.connection;
  }

  get status(): Status | null {
    return this._status;
  }

  get series(): ISeries {
    return this._usage.series;
  }

  /** Saved states, newest first; null: not read yet. */
  get snapshots(): SnapshotInfo[] | null {
    return this._snapshots;
  }

  /** The server's present time in ms. */
  now(): number {
    return this._clock.now() + this._skew;
  }

  kernel(id: string | null | undefined): KernelStatus | null {
    return this._status?.kernels.find(kernel => kernel.id === id) ?? null;
  }

  start(): void {
    this._follower.start();
  }

  stop(): void {
    this._follower.stop();
    Signal.clearData(this);
  }

  /** Look again now. */
  refresh(): void {
    this._snapshotsFor = null;
    this._historyWanted = true;
    this._follower.again();
  }

  // --- what one can ask; each rejects with Refusal or Away

  async move(
    kernel: string,
    placement: Placement,
    accept: boolean,
    pool: string | null
  ): Promise<void> {
    const left = accept ? 'accept' : 'refuse';
    await this._about(kernel, this._client.place(kernel, { placement, left, pool }));
  }

  async cancelMove(kernel: string): Promise<void> {
    await this._about(kernel, this._client.cancelMove(kernel));
  }

  async dismiss(kernel: string, notice: string): Promise<void> {
    await this._about(kernel, this._client.dismiss(kernel, notice));
  }

  async keep(): Promise<Lease> {
    return this._aboutLease(this._client.keep());
  }

  async release(): Promise<Lease> {
    return this._aboutLease(this._client.release());
  }

  async request(pool: string | null): Promise<Lease> {
    return this._aboutLease(this._client.request(pool));
  }

  async save(kernel: string): Promise<SnapshotInfo> {
    const saved = await this._client.save(kernel);
    await this.readSnapshots();
    return saved;
  }

  async restore(kernel: string, snapshot: string, names: string[] | null): Promise<RestoreResult> {
    return this._client.restore(kernel, { snapshot, names });
  }

  async deleteSnapshot(snapshot: string): Promise<void> {
    await this._client.deleteSnapshot(snapshot);
    await this.readSnapshots();
  }

  async compare(first: string, second: string): Promise<SnapshotComparison> {
    return this._client.compare(first, second);
  }

  async rebuildPlan(kernel: string): Promise<RebuildPlan> {
    return this._client.rebuildPlan(kernel);
  }

  async rebuild(kernel: string, plan: RebuildPlan): Promise<RebuildResult> {
    const cells = plan.cells.map(one => one.number);
    return this._client.rebuild(kernel, { names: null, cells, timeout_seconds: 600 });
  }

  /** Read the list of saved states; it is read again by itself when something was saved. */
  async readSnapshots(): Promise<void> {
    this._snapshotsWanted = true;
    const found = await this._client.snapshots();
    this._snapshots = [...found].sort((a, b) => b.created_at.localeCompare(a.created_at));
    this._tell();
  }

  // --- taking in

  private async _about(kernel: string, asked: Promise<KernelStatus>): Promise<void> {
    const before = this._heard.get(kernel) ?? 0;
    const answer = await asked;
    if ((this._heard.get(kernel) ?? 0) === before) {
      this._takeKernel(answer);
      this._tell();
    }
  }

  private async _aboutLease(asked: Promise<Lease>): Promise<Lease> {
    const lease = await asked;
    const known = this._status?.lease;
    if (this._status && (!known || (known.id === lease.id && lease.revision >= known.revision))) {
      this._take({ ...this._status, lease: lease.state === 'ended' ? null : lease });
    }
    return lease;
  }

  private _takeAnswer(status: Status, serverTime: number | null): void {
    if (serverTime !== null) {
      const skew = serverTime - this._clock.now();
      this._skew = Math.abs(skew) > CLOCK_DIFFERENCE_MS ? skew : 0;
    }
    this._take(status);
  }

  private _takeEvent(event: IStreamEvent): void {
    const data: unknown = JSON.parse(event.data);
    if (event.kind === 'status') {
      const status = data as Status;
      status.kernels.forEach(kernel => this._note(kernel.id));
      this._take(status);
    } else if (event.kind === 'kernel') {
      const kernel = data as KernelStatus;
      this._note(kernel.id);
      this._takeKernel(kernel);
      this._freshenSnapshots();
      this._tell();
    } else if (event.kind === 'usage') {
      this._takeUsage(data as IUsageEvent);
    }
  }

  private _note(kernel: string): void {
    this._heard.set(kernel, (this._heard.get(kernel) ?? 0) + 1);
  }

  private _take(status: Status): void {
    this._status = status;
    const lease = status.lease;
    if (this._usage.follow(lease?.id ?? null)) {
      this._historyWanted = true;
    }
    if (lease?.usage) {
      this._usage.add(lease.id, lease.usage);
    }
    this._readHistory();
    this._freshenSnapshots();
    this._tell();
  }

  private _takeKernel(kernel: KernelStatus): void {
    const status = this._status;
    if (status) {
      const others = status.kernels.filter(other => other.id !== kernel.id);
      const kernels = status.kernels.map(other => (other.id === kernel.id ? kernel : other));
      this._status = {
        ...status,
        kernels: others.length === status.kernels.length ? [...others, kernel] : kernels
      };
    }
  }

  private _takeUsage(event: IUsageEvent): void {
    const lease = this._status?.lease;
    if (this._status && lease && lease.id === event.lease) {
      this._status = {
        ...this._status,
        lease: { ...lease, usage: event.usage, idle_seconds: event.idle_seconds }
      };
      if (event.usage) {
        this._usage.add(event.lease, event.usage);
      }
      this._tell();
    }
  }

  /** The stored samples are read once for each lease, and after each gap in the stream. */
  private _readHistory(): void {
    const lease = this._status?.lease;
    if (!this._historyWanted || lease?.state !== 'active') {
      return;
    }
    this._historyWanted = false;
    this._client.usage().then(
      series => {
        if (this._status?.lease?.id === lease.id) {
          this._usage.load(series);
          this._tell();
        }
      },
      () => {
        // A chart that begins with the next sample is not worth an error.
      }
    );
  }

  private _freshenSnapshots(): void {
    const status = this._status;
    // A notice that speaks of a saved state wants to say of when it is.
    this._snapshotsWanted ||= Boolean(
      status?.kernels.some(kernel => kernel.notices.some(notice => notice.snapshot))
    );
    if (!status || !this._snapshotsWanted) {
      return;
    }
    const now = `${status.snapshots_bytes}/${status.kernels.map(one => one.move?.ended_at).join()}`;
    if (now !== this._snapshotsFor) {
      this._snapshotsFor = now;
      this.readSnapshots().catch(() => {
        this._snapshotsFor = null;
      });
    }
  }

  private _tell(): void {
    this._changed.emit();
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _follower: Follower;
  private readonly _usage = new UsageHistory();
  private readonly _heard = new Map<string, number>();
  private _status: Status | null = null;
  private _snapshots: SnapshotInfo[] | null = null;
  private _snapshotsWanted = false;
  private _snapshotsFor: string | null = null;
  private _historyWanted = true;
  private _skew = 0;
}
