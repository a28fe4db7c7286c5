import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { nullTranslator } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { act, fireEvent, screen } from '@testing-library/react';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Refusal } from '../src/client';
import { addCommands } from '../src/commands';
import type { IChoices } from '../src/model/ports';
import { SessionModel } from '../src/model/session';
import { Notices } from '../src/notices';
import { CommandIDs, type IGpuSession } from '../src/tokens';
import { SwitchWidget } from '../src/toolbar';
import { at, kernel, lease, move, notice, onGpu, refused, status } from './builders';
import { ClockByHand, MemoryOfOneTab, PageByHand, ServerByHand, settle } from './fakes';

const trans = nullTranslator.load('jupyterlab_gpuhub');

/** A person's settings, kept in this page. */
class ChoicesOfOnePage implements IChoices {
  readonly changed: Signal<IChoices, void> = new Signal<IChoices, void>(this);
  pool = '';
  notify = true;
  readonly remembered = new Set<string>();

  remembers(notebook: string): boolean {
    return this.remembered.has(notebook);
  }

  async remember(notebook: string): Promise<void> {
    this.remembered.add(notebook);
    this.changed.emit();
  }

  async renamed(before: string, after: string): Promise<void> {
    if (this.remembered.delete(before)) {
      this.remembered.add(after);
    }
  }
}

/** As much of a notebook as the switch looks at. */
class NotebookWithKernel {
  readonly toolbar = { node: document.createElement('div') };
  readonly sessionContext = {
    session: { kernel: { id: 'k1' } },
    kernelChanged: new Signal<object, void>(this)
  };
  readonly context = { path: 'work/train.ipynb', pathChanged: new Signal<object, string>(this) };
}

let server: ServerByHand;
let session: IGpuSession & { choices: ChoicesOfOnePage };
let commands: CommandRegistry;
let notebook: NotebookWithKernel;
let widget: SwitchWidget;

async function drawn(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) {
    await act(async () => {
      await settle();
      await new Promise(resolve => setTimeout(resolve, 20));
    });
  }
}

const become = async (said: Parameters<typeof status>[0]) => {
  await act(async () => server.become(status(said)));
  await drawn();
};

const toasts = () => Notification.manager.notifications.map(one => one.message);

beforeEach(async () => {
  server = new ServerByHand();
  const model = new SessionModel(server, new ClockByHand(), new PageByHand(), () => 0.5);
  session = { model, choices: new ChoicesOfOnePage(), answered: new MemoryOfOneTab() };
  commands = new CommandRegistry();
  const app = { commands, shell: { activateById: vi.fn() } } as unknown as JupyterFrontEnd;
  addCommands(app, session, null, trans);
  new Notices(session, commands, trans);
  notebook = new NotebookWithKernel();
  widget = new SwitchWidget(notebook as unknown as NotebookPanel, session, commands, trans);
  Widget.attach(widget, document.body);
  model.start();
  await drawn();
});

afterEach(() => {
  session.model.stop();
  act(() => widget.dispose());
  Notification.dismiss();
});

const press = async (role: string, name: string | RegExp) => {
  fireEvent.click(screen.getByRole(role, { name }));
  await drawn();
};

describe('the switch in a toolbar', () => {
  it('asks first, and moves anyway only when told to', async () => {
    await press('switch', 'Run on a GPU');
    expect(server.asked.at(-1)).toBe('place k1 worker refuse -');
    await become({ kernels: [kernel({ move: refused() })] });
    if (!screen.queryByRole('dialog')) {
      await press('button', /stays behind/);
    }
    await press('button', 'Move anyway');
    expect(server.asked.at(-1)).toBe('place k1 worker accept -');
    expect(session.choices.remembered.size).toBe(0);
  });

  it('does not ask again for a notebook that is remembered', async () => {
    await become({ kernels: [kernel({ move: refused() })] });
    if (!screen.queryByRole('dialog')) {
      await press('button', /stays behind/);
    }
    fireEvent.click(screen.getByRole('checkbox', { name: 'Remember for this notebook' }));
    await press('button', 'Move anyway');
    await become({});
    await press('switch', 'Run on a GPU');
    expect(server.asked.at(-1)).toBe('place k1 worker accept -');
  });

  it('asks about the way back too', async () => {
    await become({
      lease: lease(),
      kernels: [onGpu({ move: refused({ target: 'server' }) })]
    });
    if (!screen.queryByRole('dialog')) {
      await press('button', /stays behind/);
    }
    await press('button', 'Move anyway');
    expect(server.asked.at(-1)).toBe('place k1 server accept -');
  });

  it('stays when told to stay, and shows where the notebook is', async () => {
    await become({ kernels: [kernel({ move: refused() })] });
    if (!screen.queryByRole('dialog')) {
      await press('button', /stays behind/);
    }
    await press('button', 'Stay');
    expect(screen.getByRole('switch').getAttribute('aria-checked')).toBe('false');
    expect(server.asked.filter(one => one.startsWith('place'))).toEqual([]);
  });

  it('keeps what is remembered when the notebook is renamed', async () => {
    await session.choices.remember('work/train.ipynb');
    notebook.context.path = 'work/new.ipynb';
    notebook.context.pathChanged.emit('work/new.ipynb');
    expect([...session.choices.remembered]).toEqual(['work/new.ipynb']);
  });

  it('asks for the kind of GPU that the person prefers', async () => {
    session.choices.pool = 'a100';
    await press('switch', 'Run on a GPU');
    expect(server.asked.at(-1)).toBe('place k1 worker refuse a100');
  });

  it('shows a refusal with its hint, and does not flip', async () => {
    server.refusal = new Refusal(409, {
      code: 'move-in-progress',
      message: 'This notebook is on its way back.',
      hint: 'Wait until it is there.'
    });
    await press('switch', 'Run on a GPU');
    expect(toasts()).toContain('This notebook is on its way back. Wait until it is there.');
    expect(screen.getByRole('switch').getAttribute('aria-checked')).toBe('false');
  });

  it('says so when the server does not answer, and does not flip', async () => {
    server.trouble = 'unreachable';
    await press('switch', 'Run on a GPU');
    expect(toasts()).toContain('The server did not answer. Nothing was changed; try again.');
  });
});

describe('commands', () => {
  const can = (id: string) => commands.isEnabled(id, { kernel: 'k1' });

  it('offer what is possible now', async () => {
    expect([CommandIDs.switchOn, CommandIDs.switchOff, CommandIDs.cancel].map(can)).toEqual([
      true,
      false,
      false
    ]);
    await become({ kernels: [kernel({ move: move('waiting') })] });
    expect([CommandIDs.switchOn, CommandIDs.switchOff, CommandIDs.cancel].map(can)).toEqual([
      false,
      false,
      true
    ]);
    await become({ lease: lease(), kernels: [onGpu()] });
    expect(
      [CommandIDs.switchOff, CommandIDs.release, CommandIDs.keep, CommandIDs.saveState].map(can)
    ).toEqual([true, true, false, true]);
  });

  it('do not exist where the server has no such interface', async () => {
    server.trouble = 'no-such-interface';
    session.model.refresh();
    await drawn();
    expect(commands.isVisible(CommandIDs.switchOn)).toBe(false);
  });
});

describe('notifications', () => {
  const warned = {
    lease: lease({
      warning: {
        reason: 'idle' as const,
        at: at(4.5),
        message: 'Your GPU has been idle for 5 minutes.',
        keep: { minutes: 30, times_left: 2 },
        resident_bytes: null
      }
    }),
    kernels: [onGpu()]
  };

  it('warn with Keep and Release, and go when the warning goes', async () => {
    await become(warned);
    const [toast] = Notification.manager.notifications;
    expect(toast?.message).toContain('Your GPU has been idle for 5 minutes. Back to the CPU at');
    expect(toast?.options.actions?.map(one => one.label)).toEqual(['Keep', 'Release']);
    await become({ lease: lease(), kernels: [onGpu()] });
    expect(toasts()).toEqual([]);
  });

  it('say what happened to a notebook, by its name', async () => {
    await become({
      kernels: [kernel({ notices: [notice('moved-back', { message: 'Moved back at 14:02.' })] })]
    });
    expect(toasts()).toEqual(['train.ipynb: Moved back at 14:02.']);
  });

  it('go when the offer was answered elsewhere', async () => {
    await become({ kernels: [kernel({ notices: [notice('restore-offer')] })] });
    expect(toasts()).toHaveLength(1);
    await become({});
    expect(toasts()).toEqual([]);
  });

  it('are silent for who does not want them', async () => {
    session.choices.notify = false;
    await become(warned);
    expect(toasts()).toEqual([]);
  });
});
