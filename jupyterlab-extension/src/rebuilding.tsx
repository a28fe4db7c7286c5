/**
 * Makes again what could not be saved: shows the cells, asks, and runs them where everybody sees it.
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { NotebookActions, type INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { RebuildList } from './components/Rebuild';
import type { IGpuSession } from './tokens';
import type { RebuildPlan } from './wire';

/** Ask, then run the cells. */
export async function rebuild(
  session: IGpuSession,
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  kernel: string,
  trans: TranslationBundle
): Promise<void> {
  const { model } = session;
  const plan = await model.rebuildPlan(kernel);
  if (plan.cells.length === 0) {
    Notification.info(
      plan.cannot.length > 0
        ? trans.__('No cell makes %1 again.', plan.cannot.map(one => one.name).join(', '))
        : trans.__('Nothing is missing in this notebook.'),
      { autoClose: 5000 }
    );
    return;
  }
  if (!(await agrees(plan, trans))) {
    return;
  }
  const panel = tracker?.find(one => one.sessionContext.session?.kernel?.id === kernel);
  if (panel) {
    app.shell.activateById(panel.id);
    await NotebookActions.runCells(panel.content, cellsOf(panel, plan), panel.sessionContext);
    return;
  }
  const result = await model.rebuild(kernel, plan);
  if (result.error) {
    Notification.error(trans.__('Cell [%1] failed: %2', result.failed ?? 0, result.error), {
      autoClose: false
    });
  } else {
    Notification.success(trans.__('Made again: %1.', plan.names.join(', ')), { autoClose: 5000 });
  }
}

async function agrees(plan: RebuildPlan, trans: TranslationBundle): Promise<boolean> {
  const answer = await showDialog({
    title: trans.__('Make %1 again?', plan.names.join(', ')),
    body: ReactWidget.create(<RebuildList cells={plan.cells} cannot={plan.cannot} trans={trans} />),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({
        label: trans._n('Re-run %1 cell', 'Re-run %1 cells', plan.cells.length)
      })
    ]
  });
  return answer.button.accept;
}

/** The plan's cells as they stand in the notebook; one that was edited or deleted is put at its end. */
function cellsOf(
  panel: NotebookPanel,
  plan: RebuildPlan
): NotebookPanel['content']['widgets'][number][] {
  const { content } = panel;
  const model = content.model;
  return plan.cells.flatMap(wanted => {
    const alike = content.widgets.filter(
      cell => cell.model.type === 'code' && cell.model.sharedModel.getSource() === wanted.code
    );
    const last = alike.find(
      cell =>
        (cell.model.toJSON() as { execution_count?: number }).execution_count === wanted.number
    );
    const found = last ?? alike.at(-1);
    if (found) {
      return [found];
    }
    model?.sharedModel.addCell({ cell_type: 'code', source: wanted.code });
    return content.widgets.slice(-1);
  });
}
