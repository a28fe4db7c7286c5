/**
 * The body of the dialog that asks which variables should come back.
 */
import type { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { VariableChooser } from './components/Variables';
import type { IVariable } from './shown';

export class ChooseBody extends ReactWidget implements Dialog.IBodyWidget<string[]> {
  constructor(
    private readonly _variables: IVariable[],
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.addClass('gpuhub-ChooseBody');
    this._chosen = new Set(_variables.filter(one => one.fate !== 'left').map(one => one.name));
  }

  getValue(): string[] {
    return [...this._chosen];
  }

  protected override render(): JSX.Element {
    return (
      <VariableChooser
        variables={this._variables}
        chosen={this._chosen}
        onChange={chosen => {
          this._chosen = chosen;
          this.update();
        }}
        trans={this._trans}
      />
    );
  }

  private _chosen: ReadonlySet<string>;
}
