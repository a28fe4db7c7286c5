/**
 * Stand-ins at the model's ports, each named after what it does.
 */
import { Signal } from '@lumino/signaling';
import { Away, type IAnswer, type IClient, type IFollower, Refusal } from '../src/client';
import type { IClock, IMemory, IPage } from '../src/model/ports';
import type {
  KernelStatus,
  Lease,
  PlacementRequest,
  RestoreRequest,
  RebuildPlan,
  RebuildRequest,
  RebuildResult,
  RestoreResult,
  SnapshotComparison,
  SnapshotInfo,
  Status,
  UsageSeries
} from '../src/wire';
import { NOON, status } from './builders';

/** Let everything that waits for nothing but its turn happen. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) {
    await Promise.resolve();
  }
}

/** Time passes only when the test says so. */
export class ClockByHand implements IClock {
  constructor(private _now = NOON) {}

  now(): number {
    return this._now;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { due: this._now + ms, callback };
    this._timers.add(timer);
    return () => this._timers.delete(timer);
  }

  async pass(ms: number): Promise<void> {
    const until = this._now + ms;
    await settle();
    for (;;) {
      const next = [...this._timers]
        .filter(one => one.due <= until)
        .sort((a, b) => a.due - b.due)[0];
      if (!next) {
        break;
      }
      this._now = Math.max(this._now, next.due);
      this._timers.delete(next);
      next.callback();
      await settle();
    }
    this._now = until;
  }

  /** The machine's clock is set; no time has passed. */
  set(now: number): void {
    this._now = now;
  }

  private readonly _timers = new Set<{ due: number; callback: () => void }>();
}

export class PageByHand implements IPage {
  hidden = false;
  readonly visibilityChanged: Signal<IPage, void> = new Signal<IPage, void>(this);
  readonly woke: Signal<IPage, void> = new Signal<IPage, void>(this);

  hide(): void {
    this.hidden = true;
    this.visibilityChanged.emit();
  }

  show(): void {
    this.hidden = false;
    this.visibilityChanged.emit();
    this.woke.emit();
  }
}

export class MemoryOfOneTab implements IMemory {
  readonly changed: Signal<IMemory, void> = new Signal<IMemory, void>(this);
  private readonly _known = new Set<string>();

  has(key: string): boolean {
    return this._known.has(key);
  }

  add(key: string): void {
    this._known.add(key);
    this.changed.emit();
  }
}

type Trouble = 'none' | 'unreachable' | 'hangs' | 'no-such-interface' | 'signed-out';

/** A server whose state and troubles the test sets; any number of tabs may follow it. */
export class ServerByHand implements IClient {
  state: Status = status();
  trouble: Trouble = 'none';
  /** Streams are opened but nothing ever arrives through them. */
  holdsStreamsBack = false;
  /** What the server's clock is ahead of the browser's; null: it does not say. */
  serverTime: number | null = null;
  saved: SnapshotInfo[] = [];
  series: UsageSeries = { times: [], utilisation_percent: [], memory_bytes: [] };
  asked: string[] = [];
  /** Set to keep answers to wishes waiting. */
  gate: Promise<void> = Promise.resolve();
  /** What a wish is refused with. */
  refusal: Refusal | null = null;

  get streams(): number {
    return this._followers.size;
  }

  /** Change the state and tell everybody who follows. */
  async become(state: Status): Promise<void> {
    this.state = state;
    for (const one of state.kernels) {
      this.say('kernel', one);
    }
    this.say('status', state);
    await settle();
  }

  say(kind: string, data: unknown): void {
    if (!this.holdsStreamsBack) {
      for (const { follower } of this._followers) {
        follower.onEvent({ kind, data: JSON.stringify(data) });
      }
    }
  }

  breakStreams(): void {
    for (const { fail } of [...this._followers]) {
      fail(new Away());
    }
  }

  async status(): Promise<IAnswer<Status>> {
    this.asked.push('status');
    await this._mayFail();
    return { body: structuredClone(this.state), serverTime: this.serverTime };
  }

  async follow(follower: IFollower, signal: AbortSignal): Promise<void> {
    this.asked.push('events');
    await this._mayFail();
    return new Promise((resolve, reject) => {
      const entry = {
        follower,
        fail: (error: Error) => {
          this._followers.delete(entry);
          reject(error);
        }
      };
      this._followers.add(entry);
      signal.addEventListener('abort', () => {
        this._followers.delete(entry);
        resolve();
      });
      if (!this.holdsStreamsBack) {
        follower.onEvent({ kind: 'status', data: JSON.stringify(this.state) });
      }
    });
  }

  async usage(): Promise<UsageSeries> {
    this.asked.push('usage');
    return this.series;
  }

  async snapshots(): Promise<SnapshotInfo[]> {
    this.asked.push('snapshots');
    await this._mayFail();
    return this.saved;
  }

  async place(kernel: string, wish: PlacementRequest): Promise<KernelStatus> {
    return this._wish(`place ${kernel} ${wish.placement} ${wish.left} ${wish.pool ?? '-'}`, kernel);
  }

  async cancelMove(kernel: string): Promise<KernelStatus> {
    return this._wish(`cancel ${kernel}`, kernel);
  }

  async dismiss(kernel: string, notice: string): Promise<KernelStatus> {
    return this._wish(`dismiss ${kernel} ${notice}`, kernel);
  }

  async save(kernel: string): Promise<SnapshotInfo> {
    await this._wish(`save ${kernel}`, kernel);
    return this.saved[0] as SnapshotInfo;
  }

  async restore(kernel: string, wish: RestoreRequest): Promise<RestoreResult> {
    await this._wish(
      `restore ${kernel} ${wish.snapshot} ${wish.names?.join(',') ?? 'all'}`,
      kernel
    );
    return { snapshot: wish.snapshot, verdicts: [] };
  }

  plan: RebuildPlan = { names: [], cells: [], cannot: [] };

  async compare(first: string, second: string): Promise<SnapshotComparison> {
    this.asked.push(`compare ${first} ${second}`);
    await this._mayFail();
    return { first, second, variables: [] };
  }

  async rebuildPlan(kernel: string): Promise<RebuildPlan> {
    this.asked.push(`plan ${kernel}`);
    await this._mayFail();
    return this.plan;
  }

  async rebuild(kernel: string, wish: RebuildRequest): Promise<RebuildResult> {
    this.asked.push(`rebuild ${kernel} ${wish.cells.join()}`);
    await this._mayFail();
    return { ran: wish.cells, failed: null, error: null, output: '' };
  }

  async deleteSnapshot(snapshot: string): Promise<void> {
    this.asked.push(`delete ${snapshot}`);
  }

  async request(pool: string | null): Promise<Lease> {
    this.asked.push(`request ${pool}`);
    return this.state.lease as Lease;
  }

  async keep(): Promise<Lease> {
    this.asked.push('keep');
    await this._mayFail();
    return this.state.lease as Lease;
  }

  async release(): Promise<Lease> {
    this.asked.push('release');
    await this._mayFail();
    return { ...(this.state.lease as Lease), state: 'ended' };
  }

  private async _wish(what: string, kernel: string): Promise<KernelStatus> {
    this.asked.push(what);
    await this._mayFail();
    if (this.refusal) {
      throw this.refusal;
    }
    const found = this.state.kernels.find(one => one.id === kernel) as KernelStatus;
    await this.gate;
    return structuredClone(found);
  }

  private async _mayFail(): Promise<void> {
    switch (this.trouble) {
      case 'unreachable':
        throw new Away();
      case 'hangs':
        return new Promise(() => undefined);
      case 'no-such-interface':
        throw new Refusal(404, { code: 'not-found', message: 'There is no such thing here.' });
      case 'signed-out':
        throw new Refusal(403, { code: 'not-allowed', message: 'You are not signed in here.' });
      default:
        return undefined;
    }
  }

  private readonly _followers = new Set<{ follower: IFollower; fail: (error: Error) => void }>();
}
