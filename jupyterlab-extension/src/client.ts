/**
 * The one place that touches the network: the server's REST interface and its event stream.
 *
 * Promises: every refusal arrives as a `Refusal` with the server's own sentence and hint;
 * everything that did not arrive at all is `Away`. Nothing is retried here: the model decides that.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { type IStreamEvent, StreamDecoder } from './stream';
import type {
  ErrorBody,
  KernelStatus,
  Lease,
  PlacementRequest,
  RebuildPlan,
  RebuildRequest,
  RebuildResult,
  RestoreRequest,
  RestoreResult,
  SnapshotComparison,
  SnapshotInfo,
  SnapshotList,
  Status,
  UsageSeries
} from './wire';

const PREFIX = 'gpuhub/api/v1';

/** Longer than the server's pause between two signs of life (15 s), twice over. */
export const SILENCE_MS = 40_000;

/** A GET that takes longer is counted as not answered: the sleep of a laptop leaves dead connections. */
export const ANSWER_MS = 8_000;

/** The server said no, and why. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    body: Partial<ErrorBody>
  ) {
    super(body.message || `${status}`);
    this.name = 'Refusal';
    this.code = body.code ?? 'internal';
    this.hint = body.hint ?? '';
    this.details = body.details ?? {};
  }

  readonly code: string;
  readonly hint: string;
  readonly details: Record<string, unknown>;
}

/** Nothing was answered. */
export class Away extends Error {
  constructor(why = 'The server does not answer.') {
    super(why);
    this.name = 'Away';
  }
}

/** What the server said, and its clock when it said so (ms; null: not told). */
export interface IAnswer<T> {
  body: T;
  serverTime: number | null;
}

export interface IFollower {
  onEvent: (event: IStreamEvent) => void;
}

/** What the model needs of the network. */
export interface IClient {
  status(): Promise<IAnswer<Status>>;
  usage(): Promise<UsageSeries>;
  snapshots(): Promise<SnapshotInfo[]>;
  /** Follow the events until `signal` aborts (then it resolves) or the stream breaks (then it rejects). */
  follow(follower: IFollower, signal: AbortSignal): Promise<void>;
  place(kernel: string, wish: PlacementRequest): Promise<KernelStatus>;
  cancelMove(kernel: string): Promise<KernelStatus>;
  dismiss(kernel: string, notice: string): Promise<KernelStatus>;
  save(kernel: string): Promise<SnapshotInfo>;
  restore(kernel: string, wish: RestoreRequest): Promise<RestoreResult>;
  deleteSnapshot(snapshot: string): Promise<void>;
  compare(first: string, second: string): Promise<SnapshotComparison>;
  /** Which cells would make again what is lost. */
  rebuildPlan(kernel: string): Promise<RebuildPlan>;
  /** Let the server run the cells of a plan, where no page shows the notebook. */
  rebuild(kernel: string, wish: RebuildRequest): Promise<RebuildResult>;
  request(pool: string | null): Promise<Lease>;
  keep(): Promise<Lease>;
  release(): Promise<Lease>;
}

export class Client implements IClient {
  constructor(settings: ServerConnection.ISettings = ServerConnection.makeSettings()) {
    this._settings = settings;
  }

  async status(): Promise<IAnswer<Status>> {
    const response = await this._send('GET', ['status'], undefined, AbortSignal.timeout(ANSWER_MS));
    const date = Date.parse(response.headers.get('Date') ?? '');
    return {
      body: (await read(response)) as Status,
      serverTime: Number.isNaN(date) ? null : date
    };
  }

  async usage(): Promise<UsageSeries> {
    return this._ask<UsageSeries>('GET', ['usage']);
  }

  async snapshots(): Promise<SnapshotInfo[]> {
    return (await this._ask<SnapshotList>('GET', ['snapshots'])).snapshots;
  }

  async place(kernel: string, wish: PlacementRequest): Promise<KernelStatus> {
    return this._ask('PUT', ['kernels', kernel, 'placement'], wish);
  }

  async cancelMove(kernel: string): Promise<KernelStatus> {
    return this._ask('DELETE', ['kernels', kernel, 'move']);
  }

  async dismiss(kernel: string, notice: string): Promise<KernelStatus> {
    return this._ask('DELETE', ['kernels', kernel, 'notices', notice]);
  }

  async save(kernel: string): Promise<SnapshotInfo> {
    return this._ask('POST', ['kernels', kernel, 'snapshots'], { left: 'accept' });
  }

  async restore(kernel: string, wish: RestoreRequest): Promise<RestoreResult> {
    return this._ask('POST', ['kernels', kernel, 'restore'], wish);
  }

  async deleteSnapshot(snapshot: string): Promise<void> {
    await this._ask('DELETE', ['snapshots', snapshot]);
  }

  async compare(first: string, second: string): Promise<SnapshotComparison> {
    return this._ask('GET', ['snapshots', first, 'compare', second]);
  }

  async rebuildPlan(kernel: string): Promise<RebuildPlan> {
    return this._ask('GET', ['kernels', kernel, 'rebuild']);
  }

  async rebuild(kernel: string, wish: RebuildRequest): Promise<RebuildResult> {
    return this._ask('POST', ['kernels', kernel, 'rebuild'], wish);
  }

  async request(pool: string | null): Promise<Lease> {
    return this._ask('POST', ['lease'], { pool, gpus: 1 });
  }

  async keep(): Promise<Lease> {
    return this._ask('POST', ['lease', 'keep']);
  }

  async release(): Promise<Lease> {
    return this._ask('DELETE', ['lease']);
  }

  async follow(follower: IFollower, signal: AbortSignal): Promise<void> {
    const own = new AbortController();
    const stop = () => own.abort();
    signal.addEventListener('abort', stop, { once: true });
    let silence = setTimeout(stop, SILENCE_MS);
    const decoder = new StreamDecoder();
    const utf8 = new TextDecoder();
    try {
      // `fetch` and not EventSource: it carries the token where there is no cookie, tells 404 and
      // 403 from a broken line, and leaves the pace of new attempts to the model.
      const response = await this._send('GET', ['events'], undefined, own.signal, {
        Accept: 'text/event-stream'
      });
      const reader = response.body?.getReader();
      if (!reader) {
        throw new Away();
      }
      for (;;) {
        const { done, value } = await reader.read();
        if (done) {
          throw new Away('The stream of events ended.');
        }
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE_MS);
        decoder.feed(utf8.decode(value, { stream: true })).forEach(follower.onEvent);
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      throw error instanceof Refusal ? error : new Away('The stream of events broke.');
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', stop);
      own.abort();
    }
  }

  private async _ask<T>(method: string, path: string[], body?: unknown): Promise<T> {
    return (await read(await this._send(method, path, body))) as T;
  }

  private async _send(
    method: string,
    path: string[],
    body?: unknown,
    signal?: AbortSignal,
    headers?: Record<string, string>
  ): Promise<Response> {
    const url = URLExt.join(this._settings.baseUrl, PREFIX, ...path.map(encodeURIComponent));
    const init: RequestInit = { method, signal: signal ?? null };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
    }
    if (headers) {
      init.headers = headers;
    }
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, init, this._settings);
    } catch {
      throw new Away();
    }
    if (!response.ok) {
      throw new Refusal(response.status, await refusalBody(response));
    }
    return response;
  }

  private readonly _settings: ServerConnection.ISettings;
}

async function read(response: Response): Promise<unknown> {
  if (response.status === 204) {
    return undefined;
  }
  try {
    return await response.json();
  } catch {
    throw new Away('The answer was cut off.');
  }
}

async function refusalBody(response: Response): Promise<Partial<ErrorBody>> {
  try {
    const body: unknown = await response.json();
    return typeof body === 'object' && body !== null ? body : {};
  } catch {
    return {};
  }
}
