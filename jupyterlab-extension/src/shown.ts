/**
 * What people are shown, as data: the model makes these, the components draw them.
 *
 * Times are milliseconds of the browser's clock (already corrected for the server's), sizes bytes.
 */

/** How much room the toolbar has for the switch. */
export type Room = 'wide' | 'narrow' | 'tiny';

export type Place = 'server' | 'worker';

export type Fate = 'kept' | 'rebuilt' | 'left';

/** One variable and what becomes of it. */
export interface IVariable {
  name: string;
  type: string;
  bytes: number | null;
  fate: Fate;
  reason: string | null;
  hint: string | null;
}

/** How a GPU is called. */
export interface IGpu {
  model: string;
  simulated: boolean;
  count: number;
  memoryBytes: number;
}

/** A kind of GPU on offer. */
export interface IPoolShown {
  name: string;
  gpu: IGpu;
  free: number;
  total: number;
  waiting: number;
}

/** The newest measurement. */
export interface IMeter {
  utilisationPercent: number;
  memoryBytes: number;
  memoryTotalBytes: number;
}

/** The last ten minutes: parallel lists, times in ms, oldest first. */
export interface ISeries {
  times: number[];
  utilisationPercent: number[];
  memoryBytes: number[];
}

export interface IHolding {
  gpu: IGpu;
  meter: IMeter | null;
  since: number | null;
  latestEnd: number | null;
  idleSeconds: number | null;
  /** The policy's patience with a silent GPU; null: not known. */
  idleAfterSeconds: number | null;
  keep: IKeep | null;
}

export interface IKeep {
  minutes: number;
  timesLeft: number;
}

export type EndReason =
  | 'released'
  | 'idle'
  | 'expired'
  | 'preempted'
  | 'quota'
  | 'revoked'
  | 'cancelled'
  | 'failed'
  | 'server-stopped';

export interface IWarning {
  reason: EndReason;
  at: number;
  message: string;
  keep: IKeep;
  residentBytes: number | null;
}

export interface IWaiting {
  place: number | null;
  ahead: number | null;
  startsAt: number | null;
  message: string;
}

export type MovePhase = 'holding' | 'saving' | 'loading' | 'switching';

/** The switch in a notebook's toolbar: one of the table's rows. */
export type SwitchState =
  | { kind: 'hidden' }
  | { kind: 'unknown'; why: 'connecting' | 'away' | 'signed-out' | 'no-kernel' }
  | {
      kind: 'cpu';
      pools: IPoolShown[];
      /** A GPU that this server has already: this notebook would join at once. */
      held: IGpu | null;
      serviceAway: boolean;
      /** The kernel's language cannot carry variables. */
      startsAnew: boolean;
    }
  | ({ kind: 'waiting'; canCancel: boolean; serviceAway: boolean } & IWaiting)
  | { kind: 'starting'; target: Place; message: string; canCancel: boolean }
  | { kind: 'checking'; target: Place; message: string; canCancel: boolean }
  | { kind: 'consent'; move: string; target: Place; left: IVariable[]; total: number }
  | {
      kind: 'moving';
      target: Place;
      phase: MovePhase;
      bytesDone: number;
      bytesTotal: number | null;
      message: string;
      canCancel: boolean;
      /** Why it moves although nobody asked. */
      because: string | null;
    }
  | { kind: 'recovering'; message: string }
  | ({ kind: 'on'; stayedBehind: IVariable[] } & IHolding)
  | ({ kind: 'warning'; warning: IWarning } & IHolding)
  | {
      kind: 'ending';
      gpu: IGpu;
      deadline: number | null;
      message: string;
      reason: EndReason | null;
    };

export type AsideKind = 'moved-back' | 'restored' | 'lost' | 'cut' | 'restore-offer' | 'failed';

/** What stands beside the switch until somebody has read it. */
export interface IAside {
  id: string;
  kind: AsideKind;
  at: number;
  message: string;
  /** What the person may do about it. */
  hint: string | null;
  snapshot: string | null;
  /** When the state that was restored or is offered was saved; null: not known. */
  savedAt: number | null;
  variables: IVariable[];
}

export interface INotebookHere {
  kernel: string;
  path: string | null;
  name: string;
  busy: boolean;
}

export interface ICommandHere {
  id: string;
  command: string;
  since: number;
}

/** The card of the GPU that is held or asked for. */
export type CardState =
  | { kind: 'none' }
  | ({ kind: 'queued'; serviceAway: boolean } & IWaiting)
  | { kind: 'starting'; gpu: IGpu; message: string }
  | ({
      kind: 'held';
      warning: IWarning | null;
      notebooks: INotebookHere[];
      commands: ICommandHere[];
      series: ISeries;
    } & IHolding)
  | { kind: 'ending'; gpu: IGpu; deadline: number | null; message: string };

export interface IQuotaShown {
  name: 'gpus_at_once' | 'gpu_hours_per_week' | 'longest_lease_hours';
  used: number | null;
  allowed: number | null;
  freesAt: number | null;
}

export interface ISavedState {
  id: string;
  notebook: string | null;
  at: number;
  reason:
    'move' | 'release' | 'idle' | 'ending' | 'server-stop' | 'worker-stop' | 'manual' | 'automatic';
  bytes: number;
  kept: number;
  left: number;
  problem: string | null;
  variables: IVariable[];
  /** The kernel that would take it; null: its notebook is not open. */
  kernel: string | null;
}

export interface IPanelState {
  connection: 'connecting' | 'live' | 'polling' | 'away' | 'signed-out' | 'absent';
  serviceAway: boolean;
  card: CardState;
  pools: IPoolShown[];
  quotas: IQuotaShown[];
  saved: ISavedState[] | null;
  savedBytes: number;
  /** What saved states may take; null: not known. */
  savedLimit: number | null;
  /** Why notebooks are not saved automatically at the moment. */
  saveProblems: { notebook: string | null; problem: string }[];
}

/** One variable in two saved states. */
export interface IChangeShown {
  name: string;
  change: 'added' | 'removed' | 'changed' | 'same' | 'unknown';
  before: IVariable | null;
  after: IVariable | null;
}

/** A cell to run again. */
export interface ICellShown {
  number: number;
  code: string;
  makes: string[];
  seconds: number;
  warnings: string[];
}
