/**
 * Short names for the generated types of the REST contract.
 */
import type { components } from './contract';

type Schemas = components['schemas'];

/** What the server sends has every field, also those that its description gives a default. */
type Whole<T> = T extends (infer One)[]
  ? Whole<One>[]
  : T extends object
    ? { [Key in keyof T]-?: Whole<Exclude<T[Key], undefined>> }
    : T;

export type PlacementRequest = Schemas['PlacementRequest'];
export type RestoreRequest = Schemas['RestoreRequest'];
export type Status = Whole<Schemas['Status']>;
export type KernelStatus = Whole<Schemas['KernelStatus']>;
export type KernelNotice = Whole<Schemas['KernelNotice']>;
export type Lease = Whole<Schemas['Lease']>;
export type Move = Whole<Schemas['Move']>;
export type Pool = Whole<Schemas['Pool']>;
export type Placement = KernelStatus['placement'];
export type QuotaUse = Whole<Schemas['QuotaUse']>;
export type RebuildPlan = Whole<Schemas['RebuildPlan']>;
export type RebuildRequest = Schemas['RebuildRequest'];
export type RebuildResult = Whole<Schemas['RebuildResult']>;
export type RestoreResult = Whole<Schemas['RestoreResult']>;
export type SnapshotComparison = Whole<Schemas['SnapshotComparison']>;
export type SnapshotInfo = Whole<Schemas['SnapshotInfo']>;
export type SnapshotList = Whole<Schemas['SnapshotList']>;
export type Usage = Whole<Schemas['Usage']>;
export type UsageSeries = Whole<Schemas['UsageSeries']>;
export type Verdict = Whole<Schemas['Verdict']>;
export type ErrorBody = Whole<Schemas['ErrorBody']>;

/** The data of a `usage` event. */
export interface IUsageEvent {
  lease: string;
  usage: Usage | null;
  idle_seconds: number | null;
}
