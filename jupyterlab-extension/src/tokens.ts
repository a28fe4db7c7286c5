/**
 * Names that others may rely on. Importing this file has no effects.
 */
import { Token } from '@lumino/coreutils';
import type { IChoices, IMemory } from './model/ports';
import type { SessionModel } from './model/session';

export const PLUGIN_ID = 'jupyterlab-gpuhub:plugin';

/** The domain of the texts. */
export const DOMAIN = 'jupyterlab_gpuhub';

export const TOOLBAR_FACTORY = 'Notebook';
export const TOOLBAR_ITEM = 'gpuSwitch';
export const PANEL_ID = 'gpuhub-panel';

/** What all parts of the extension share. */
export interface IGpuSession {
  readonly model: SessionModel;
  readonly choices: IChoices;
  /** Questions and failures of moves that were answered, in any tab of this browser. */
  readonly answered: IMemory;
}

export const IGpuSession = new Token<IGpuSession>(
  'jupyterlab-gpuhub:IGpuSession',
  'Where the kernels of this server run, and the GPU that it holds.'
);

export const CommandIDs = {
  /** Args: `kernel`, `accept`, `pool`. */
  switchOn: 'gpuhub:switch-on',
  /** Args: `kernel`, `accept`. */
  switchOff: 'gpuhub:switch-off',
  /** Args: `kernel`. */
  cancel: 'gpuhub:cancel-move',
  keep: 'gpuhub:keep',
  release: 'gpuhub:release',
  /** Args: `kernel`. */
  saveState: 'gpuhub:save-state',
  /** Args: `kernel`, `snapshot` (none: ask which), `choose` (ask which variables), `names`. */
  restore: 'gpuhub:restore',
  /** Args: `snapshot`. */
  deleteState: 'gpuhub:delete-state',
  /** Args: `snapshot`, `other`. */
  compareStates: 'gpuhub:compare-states',
  /** Args: `kernel`. */
  rebuild: 'gpuhub:rebuild',
  /** All saved states, in a tab of its own. */
  openStates: 'gpuhub:open-states',
  /** Args: `kernel`, `notice`. */
  dismiss: 'gpuhub:dismiss',
  openPanel: 'gpuhub:open-panel',
  refresh: 'gpuhub:refresh'
} as const;

/** Arguments of the commands; without `kernel` the current notebook's is meant. */
export interface ICommandArgs {
  kernel?: string;
  accept?: boolean;
  pool?: string;
  snapshot?: string;
  other?: string;
  choose?: boolean;
  names?: string[];
  notice?: string;
}
