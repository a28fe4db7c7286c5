/**
 * What the model wants from the page around it. A page gives the real things (src/page.ts), a test others.
 */
import type { ISignal } from '@lumino/signaling';

export interface IClock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Call back once after so many milliseconds; returns the way out. */
  after(ms: number, callback: () => void): () => void;
}

/** News about the page itself: it is seen again, is on line again, was asleep. */
export interface IPage {
  /** Nobody can see the page. */
  readonly hidden: boolean;
  readonly visibilityChanged: ISignal<IPage, void>;
  /** What was known may be old: look again now. */
  readonly woke: ISignal<IPage, void>;
}

/** A small memory that all tabs of this browser share. */
export interface IMemory {
  has(key: string): boolean;
  add(key: string): void;
  readonly changed: ISignal<IMemory, void>;
}

/** What the person has chosen in the settings. */
export interface IChoices {
  /** The kind of GPU to ask for; empty: the first that one may use. */
  readonly pool: string;
  /** Say news as notifications too. */
  readonly notify: boolean;
  /** Notebooks for which variables may stay behind without asking again. */
  remembers(notebook: string): boolean;
  remember(notebook: string, yes: boolean): Promise<void>;
  /** A notebook was renamed: what was remembered goes with it. */
  renamed(before: string, after: string): Promise<void>;
  readonly changed: ISignal<IChoices, void>;
}
