/**
 * Writes locale/jupyterlab_gpuhub.pot: every text that goes through the translator, with the files
 * that say it. With --check it only says whether the file is current.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import ts from 'typescript';

const root = new URL('../', import.meta.url);
const target = new URL('locale/jupyterlab_gpuhub.pot', root);

/** key -> { singular, plural, files } */
const texts = new Map();
const problems = [];

function visit(node, file, source) {
  if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
    const method = node.expression.name.text;
    if (method === '__' || method === '_n') {
      const [singular, plural] = node.arguments;
      const literal = one => one !== undefined && ts.isStringLiteralLike(one);
      if (!literal(singular) || (method === '_n' && !literal(plural))) {
        const { line } = source.getLineAndCharacterOfPosition(node.getStart());
        problems.push(`${file}:${line + 1}: a text must stand here as it is, not be put together`);
      } else {
        const known = texts.get(singular.text) ?? { plural: null, files: new Set() };
        known.plural ??= method === '_n' ? plural.text : null;
        known.files.add(file);
        texts.set(singular.text, known);
      }
    }
  }
  ts.forEachChild(node, child => visit(child, file, source));
}

for (const name of readdirSync(new URL('src', root), { recursive: true }).sort()) {
  if (/\.tsx?$/.test(name) && !name.endsWith('.d.ts')) {
    const text = readFileSync(new URL(`src/${name}`, root), 'utf8');
    const source = ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true);
    visit(source, `src/${name}`, source);
  }
}

const schema = JSON.parse(readFileSync(new URL('schema/plugin.json', root), 'utf8'));
const inSchema = [schema, ...Object.values(schema.properties)].flatMap(one => [
  ['schema', one.title],
  ['schema', one.description]
]);

const quote = text => JSON.stringify(text);
const entries = [...texts]
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([singular, { plural, files }]) =>
    [
      `#: ${[...files].sort().join(' ')}`,
      `msgid ${quote(singular)}`,
      ...(plural === null
        ? ['msgstr ""']
        : [`msgid_plural ${quote(plural)}`, 'msgstr[0] ""', 'msgstr[1] ""'])
    ].join('\n')
  );
const settings = inSchema
  .filter(([, text]) => text)
  .map(([context, text]) =>
    [
      '#: schema/plugin.json',
      `msgctxt ${quote(context)}`,
      `msgid ${quote(text)}`,
      'msgstr ""'
    ].join('\n')
  );
const head = [
  'msgid ""',
  'msgstr ""',
  quote('Project-Id-Version: jupyterlab_gpuhub\n'),
  quote('MIME-Version: 1.0\n'),
  quote('Content-Type: text/plain; charset=UTF-8\n'),
  quote('Content-Transfer-Encoding: 8bit\n'),
  quote('Plural-Forms: nplurals=2; plural=(n != 1);\n')
].join('\n');
const catalog = [head, ...entries, ...new Set(settings)].join('\n\n') + '\n';

if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}
if (process.argv.includes('--check')) {
  if (!existsSync(target) || readFileSync(target, 'utf8') !== catalog) {
    console.error(
      'locale/jupyterlab_gpuhub.pot is not what the sources say: run `npm run locale`.'
    );
    process.exit(1);
  }
} else {
  writeFileSync(target, catalog);
}
