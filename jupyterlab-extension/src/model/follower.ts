/**
 * Keeps what is known in step with the server, whatever the line does.
 *
 * Each round reads the whole state by GET and then follows the stream; when the stream breaks or
 * never says anything (some proxies hold streams back), the next round's GET is the poll. Promises:
 * after the page woke up, the state is read again at once; a hidden page holds no stream for long
 * (browsers allow six connections per host, and tabs pile up).
 */
import { type IClient, Refusal } from '../client';
import type { IStreamEvent } from '../stream';
import type { Status } from '../wire';
import type { IClock, IPage } from './ports';

export type Connection = 'connecting' | 'live' | 'polling' | 'away' | 'signed-out' | 'absent';

/** Pauses after attempts that failed; the last one repeats. */
export const BACK_OFF_MS = [300, 700, 1500, 3000, 6000, 10_000];
/** How often the state is read where the stream does not work. */
export const POLL_MS = 2000;
/** Where streams are held back, one is tried again after so many polls. */
export const POLLS_BETWEEN_STREAMS = 30;
/** How often it is read while nobody sees the page. */
export const HIDDEN_POLL_MS = 30_000;
/** A page that is hidden this long lets go of its stream. */
export const HIDDEN_AFTER_MS = 30_000;
/** Where there is no such interface, or no right to it: look again now and then. */
export const ABSENT_MS = 60_000;
/** The server says the state at once; a stream that is silent for so long is held back on the way. */
export const FIRST_EVENT_MS = 4000;
/** After a wake-up, what is shown may be old for this long; then it is said to be unknown. */
export const DOUBT_MS = 1500;

export interface IFollowed {
  /** A whole state by GET. `serverTime`: the server's clock, ms. */
  onStatus(status: Status, serverTime: number | null): void;
  onEvent(event: IStreamEvent): void;
  onConnection(connection: Connection): void;
}

export class Follower {
  constructor(
    private readonly _client: IClient,
    private readonly _clock: IClock,
    private readonly _page: IPage,
    private readonly _chance: () => number,
    private readonly _told: IFollowed
  ) {}

  get connection(): Connection {
    return this._connection;
  }

  start(): void {
    this._page.woke.connect(this._onWake, this);
    this._page.visibilityChanged.connect(this._onVisibility, this);
    void this._run();
  }

  stop(): void {
    this._stopped = true;
    this._page.woke.disconnect(this._onWake, this);
    this._page.visibilityChanged.disconnect(this._onVisibility, this);
    this._cancelHide?.();
    this._stream?.abort();
    this._skipPause?.();
  }

  /** Read everything again now, on a new line. */
  again(): void {
    this._attempt = 0;
    this._again = true;
    this._stream?.abort();
    this._skipPause?.();
  }

  private async _run(): Promise<void> {
    while (!this._stopped) {
      this._again = false;
      const pause = await this._round();
      if (!this._stopped && !this._again) {
        await this._wait(pause);
      }
    }
  }

  /** One round; returns how long to wait before the next one, ms. */
  private async _round(): Promise<number> {
    try {
      const { body, serverTime } = await this._client.status();
      if (this._stopped) {
        return 0;
      }
      this._told.onStatus(body, serverTime);
      this._say(this._heldBack || this._page.hidden ? 'polling' : 'live');
    } catch (error) {
      return this._failed(error);
    }
    if (this._hiddenLong) {
      return HIDDEN_POLL_MS;
    }
    if (this._heldBack && this._pollsLeft > 0) {
      this._pollsLeft -= 1;
      return POLL_MS;
    }
    return this._follow();
  }

  private async _follow(): Promise<number> {
    const stream = (this._stream = new AbortController());
    let heard = false;
    const giveUp = this._clock.after(FIRST_EVENT_MS, () => stream.abort());
    try {
      await this._client.follow(
        {
          onEvent: event => {
            if (!heard) {
              heard = true;
              giveUp();
              this._attempt = 0;
              this._heldBack = false;
              this._say('live');
            }
            this._told.onEvent(event);
          }
        },
        stream.signal
      );
    } catch (error) {
      if (error instanceof Refusal && error.status < 500) {
        return this._failed(error);
      }
    } finally {
      giveUp();
      this._stream = null;
    }
    if (!heard && !this._again) {
      this._heldBack = true;
      this._pollsLeft = POLLS_BETWEEN_STREAMS;
    }
    return this._heldBack ? POLL_MS : this._backOff();
  }

  private _failed(error: unknown): number {
    if (error instanceof Refusal && error.status === 404) {
      this._say('absent');
      return ABSENT_MS;
    }
    if (error instanceof Refusal && (error.status === 401 || error.status === 403)) {
      this._say('signed-out');
      return ABSENT_MS;
    }
    this._say('away');
    return this._backOff();
  }

  private _backOff(): number {
    const base = BACK_OFF_MS[Math.min(this._attempt, BACK_OFF_MS.length - 1)] ?? POLL_MS;
    this._attempt += 1;
    return base * (0.75 + 0.5 * this._chance());
  }

  private _wait(ms: number): Promise<void> {
    return new Promise(resolve => {
      const cancel = this._clock.after(ms, resolve);
      this._skipPause = () => {
        cancel();
        resolve();
      };
    });
  }

  private _say(connection: Connection): void {
    this._cancelDoubt?.();
    if (connection !== this._connection) {
      this._connection = connection;
      this._told.onConnection(connection);
    }
  }

  private _onWake(): void {
    this._cancelDoubt?.();
    this._cancelDoubt = this._clock.after(DOUBT_MS, () => this._say('away'));
    this.again();
  }

  private _onVisibility(): void {
    this._cancelHide?.();
    if (this._page.hidden) {
      this._cancelHide = this._clock.after(HIDDEN_AFTER_MS, () => {
        this._hiddenLong = true;
        this._stream?.abort();
      });
    } else {
      this._hiddenLong = false;
    }
  }

  private _connection: Connection = 'connecting';
  private _stream: AbortController | null = null;
  private _attempt = 0;
  private _heldBack = false;
  private _pollsLeft = 0;
  private _hiddenLong = false;
  private _again = false;
  private _stopped = false;
  private _skipPause: (() => void) | null = null;
  private _cancelHide: (() => void) | null = null;
  private _cancelDoubt: (() => void) | null = null;
}
