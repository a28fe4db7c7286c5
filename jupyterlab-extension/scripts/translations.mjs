/**
 * Makes of each locale/LANGUAGE/LC_MESSAGES/jupyterlab_gpuhub.po what JupyterLab's server hands to the
 * page (the entry point `jupyterlab.locale`), beside the Python module. With --check it only says what a
 * catalog lacks: texts, placeholders, or that it has some that nobody says any more.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { po } from 'gettext-parser';

const root = new URL('../', import.meta.url);
const domain = 'jupyterlab_gpuhub';
const catalog = language => new URL(`locale/${language}/LC_MESSAGES/${domain}.po`, root);
const read = url => po.parse(readFileSync(url), { validation: true });

const languages = readdirSync(new URL('locale', root)).filter(name => existsSync(catalog(name)));
// What has a context belongs to the settings' schema: the server translates it, from language packs alone.
const said = parsed => Object.values(parsed.translations['']).filter(one => one.msgid !== '');
const wanted = new Map(
  said(read(new URL(`locale/${domain}.pot`, root))).map(one => [one.msgid, one])
);
const placeholders = text => [...new Set(text.match(/%\d/g))].sort().join(' ');

const problems = [];
for (const language of languages) {
  const parsed = read(catalog(language));
  const messages = {};
  for (const one of said(parsed)) {
    const source = wanted.get(one.msgid);
    const forms = one.msgstr;
    if (source === undefined || source.msgid_plural !== one.msgid_plural) {
      problems.push(`${language}: nobody says “${one.msgid}”`);
    } else if (one.comments?.flag?.includes('fuzzy') || !forms.every(form => form !== '')) {
      problems.push(`${language}: “${one.msgid}” is not translated`);
    } else {
      const model = placeholders(one.msgid_plural ?? one.msgid);
      if (forms.some(form => placeholders(form) !== model)) {
        problems.push(`${language}: “${one.msgid}” has ${model}, its translation has not`);
      }
    }
    // JupyterLab takes a text for one with plural forms only where there are two, used or not.
    messages[one.msgid] = one.msgid_plural && forms.length === 1 ? [...forms, ''] : forms;
  }
  for (const text of wanted.keys()) {
    if (!(text in messages)) {
      problems.push(`${language}: “${text}” is missing`);
    }
  }
  if (!process.argv.includes('--check')) {
    const folder = new URL(`${domain}/locale/${language}/LC_MESSAGES/`, root);
    mkdirSync(folder, { recursive: true });
    const head = {
      domain,
      language: language.replace('_', '-'),
      plural_forms: parsed.headers['Plural-Forms']
    };
    writeFileSync(new URL(`${domain}.json`, folder), JSON.stringify({ '': head, ...messages }));
  }
}
if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}
