/**
 * What one can do, as commands: the switch, the panel, the menus, the palette and keyboard
 * shortcuts all come here. A refusal is shown with its sentence and hint, and changes nothing.
 */
import { Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReadonlyJSONObject } from '@lumino/coreutils';
import { Refusal } from './client';
import { clock, size } from './format';
import { gpuIcon } from './icons';
import { saved as savedState } from './model/panel';
import { offerRebuild } from './missing';
import { ChooseBody } from './restoring';
import type { ISavedState } from './shown';
import { locale, savedReason } from './texts';
import { CommandIDs, type ICommandArgs, type IGpuSession, PANEL_ID } from './tokens';
import type { KernelStatus, RestoreResult } from './wire';

export function addCommands(
  app: JupyterFrontEnd,
  session: IGpuSession,
  tracker: INotebookTracker | null,
  trans: TranslationBundle
): void {
  const { commands } = app;
  const { model, choices } = session;

  const target = (args: ICommandArgs): KernelStatus | null =>
    model.kernel(args.kernel ?? tracker?.currentWidget?.sessionContext.session?.kernel?.id);
  const still = (kernel: KernelStatus | null): boolean =>
    kernel !== null && (kernel.move === null || Boolean(kernel.move.ended_at));
  const remembers = (kernel: KernelStatus): boolean =>
    kernel.notebook !== null && choices.remembers(kernel.notebook);

  const attempt = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      Notification.error(explain(error, trans), { autoClose: 8000 });
    }
  };
  const add = (
    id: string,
    label: string,
    caption: string,
    execute: (args: ICommandArgs) => Promise<unknown>,
    isEnabled: (args: ICommandArgs) => boolean,
    shape: ReadonlyJSONObject = {}
  ) =>
    commands.addCommand(id, {
      label,
      caption,
      execute: args => execute(args as ICommandArgs),
      isEnabled: args => isEnabled(args as ICommandArgs),
      isVisible: () => model.connection !== 'absent',
      describedBy: { args: { type: 'object', properties: shape } }
    });
  const kernelArg = {
    kernel: { type: 'string', description: 'The kernel; none: the current one' }
  };

  add(
    CommandIDs.switchOn,
    trans.__('Run This Notebook on a GPU'),
    trans.__('Move the notebook’s kernel onto a GPU, with its variables.'),
    args =>
      attempt(async () => {
        const kernel = target(args);
        if (kernel) {
          const accept = args.accept ?? remembers(kernel);
          await model.move(kernel.id, 'worker', accept, (args.pool ?? choices.pool) || null);
        }
      }),
    args => {
      const kernel = target(args);
      return still(kernel) && kernel?.placement === 'server';
    },
    {
      ...kernelArg,
      accept: { type: 'boolean', description: 'Leave behind what cannot move' },
      pool: { type: 'string', description: 'The kind of GPU' }
    }
  );
  add(
    CommandIDs.switchOff,
    trans.__('Move This Notebook Back to the CPU'),
    trans.__('Move the notebook’s kernel back, with its variables.'),
    args =>
      attempt(async () => {
        const kernel = target(args);
        if (kernel) {
          await model.move(kernel.id, 'server', args.accept ?? remembers(kernel), null);
        }
      }),
    args => {
      const kernel = target(args);
      return still(kernel) && kernel?.placement === 'worker';
    },
    { ...kernelArg, accept: { type: 'boolean', description: 'Leave behind what cannot move' } }
  );
  add(
    CommandIDs.cancel,
    trans.__('Cancel the Move of This Notebook'),
    trans.__('Stop waiting or moving; the notebook goes on where it is.'),
    args =>
      attempt(async () => {
        const kernel = target(args);
        if (kernel) {
          await model.cancelMove(kernel.id);
        }
      }),
    args => {
      const kernel = target(args);
      return kernel !== null && !still(kernel) && kernel.move?.can_cancel === true;
    },
    kernelArg
  );
  add(
    CommandIDs.keep,
    trans.__('Keep the GPU'),
    trans.__('Answer the warning: you still need it.'),
    () =>
      attempt(async () => {
        const lease = await model.keep();
        const until = lease.warning ? null : trans.__('You keep the GPU.');
        if (until) {
          Notification.success(until, { autoClose: 3000 });
        }
      }),
    () => Boolean(model.status?.lease?.warning)
  );
  add(
    CommandIDs.release,
    trans.__('Release the GPU'),
    trans.__('Give it back. Every notebook on it moves back with its variables.'),
    () =>
      attempt(async () => {
        if (await agreesToRelease(session, trans)) {
          await model.release();
        }
      }),
    () => {
      const state = model.status?.lease?.state;
      return state === 'queued' || state === 'starting' || state === 'active';
    }
  );
  add(
    CommandIDs.saveState,
    trans.__('Save the Variables of This Notebook'),
    trans.__('Save the kernel’s variables now, where it runs.'),
    async args => {
      const kernel = target(args);
      if (kernel) {
        await told(
          model.save(kernel.id),
          trans.__('Saving the variables…'),
          saved =>
            trans._n(
              'Saved %1 variable, %2.',
              'Saved %1 variables, %2.',
              saved.kept,
              size(saved.bytes, trans)
            ),
          trans
        );
      }
    },
    args => {
      const kernel = target(args);
      return still(kernel) && kernel?.movable === 'state';
    },
    kernelArg
  );
  add(
    CommandIDs.restore,
    trans.__('Restore Saved Variables…'),
    trans.__('Load variables from a saved state.'),
    args =>
      attempt(async () => {
        const kernel = target(args);
        if (kernel) {
          await restore(app, session, kernel, args, trans);
        }
      }),
    args => {
      const kernel = target(args);
      return still(kernel) && kernel?.movable === 'state';
    },
    {
      ...kernelArg,
      snapshot: { type: 'string', description: 'The saved state; none: ask which' },
      choose: { type: 'boolean', description: 'Ask which variables' },
      names: { type: 'array', items: { type: 'string' }, description: 'Only these variables' }
    }
  );
  add(
    CommandIDs.deleteState,
    trans.__('Delete Saved State'),
    trans.__('Delete it from your home folder.'),
    args =>
      attempt(async () => {
        if (args.snapshot && (await agreesToDelete(session, args.snapshot, trans))) {
          await model.deleteSnapshot(args.snapshot);
        }
      }),
    args => Boolean(args.snapshot),
    { snapshot: { type: 'string', description: 'The saved state' } }
  );
  add(
    CommandIDs.dismiss,
    trans.__('Dismiss the Notice About This Notebook'),
    '',
    args =>
      attempt(async () => {
        const kernel = target(args);
        const notice = args.notice ?? kernel?.notices.at(-1)?.id;
        if (kernel && notice) {
          await model.dismiss(kernel.id, notice);
        }
      }),
    args => (target(args)?.notices.length ?? 0) > 0,
    { ...kernelArg, notice: { type: 'string', description: 'The notice; none: the newest' } }
  );
  commands.addCommand(CommandIDs.openPanel, {
    label: args => (args['isPalette'] ? trans.__('Show GPU Panel') : trans.__('GPU')),
    caption: trans.__('Show the GPU panel: device, queue, limits and saved states.'),
    icon: gpuIcon,
    execute: () => app.shell.activateById(PANEL_ID),
    describedBy: { args: { type: 'object', properties: {} } }
  });
  commands.addCommand(CommandIDs.refresh, {
    label: trans.__('Refresh the GPU Panel'),
    execute: () => model.refresh(),
    describedBy: { args: { type: 'object', properties: {} } }
  });

  const refreshed = () => {
    for (const id of [CommandIDs.switchOn, CommandIDs.switchOff, CommandIDs.release]) {
      commands.notifyCommandChanged(id);
    }
  };
  let shownFor = '';
  model.changed.connect(() => {
    // Menus and palette look again only when something that decides about commands is different.
    const { status, connection } = model;
    const key = [
      connection,
      status?.lease?.state,
      ...(status?.kernels.map(one => `${one.id}${one.placement}${one.move?.step}`) ?? [])
    ].join();
    if (key !== shownFor) {
      shownFor = key;
      refreshed();
    }
  });
  tracker?.currentChanged.connect(refreshed);
}

/** The sentence and hint of a refusal; for what did not arrive, what that means. */
export function explain(error: unknown, trans: TranslationBundle): string {
  if (error instanceof Refusal) {
    return error.hint ? `${error.message} ${error.hint}` : error.message;
  }
  return trans.__('The server did not answer. Nothing was changed; try again.');
}

export async function told<T>(
  work: Promise<T>,
  pending: string,
  done: (result: T) => string,
  trans: TranslationBundle
): Promise<T | null> {
  const id = Notification.emit(pending, 'in-progress', { autoClose: false });
  try {
    const result = await work;
    Notification.update({ id, message: done(result), type: 'success', autoClose: 5000 });
    return result;
  } catch (error) {
    Notification.update({ id, message: explain(error, trans), type: 'error', autoClose: 8000 });
    return null;
  }
}

async function agreesToRelease(session: IGpuSession, trans: TranslationBundle): Promise<boolean> {
  const status = session.model.status;
  if (status?.lease?.state !== 'active') {
    return true;
  }
  const notebooks = status.kernels.filter(kernel => kernel.placement === 'worker').length;
  const commands = status.commands.length;
  if (commands === 0 && notebooks < 2) {
    return true;
  }
  const lines: string[] = [];
  if (notebooks > 0) {
    lines.push(
      trans._n(
        '%1 notebook moves back with its variables.',
        '%1 notebooks move back with their variables.',
        notebooks
      )
    );
  }
  if (commands > 0) {
    lines.push(trans._n('%1 running command ends.', '%1 running commands end.', commands));
  }
  const answer = await showDialog({
    title: trans.__('Release the GPU?'),
    body: lines.join(' '),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.warnButton({ label: trans.__('Release') })
    ]
  });
  return answer.button.accept;
}

async function agreesToDelete(
  session: IGpuSession,
  snapshot: string,
  trans: TranslationBundle
): Promise<boolean> {
  const { model } = session;
  const found = model.snapshots?.find(one => one.id === snapshot);
  const answer = await showDialog({
    title: trans.__('Delete this saved state?'),
    body: found
      ? trans.__(
          '%1 of %2, %3. It cannot be brought back.',
          found.notebook ?? trans.__('no notebook'),
          clock(Date.parse(found.created_at), model.now(), locale(trans)),
          size(found.bytes, trans)
        )
      : trans.__('It cannot be brought back.'),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.warnButton({ label: trans.__('Delete') })
    ]
  });
  return answer.button.accept;
}

async function restore(
  app: JupyterFrontEnd,
  session: IGpuSession,
  kernel: KernelStatus,
  args: ICommandArgs,
  trans: TranslationBundle
): Promise<void> {
  const { model } = session;
  await model.readSnapshots();
  const all = (model.snapshots ?? []).map(one => savedState(one, model.status));
  const found = args.snapshot
    ? all.find(one => one.id === args.snapshot)
    : await chooseState(
        all.filter(one => one.problem === null && one.kernel === kernel.id),
        model.now(),
        trans
      );
  if (!found) {
    if (args.snapshot || !all.some(one => one.kernel === kernel.id)) {
      Notification.info(trans.__('There is no saved state of this notebook.'), { autoClose: 4000 });
    }
    return;
  }
  const offered = kernel.notices.some(
    one => one.kind === 'restore-offer' && one.snapshot === found.id
  );
  const names = args.names
    ? args.names
    : args.choose
      ? await chooseVariables(found, model.now(), trans)
      : offered || (await agreesToRestore(found, model.now(), trans))
        ? 'all'
        : null;
  if (names !== null) {
    await told(
      model.restore(kernel.id, found.id, names === 'all' ? null : names),
      trans.__('Restoring the variables…'),
      result => restoredText(result, found, model.now(), trans),
      trans
    );
    await offerRebuild(session, app.commands, kernel.id, trans);
  }
}

async function chooseState(
  all: ISavedState[],
  now: number,
  trans: TranslationBundle
): Promise<ISavedState | undefined> {
  if (all.length === 0) {
    return undefined;
  }
  const labels = all.map(one =>
    trans.__(
      '%1: %2, %3',
      clock(one.at, now, locale(trans)),
      savedReason(one.reason, trans),
      size(one.bytes, trans)
    )
  );
  const answer = await InputDialog.getItem({
    title: trans.__('Restore which saved state?'),
    items: labels,
    okLabel: trans.__('Continue')
  });
  return answer.value === null ? undefined : all[labels.indexOf(answer.value)];
}

async function agreesToRestore(
  found: ISavedState,
  now: number,
  trans: TranslationBundle
): Promise<boolean> {
  const answer = await showDialog({
    title: trans.__('Restore the state of %1?', clock(found.at, now, locale(trans))),
    body: trans._n(
      '%1 variable comes back. One with the same name is replaced.',
      '%1 variables come back. Those with the same names are replaced.',
      found.kept
    ),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({ label: trans.__('Restore') })
    ]
  });
  return answer.button.accept;
}

async function chooseVariables(
  found: ISavedState,
  now: number,
  trans: TranslationBundle
): Promise<string[] | null> {
  const answer = await showDialog({
    title: trans.__('Restore from %1', clock(found.at, now, locale(trans))),
    body: new ChooseBody(found.variables, trans),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({ label: trans.__('Restore') })
    ]
  });
  return answer.button.accept && answer.value?.length ? answer.value : null;
}

function restoredText(
  result: RestoreResult,
  found: ISavedState,
  now: number,
  trans: TranslationBundle
): string {
  const left = result.verdicts.filter(one => one.verdict === 'left').length;
  const back = result.verdicts.length - left;
  const when = clock(found.at, now, locale(trans));
  const first = trans._n('Restored %1 variable of %2.', 'Restored %1 variables of %2.', back, when);
  return left === 0
    ? first
    : `${first} ${trans._n('%1 could not be restored.', '%1 could not be restored.', left)}`;
}
