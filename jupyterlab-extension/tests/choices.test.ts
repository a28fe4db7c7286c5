import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import { Signal } from '@lumino/signaling';
import { describe, expect, it } from 'vitest';
import { Choices } from '../src/choices';
import { settle } from './fakes';

/** Settings that are kept in one page. */
function settings(composite: Record<string, unknown> = {}) {
  const found = {
    composite,
    set: async (key: string, value: unknown) => {
      found.composite = { ...found.composite, [key]: value };
      changed.emit();
    }
  };
  const changed = new Signal<object, void>(found);
  return Object.assign(found, { changed }) as unknown as ISettingRegistry.ISettings;
}

describe('what a person has chosen', () => {
  it('is nothing before the settings are there, and without them', () => {
    const choices = new Choices(null);
    expect(choices.remembers('a.ipynb')).toBe(false);
    expect(choices.pool).toBe('');
    expect(choices.notify).toBe(true);
  });

  it('is remembered for one notebook, and no other', async () => {
    const choices = new Choices(Promise.resolve(settings()));
    await settle();
    await choices.remember('a.ipynb', true);
    expect([choices.remembers('a.ipynb'), choices.remembers('b.ipynb')]).toEqual([true, false]);
    await choices.remember('a.ipynb', false);
    expect(choices.remembers('a.ipynb')).toBe(false);
  });

  it('goes with a notebook that is renamed', async () => {
    const choices = new Choices(Promise.resolve(settings({ moveAnyway: ['a.ipynb'] })));
    await settle();
    await choices.renamed('a.ipynb', 'b.ipynb');
    expect([choices.remembers('a.ipynb'), choices.remembers('b.ipynb')]).toEqual([false, true]);
    await choices.renamed('c.ipynb', 'd.ipynb');
    expect(choices.remembers('d.ipynb')).toBe(false);
  });

  it('is heard of when it changes elsewhere', async () => {
    const kept = settings();
    const choices = new Choices(Promise.resolve(kept));
    await settle();
    let heard = 0;
    choices.changed.connect(() => (heard += 1));
    await kept.set('notify', false);
    expect([heard, choices.notify]).toEqual([1, false]);
  });

  it('survives settings that somebody has written by hand', async () => {
    const choices = new Choices(Promise.resolve(settings({ moveAnyway: 'a.ipynb', pool: 3 })));
    await settle();
    expect(choices.remembers('a.ipynb')).toBe(false);
    expect(choices.pool).toBe('');
  });
});
