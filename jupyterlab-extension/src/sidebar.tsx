/**
 * The panel as a widget in the left area: ties the model to the component.
 */
import { PageConfig } from '@jupyterlab/coreutils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { MenuSvg, ReactWidget } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import { type IPanelActions, Panel } from './components/Panel';
import { gpuIcon } from './icons';
import { panelState } from './model/panel';
import type { ISavedState } from './shown';
import { CommandIDs, type ICommandArgs, type IGpuSession, PANEL_ID } from './tokens';

export class GpuPanel extends ReactWidget {
  constructor(
    private readonly _session: IGpuSession,
    private readonly _commands: CommandRegistry,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.id = PANEL_ID;
    this.addClass('gpuhub-PanelWidget');
    this.title.icon = gpuIcon;
    this.title.caption = _trans.__('GPU');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _trans.__('GPU'));
    _session.model.changed.connect(this._redraw, this);
  }

  override dispose(): void {
    this._session.model.changed.disconnect(this._redraw, this);
    super.dispose();
  }

  protected override render(): JSX.Element {
    const { model } = this._session;
    return (
      <Panel
        state={panelState(model.status, model.connection, model.series, model.snapshots)}
        trans={this._trans}
        now={() => model.now()}
        asking={this._asking > 0}
        moreUrl={servicePage()}
        actions={this._actions}
      />
    );
  }

  protected override onAfterShow(): void {
    if (this._session.model.snapshots === null) {
      // Why it cannot be read stands above the list already.
      this._session.model.readSnapshots().catch(() => undefined);
    }
    this.update();
  }

  private async _do(command: string, args: ICommandArgs = {}): Promise<void> {
    this._asking += 1;
    this.update();
    try {
      await this._commands.execute(command, { ...args });
    } finally {
      this._asking -= 1;
      this._redraw();
    }
  }

  private readonly _actions: IPanelActions = {
    refresh: () => void this._do(CommandIDs.refresh),
    keep: () => void this._do(CommandIDs.keep),
    release: () => void this._do(CommandIDs.release),
    openAll: () => void this._do(CommandIDs.openStates),
    openNotebook: path => void this._commands.execute('docmanager:open', { path }),
    restore: saved => void this._do(CommandIDs.restore, about(saved)),
    menu: (saved, x, y) => {
      const menu = new MenuSvg({ commands: this._commands });
      if (saved.problem === null && saved.kernel !== null) {
        menu.addItem({ command: CommandIDs.restore, args: { ...about(saved), choose: true } });
        menu.addItem({ command: CommandIDs.rebuild, args: { ...about(saved) } });
      }
      if (saved.notebook !== null) {
        menu.addItem({ command: 'docmanager:open', args: { path: saved.notebook } });
      }
      menu.addItem({ type: 'separator' });
      menu.addItem({ command: CommandIDs.deleteState, args: { snapshot: saved.id } });
      menu.aboutToClose.connect(() => requestAnimationFrame(() => menu.dispose()));
      menu.open(x, y);
    }
  };

  private _redraw(): void {
    if (this.isVisible && !this.isDisposed) {
      this.update();
    }
  }

  private _asking = 0;
}

/** Beside the hub, where this server belongs to one. */
function servicePage(): string | null {
  const hub = PageConfig.getOption('hubPrefix');
  return hub ? PageConfig.getOption('hubHost') + hub.replace(/hub\/?$/, 'services/gpu/') : null;
}

function about(saved: ISavedState): ICommandArgs {
  return { snapshot: saved.id, ...(saved.kernel ? { kernel: saved.kernel } : {}) };
}
