/**
 * All saved states in a tab of its own: ties the model to the component; its commands.
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, MainAreaWidget, Notification, showDialog } from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { explain } from './commands';
import { Comparison } from './components/Comparison';
import { type IStatesActions, States } from './components/States';
import { clock } from './format';
import { gpuIcon } from './icons';
import { shownVariable } from './model/naming';
import { panelState } from './model/panel';
import { rebuild } from './rebuilding';
import { locale } from './texts';
import { CommandIDs, type ICommandArgs, type IGpuSession } from './tokens';

const STATES_ID = 'gpuhub-states';

export function addStateCommands(
  app: JupyterFrontEnd,
  session: IGpuSession,
  tracker: INotebookTracker | null,
  trans: TranslationBundle
): void {
  const { commands, shell } = app;
  const { model } = session;
  const current = (args: ICommandArgs) =>
    model.kernel(args.kernel ?? tracker?.currentWidget?.sessionContext.session?.kernel?.id);
  const attempt = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      Notification.error(explain(error, trans), { autoClose: 8000 });
    }
  };
  const isVisible = () => model.connection !== 'absent';

  commands.addCommand(CommandIDs.rebuild, {
    label: trans.__('Make Lost Variables of This Notebook Again…'),
    caption: trans.__('Run the cells again that made what could not be saved.'),
    execute: args =>
      attempt(async () => {
        const kernel = current(args as ICommandArgs);
        if (kernel) {
          await rebuild(session, app, tracker, kernel.id, trans);
        }
      }),
    isEnabled: args => current(args as ICommandArgs)?.movable === 'state',
    isVisible,
    describedBy: {
      args: {
        type: 'object',
        properties: {
          kernel: { type: 'string', description: 'The kernel; none: the current one' }
        }
      }
    }
  });
  commands.addCommand(CommandIDs.compareStates, {
    label: trans.__('Compare Two Saved States'),
    execute: args =>
      attempt(async () => {
        const { snapshot, other } = args as ICommandArgs;
        if (snapshot && other) {
          await compare(session, snapshot, other, trans);
        }
      }),
    isEnabled: args => Boolean(args['snapshot'] && args['other']),
    describedBy: {
      args: {
        type: 'object',
        properties: {
          snapshot: { type: 'string', description: 'The earlier one' },
          other: { type: 'string', description: 'The later one' }
        }
      }
    }
  });
  commands.addCommand(CommandIDs.openStates, {
    label: trans.__('Show All Saved States'),
    caption: trans.__('Look into saved states, restore, compare and delete them.'),
    execute: () => {
      let shown = [...shell.widgets('main')].find(one => one.id === STATES_ID);
      if (!shown) {
        shown = new MainAreaWidget({ content: new StatesWidget(session, app, trans) });
        shown.id = STATES_ID;
        shell.add(shown, 'main');
      }
      shell.activateById(STATES_ID);
    },
    isVisible,
    describedBy: { args: { type: 'object', properties: {} } }
  });
}

async function compare(
  session: IGpuSession,
  first: string,
  second: string,
  trans: TranslationBundle
): Promise<void> {
  const { model } = session;
  const found = await model.compare(first, second);
  const when = (id: string) => {
    const one = model.snapshots?.find(saved => saved.id === id);
    return one ? clock(Date.parse(one.created_at), model.now(), locale(trans)) : id;
  };
  await showDialog({
    title: trans.__('From %1 to %2', when(first), when(second)),
    body: ReactWidget.create(
      <Comparison
        changes={found.variables.map(one => ({
          name: one.name,
          change: one.change,
          before: one.before && shownVariable(one.before),
          after: one.after && shownVariable(one.after)
        }))}
        trans={trans}
      />
    ),
    buttons: [Dialog.okButton({ label: trans.__('Close') })]
  });
}

class StatesWidget extends ReactWidget {
  constructor(
    private readonly _session: IGpuSession,
    private readonly _app: JupyterFrontEnd,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.addClass('gpuhub-StatesWidget');
    this.title.label = _trans.__('Saved states');
    this.title.icon = gpuIcon;
    this.title.closable = true;
    this.node.tabIndex = -1;
    _session.model.changed.connect(this.update, this);
    // Why it cannot be read stands in the panel.
    _session.model.readSnapshots().catch(() => undefined);
  }

  override dispose(): void {
    this._session.model.changed.disconnect(this.update, this);
    super.dispose();
  }

  protected override render(): JSX.Element {
    const { model } = this._session;
    return (
      <States
        state={panelState(model.status, model.connection, model.series, model.snapshots)}
        trans={this._trans}
        now={() => model.now()}
        actions={this._actions}
      />
    );
  }

  private readonly _actions: IStatesActions = {
    restore: (saved, names) =>
      void this._app.commands.execute(CommandIDs.restore, {
        snapshot: saved.id,
        ...(saved.kernel ? { kernel: saved.kernel } : {}),
        ...(names ? { names } : {})
      }),
    compare: (first, second) =>
      void this._app.commands.execute(CommandIDs.compareStates, {
        snapshot: first.id,
        other: second.id
      }),
    remove: saved =>
      void this._app.commands.execute(CommandIDs.deleteState, { snapshot: saved.id }),
    openNotebook: path => void this._app.commands.execute('docmanager:open', { path })
  };
}
