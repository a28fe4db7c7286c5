/**
 * Says news as JupyterLab's notifications, for those who look elsewhere in the page.
 */
import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import { clock, gpuName } from './format';
import { type News, news } from './model/news';
import { shortModel } from './model/naming';
import { offerRebuild } from './missing';
import { locale } from './texts';
import { CommandIDs, type IGpuSession } from './tokens';
import type { Status } from './wire';

export class Notices {
  constructor(
    private readonly _session: IGpuSession,
    private readonly _commands: CommandRegistry,
    private readonly _trans: TranslationBundle
  ) {
    _session.model.changed.connect(this._look, this);
  }

  private _look(): void {
    const { model, choices } = this._session;
    const now = model.status;
    if (now && now !== this._before) {
      const found = news(this._before, now);
      this._before = now;
      this._forgetSettled(now);
      if (choices.notify) {
        found.forEach(one => this._say(one));
      }
    }
  }

  private _say(one: News): void {
    const trans = this._trans;
    switch (one.kind) {
      case 'warning':
        this._warn(one);
        break;
      case 'warning-over':
        this._takeBack();
        break;
      case 'granted': {
        const gpu = {
          model: shortModel(one.model),
          simulated: one.simulated,
          count: 1,
          memoryBytes: 0
        };
        Notification.success(trans.__('It is your turn: %1.', gpuName(gpu, trans)), {
          autoClose: 6000
        });
        break;
      }
      case 'carried':
        void offerRebuild(this._session, this._commands, one.kernel, trans);
        break;
      case 'notice':
        this._notice(one);
        if (one.notice.kind === 'restored' || one.notice.kind === 'lost') {
          void offerRebuild(this._session, this._commands, one.kernel, trans);
        }
        break;
    }
  }

  private _warn({ warning }: Extract<News, { kind: 'warning' }>): void {
    const trans = this._trans;
    const at = clock(warning.at, this._session.model.now(), locale(trans));
    const actions: Notification.IAction[] = [
      {
        label: trans.__('Release'),
        callback: () => void this._commands.execute(CommandIDs.release)
      }
    ];
    if (warning.keep.timesLeft > 0) {
      actions.unshift({
        label: trans.__('Keep'),
        caption: trans.__('Keep the GPU for %1 more minutes.', warning.keep.minutes),
        displayType: 'accent',
        callback: () => void this._commands.execute(CommandIDs.keep)
      });
    }
    this._takeBack();
    this._warning = Notification.warning(
      trans.__('%1 Back to the CPU at %2, with the variables.', warning.message, at),
      { autoClose: false, actions }
    );
  }

  /** A notice that was dismissed or answered elsewhere, in another tab too, need not stay here. */
  private _forgetSettled(now: Status): void {
    const open = new Set(now.kernels.flatMap(kernel => kernel.notices.map(one => one.id)));
    for (const [notice, shown] of this._shown) {
      if (!open.has(notice)) {
        Notification.dismiss(shown);
        this._shown.delete(notice);
      }
    }
  }

  private _takeBack(): void {
    if (this._warning !== null) {
      Notification.dismiss(this._warning);
      this._warning = null;
    }
  }

  private _notice({ kernel, notebook, notice }: Extract<News, { kind: 'notice' }>): void {
    const trans = this._trans;
    const name = notebook?.split('/').pop();
    const message = name ? trans.__('%1: %2', name, notice.message) : notice.message;
    const dismiss: Notification.IAction = {
      label: trans.__('Dismiss'),
      callback: () => void this._commands.execute(CommandIDs.dismiss, { kernel, notice: notice.id })
    };
    if (notice.kind === 'restore-offer') {
      const snapshot = notice.snapshot ?? '';
      const shown = Notification.info(message, {
        autoClose: false,
        actions: [
          {
            label: trans.__('Restore'),
            displayType: 'accent',
            callback: () => void this._commands.execute(CommandIDs.restore, { kernel, snapshot })
          },
          {
            label: trans.__('Choose variables…'),
            callback: () =>
              void this._commands.execute(CommandIDs.restore, { kernel, snapshot, choose: true })
          },
          dismiss
        ]
      });
      this._shown.set(notice.id, shown);
    } else if (notice.kind === 'moved-back') {
      Notification.info(message, { autoClose: 10_000 });
    } else {
      this._shown.set(notice.id, Notification.warning(message, { autoClose: false }));
    }
  }

  private readonly _shown = new Map<string, string>();

  private _before: Status | null = null;
  private _warning: string | null = null;
}
