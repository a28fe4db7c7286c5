/**
 * The page as the model wants it: its clock, its visibility and wake-ups, its small memory.
 */
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import type { IClock, IMemory, IPage } from './model/ports';

export const browserClock: IClock = {
  now: () => Date.now(),
  after: (ms, callback) => {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  }
};

const HEARTBEAT_MS = 2000;
/** A heartbeat that comes this late means that the machine slept (or the page was frozen). */
const ASLEEP_MS = 8000;

export class BrowserPage implements IPage, IDisposable {
  constructor() {
    document.addEventListener('visibilitychange', this._onVisibility);
    window.addEventListener('online', this._onWake);
    window.addEventListener('pageshow', this._onWake);
    this._heartbeat = setInterval(() => this._beat(), HEARTBEAT_MS);
  }

  readonly visibilityChanged: Signal<IPage, void> = new Signal<IPage, void>(this);
  readonly woke: Signal<IPage, void> = new Signal<IPage, void>(this);

  get hidden(): boolean {
    return document.visibilityState === 'hidden';
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    this._isDisposed = true;
    document.removeEventListener('visibilitychange', this._onVisibility);
    window.removeEventListener('online', this._onWake);
    window.removeEventListener('pageshow', this._onWake);
    clearInterval(this._heartbeat);
    Signal.clearData(this);
  }

  private _beat(): void {
    const now = Date.now();
    const late = now - this._lastBeat;
    this._lastBeat = now;
    // Browsers slow the timers of hidden pages down: there a late beat says nothing.
    if (late > ASLEEP_MS && !this.hidden) {
      this.woke.emit();
    }
  }

  private readonly _onVisibility = (): void => {
    this.visibilityChanged.emit();
    if (!this.hidden) {
      this._lastBeat = Date.now();
      this.woke.emit();
    }
  };

  private readonly _onWake = (event: Event): void => {
    // The first `pageshow` belongs to loading; only a page that comes back from a cache was away.
    if (event.type !== 'pageshow' || (event as PageTransitionEvent).persisted) {
      this.woke.emit();
    }
  };

  private readonly _heartbeat: ReturnType<typeof setInterval>;
  private _lastBeat = Date.now();
  private _isDisposed = false;
}

const MEMORY_KEY = 'jupyterlab-gpuhub:answered';
const MOST_REMEMBERED = 100;

/** Kept in the browser's local storage: other tabs hear of a change at once. */
export class BrowserMemory implements IMemory, IDisposable {
  constructor() {
    this._known = this._read();
    window.addEventListener('storage', this._onStorage);
  }

  readonly changed: Signal<IMemory, void> = new Signal<IMemory, void>(this);

  has(key: string): boolean {
    return this._known.includes(key);
  }

  add(key: string): void {
    if (this.has(key)) {
      return;
    }
    this._known = [...this._read(), key].slice(-MOST_REMEMBERED);
    try {
      localStorage.setItem(MEMORY_KEY, JSON.stringify(this._known));
    } catch {
      // A browser without storage remembers until the page is left.
    }
    this.changed.emit();
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    this._isDisposed = true;
    window.removeEventListener('storage', this._onStorage);
    Signal.clearData(this);
  }

  private _read(): string[] {
    try {
      const found: unknown = JSON.parse(localStorage.getItem(MEMORY_KEY) ?? '[]');
      return Array.isArray(found) ? found.filter(one => typeof one === 'string') : [];
    } catch {
      return [];
    }
  }

  private readonly _onStorage = (event: StorageEvent): void => {
    if (event.key === MEMORY_KEY) {
      this._known = this._read();
      this.changed.emit();
    }
  };

  private _known: string[];
  private _isDisposed = false;
}
