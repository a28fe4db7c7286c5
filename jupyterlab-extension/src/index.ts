/**
 * The plugins. Nothing happens here but the tying of parts.
 */
import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, IToolbarWidgetRegistry } from '@jupyterlab/apputils';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Choices } from './choices';
import { Client } from './client';
import { addCommands } from './commands';
import { SessionModel } from './model/session';
import { Notices } from './notices';
import { browserClock, BrowserMemory, BrowserPage } from './page';
import { GpuPanel } from './sidebar';
import { addStateCommands } from './states';
import {
  CommandIDs,
  DOMAIN,
  IGpuSession,
  PANEL_ID,
  PLUGIN_ID,
  TOOLBAR_FACTORY,
  TOOLBAR_ITEM
} from './tokens';
import { SwitchWidget } from './toolbar';

const session: JupyterFrontEndPlugin<IGpuSession> = {
  id: PLUGIN_ID,
  description: 'Follows where the kernels of this server run, and the GPU that it holds.',
  autoStart: true,
  provides: IGpuSession,
  optional: [ISettingRegistry],
  activate: (app: JupyterFrontEnd, settings: ISettingRegistry | null): IGpuSession => {
    const client = new Client(app.serviceManager.serverSettings);
    const model = new SessionModel(client, browserClock, new BrowserPage());
    model.start();
    return {
      model,
      choices: new Choices(settings?.load(PLUGIN_ID) ?? null),
      answered: new BrowserMemory()
    };
  }
};

const commands: JupyterFrontEndPlugin<void> = {
  id: 'jupyterlab-gpuhub:commands',
  description: 'The commands, in the palette too.',
  autoStart: true,
  requires: [IGpuSession],
  optional: [INotebookTracker, ICommandPalette, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    gpu: IGpuSession,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    addCommands(app, gpu, tracker, trans);
    addStateCommands(app, gpu, tracker, trans);
    const category = trans.__('GPU');
    for (const command of [
      CommandIDs.switchOn,
      CommandIDs.switchOff,
      CommandIDs.cancel,
      CommandIDs.keep,
      CommandIDs.release,
      CommandIDs.saveState,
      CommandIDs.restore,
      CommandIDs.rebuild,
      CommandIDs.openStates,
      CommandIDs.dismiss,
      CommandIDs.openPanel,
      CommandIDs.refresh
    ]) {
      palette?.addItem({ command, category });
    }
  }
};

const toolbar: JupyterFrontEndPlugin<void> = {
  id: 'jupyterlab-gpuhub:toolbar',
  description: 'The switch in the toolbar of notebooks.',
  autoStart: true,
  requires: [IGpuSession, IToolbarWidgetRegistry],
  optional: [ITranslator],
  activate: (
    app: JupyterFrontEnd,
    gpu: IGpuSession,
    registry: IToolbarWidgetRegistry,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    registry.addFactory<NotebookPanel>(
      TOOLBAR_FACTORY,
      TOOLBAR_ITEM,
      panel => new SwitchWidget(panel, gpu, app.commands, trans)
    );
  }
};

const sidebar: JupyterFrontEndPlugin<void> = {
  id: 'jupyterlab-gpuhub:sidebar',
  description: 'The GPU panel in the left area.',
  autoStart: true,
  requires: [IGpuSession],
  optional: [ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    gpu: IGpuSession,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const panel = new GpuPanel(gpu, app.commands, trans);
    app.shell.add(panel, 'left', { rank: 150, type: 'GPU' });
    restorer?.add(panel, PANEL_ID);
  }
};

const notices: JupyterFrontEndPlugin<void> = {
  id: 'jupyterlab-gpuhub:notices',
  description: 'Warnings, grants, endings and offers as notifications.',
  autoStart: true,
  requires: [IGpuSession],
  optional: [ITranslator],
  activate: (app: JupyterFrontEnd, gpu: IGpuSession, translator: ITranslator | null): void => {
    new Notices(gpu, app.commands, (translator ?? nullTranslator).load(DOMAIN));
  }
};

export * from './tokens';
export default [session, commands, toolbar, sidebar, notices];
