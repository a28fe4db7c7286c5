/**
 * The person's settings as the model wants them.
 *
 * "Remember for this notebook" lives here and not in the notebook: it is this person's consent,
 * and must not travel to whom the file is given.
 */
import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import { Signal } from '@lumino/signaling';
import type { IChoices } from './model/ports';

const REMEMBERED = 'moveAnyway';

export class Choices implements IChoices {
  constructor(settings: Promise<ISettingRegistry.ISettings> | null) {
    settings?.then(
      found => {
        this._settings = found;
        found.changed.connect(() => this.changed.emit());
        this.changed.emit();
      },
      () => {
        // Without settings the defaults hold, and nothing is remembered.
      }
    );
  }

  readonly changed: Signal<IChoices, void> = new Signal<IChoices, void>(this);

  get pool(): string {
    const said = this._settings?.composite['pool'];
    return typeof said === 'string' ? said : '';
  }

  get notify(): boolean {
    return this._settings?.composite['notify'] !== false;
  }

  remembers(notebook: string): boolean {
    return this._remembered().includes(notebook);
  }

  async remember(notebook: string, yes: boolean): Promise<void> {
    const others = this._remembered().filter(one => one !== notebook);
    await this._settings?.set(REMEMBERED, yes ? [...others, notebook] : others);
  }

  async renamed(before: string, after: string): Promise<void> {
    if (this.remembers(before)) {
      const others = this._remembered().filter(one => one !== before && one !== after);
      await this._settings?.set(REMEMBERED, [...others, after]);
    }
  }

  private _remembered(): string[] {
    const said = this._settings?.composite[REMEMBERED];
    return Array.isArray(said) ? said.filter(one => typeof one === 'string') : [];
  }

  private _settings: ISettingRegistry.ISettings | null = null;
}
