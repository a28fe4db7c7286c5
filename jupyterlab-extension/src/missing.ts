/**
 * Says that something is missing after a move or a restore, where cells can make it again.
 */
import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import { CommandIDs, type IGpuSession } from './tokens';

/** After something came back: say that more can be made again, if so. Says nothing of its own trouble. */
export async function offerRebuild(
  session: IGpuSession,
  commands: CommandRegistry,
  kernel: string,
  trans: TranslationBundle
): Promise<void> {
  const plan = await session.model.rebuildPlan(kernel).catch(() => null);
  if (plan === null || plan.cells.length === 0) {
    return;
  }
  Notification.info(
    trans._n(
      '%2 is missing. A cell makes it again.',
      '%1 variables are missing: %2. Cells make them again.',
      plan.names.length,
      plan.names.join(', ')
    ),
    {
      autoClose: 20_000,
      actions: [
        {
          label: trans.__('Make again…'),
          displayType: 'accent',
          callback: () => void commands.execute(CommandIDs.rebuild, { kernel })
        }
      ]
    }
  );
}
