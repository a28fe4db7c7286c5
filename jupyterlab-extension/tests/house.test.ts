// @vitest-environment node
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const root = new URL('../src/', import.meta.url);
const sources = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .filter(name => /\.tsx?$/.test(name) && name !== 'contract.ts')
  .map(name => ({ name, text: readFileSync(new URL(name, root), 'utf8') }));

const imports = (text: string) =>
  [...text.matchAll(/from '([^']+)'/g)].map(found => found[1] as string);

describe('the house', () => {
  it('has one door to the network', () => {
    const network =
      /\bfetch\(|\bEventSource\b|\bWebSocket\b|XMLHttpRequest|ServerConnection|sendBeacon/;
    const code = (text: string) => text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
    const found = sources.filter(({ text }) => network.test(code(text))).map(({ name }) => name);
    expect(found).toEqual(['client.ts']);
  });

  it('has components that know neither client nor model', () => {
    const found = sources
      .filter(({ name }) => name.startsWith('components/'))
      .flatMap(({ name, text }) =>
        imports(text)
          .filter(path => /\/client$|\/model\/|\/wire$|\/contract$/.test(path))
          .map(path => `${name} -> ${path}`)
      );
    expect(found).toEqual([]);
  });

  it('has a model without a DOM', () => {
    const dom = /\bdocument\.|\bwindow\.|\blocalStorage\b|from 'react|from '@jupyterlab\//;
    const found = sources
      .filter(({ name, text }) => name.startsWith('model/') && dom.test(text))
      .map(({ name }) => name);
    expect(found).toEqual([]);
  });

  it('has an index that only declares plugins', () => {
    const index = sources.find(({ name }) => name === 'index.ts')?.text ?? '';
    expect(index).not.toMatch(/\bclass\b|\bfunction\b|addEventListener/);
  });

  it('keeps every file within its budget', () => {
    const long = sources
      .filter(({ text }) => text.split('\n').length > 470)
      .map(({ name }) => name);
    expect(long).toEqual([]);
  });
});
