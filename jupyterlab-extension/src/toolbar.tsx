/**
 * The switch as a widget in a notebook's toolbar: ties the model to the component.
 */
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import { Fitted } from './components/Fitted';
import type { ISwitchActions } from './components/SwitchParts';
import { asides, type ISeen, switchState } from './model/switch';
import { CommandIDs, type ICommandArgs, type IGpuSession } from './tokens';
import type { IAside } from './shown';

/** Below this it is the toolbar's turn: it moves the switch to its own pop-up. */
const LEAST_PX = 110;
/** What the toolbar needs beside its items: its padding, and the spacer. */
const TOOLBAR_REST_PX = 12;
/** Of the toolbar's own, what is no item: what only fills, and the opener of the pop-up. */
const NO_ITEM = ['jp-Toolbar-spacer', 'jp-Toolbar-responsive-opener'];

export class SwitchWidget extends ReactWidget {
  constructor(
    private readonly _panel: NotebookPanel,
    private readonly _session: IGpuSession,
    private readonly _commands: CommandRegistry,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.addClass('gpuhub-Toolbar-item');
    const { model, choices, answered } = _session;
    model.changed.connect(this._redraw, this);
    choices.changed.connect(this._redraw, this);
    answered.changed.connect(this._redraw, this);
    _panel.sessionContext.kernelChanged.connect(this._redraw, this);
    _panel.context.pathChanged.connect(this._onRenamed, this);
    this._path = _panel.context.path;
    this._observer = new ResizeObserver(() => this._measure());
    this._observer.observe(_panel.toolbar.node);
    this._observer.observe(this.node);
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    const { model, choices, answered } = this._session;
    model.changed.disconnect(this._redraw, this);
    choices.changed.disconnect(this._redraw, this);
    answered.changed.disconnect(this._redraw, this);
    this._panel.sessionContext.kernelChanged.disconnect(this._redraw, this);
    this._panel.context.pathChanged.disconnect(this._onRenamed, this);
    this._observer.disconnect();
    super.dispose();
  }

  protected override render(): JSX.Element {
    const { model } = this._session;
    const seen = this._seen();
    return (
      <Fitted
        state={switchState(seen)}
        asides={asides(seen, id => this._savedAt(id))}
        series={model.series}
        trans={this._trans}
        now={() => model.now()}
        mostPx={this._mostPx}
        asking={this._asking > 0}
        actions={this._actions}
      />
    );
  }

  private _seen(): ISeen {
    const { model, answered } = this._session;
    return {
      status: model.status,
      connection: model.connection,
      kernel: this._kernel,
      answered: move => answered.has(move)
    };
  }

  private get _kernel(): string | null {
    return this._panel.sessionContext.session?.kernel?.id ?? null;
  }

  private _savedAt(snapshot: string): number | null {
    const found = this._session.model.snapshots?.find(one => one.id === snapshot);
    return found ? Date.parse(found.created_at) : null;
  }

  private async _do(command: string, args: ICommandArgs = {}): Promise<void> {
    const kernel = this._kernel;
    this._asking += 1;
    this.update();
    try {
      await this._commands.execute(command, { ...(kernel ? { kernel } : {}), ...args });
    } finally {
      this._asking -= 1;
      this._redraw();
    }
  }

  private readonly _actions: ISwitchActions = {
    on: pool => void this._do(CommandIDs.switchOn, pool ? { pool } : {}),
    off: () => void this._do(CommandIDs.switchOff),
    cancel: () => void this._do(CommandIDs.cancel),
    keep: () => void this._do(CommandIDs.keep),
    release: () => void this._do(CommandIDs.release),
    openPanel: () => void this._do(CommandIDs.openPanel),
    moveAnyway: remember => {
      const state = switchState(this._seen());
      if (state.kind === 'consent') {
        if (remember) {
          void this._session.choices.remember(this._path, true);
        }
        const command = state.target === 'worker' ? CommandIDs.switchOn : CommandIDs.switchOff;
        void this._do(command, { accept: true });
      }
    },
    stay: () => {
      const state = switchState(this._seen());
      if (state.kind === 'consent') {
        this._session.answered.add(state.move);
      }
    },
    dismiss: aside => {
      if (aside.kind === 'failed') {
        this._session.answered.add(aside.id);
      } else {
        void this._do(CommandIDs.dismiss, { notice: aside.id });
      }
    },
    restore: aside => void this._restore(aside, false),
    choose: aside => void this._restore(aside, true)
  };

  private async _restore(aside: IAside, choose: boolean): Promise<void> {
    await this._do(CommandIDs.restore, {
      choose,
      ...(aside.snapshot ? { snapshot: aside.snapshot } : {})
    });
  }

  private _onRenamed(): void {
    const before = this._path;
    this._path = this._panel.context.path;
    if (before && before !== this._path) {
      void this._session.choices.renamed(before, this._path);
    }
  }

  /**
   * Stay within what the toolbar's other items leave: it would fold away what does not fit, from its
   * end, where the kernel's name and state stand.
   */
  private _measure(): void {
    const toolbar = this._panel.toolbar.node;
    const folded = this.node.closest('.jp-Toolbar-responsive-popup') !== null;
    if (toolbar.clientWidth === 0 || folded || !this.isVisible) {
      return;
    }
    const left = this.node.getBoundingClientRect().left - toolbar.getBoundingClientRect().left;
    const room = toolbar.clientWidth - left - this._widthBehind() - TOOLBAR_REST_PX;
    const most = Math.max(LEAST_PX, Math.floor(room));
    this.node.style.maxWidth = `${most}px`;
    if (most !== this._mostPx) {
      this._mostPx = most;
      this._redraw();
    }
  }

  /** The width of the items behind the switch; of those folded away, as they were last seen. */
  private _widthBehind(): number {
    for (let node = this.node.nextElementSibling; node; node = node.nextElementSibling) {
      if (!NO_ITEM.some(name => node?.classList.contains(name))) {
        this._behind.set(node, node.clientWidth);
        this._observer.observe(node);
      }
    }
    let sum = 0;
    for (const [node, width] of this._behind) {
      if (node.isConnected) {
        sum += width;
      }
    }
    return sum;
  }

  private _redraw(): void {
    if (!this.isDisposed) {
      this.update();
    }
  }

  private readonly _observer: ResizeObserver;
  private _path: string;
  private _mostPx = Infinity;
  private readonly _behind = new Map<Element, number>();
  private _asking = 0;
}
