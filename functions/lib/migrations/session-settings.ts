import { atStatement } from './places.ts';
import { refused } from './refused.ts';
import type { SplitScript } from './split-statements.ts';

/** What pg_dump begins a file with, for the session of a restore: here it would take limits, row security and path away. */
const ofRestores: readonly RegExp[] = [
  /^set\s+(session\s+|local\s+)?(statement|lock|transaction|idle_in_transaction_session)_timeout\s*(=|to)\s*'?0'?$/i,
  /^set\s+(session\s+|local\s+)?client_encoding\s*(=|to)\s*'utf-?8'$/i,
  /^set\s+(session\s+|local\s+)?standard_conforming_strings\s*(=|to)\s*on$/i,
  /^set\s+(session\s+|local\s+)?row_security\s*(=|to)\s*(on|off)$/i,
  /^select\s+(pg_catalog\.)?set_config\s*\(\s*'search_path'\s*,\s*''\s*,\s*false\s*\)$/i,
];

const setting = /^(?:set\s+(?:session\s+|local\s+)?|reset\s+)"?([a-z_][\w.]*)"?/i;
/** Words after SET that are no names of settings. */
const words = ['constraints', 'names', 'xml'];

/** What a migration must not change, not even for itself. */
const kept: readonly (readonly [names: RegExp, remedy: string])[] = [
  [
    /^(statement|lock|transaction|idle_in_transaction_session|idle_session)_timeout$/,
    'leave it out: behind a migration that waits everybody else waits, so its limits are the migrator’s',
  ],
  [/^row_security$/, 'leave it out: a migration reaches the rows of all tenants as it is'],
  [
    /^session_replication_role$/,
    'leave it out: foreign keys and the triggers that moves rely on hold in migrations too',
  ],
  [
    /^(role|session_authorization|search_path)$/,
    'leave transactions and roles to the migrator: names without a schema are the home’s own',
  ],
  [
    /^(standard_conforming_strings|client_encoding)$/,
    "leave it out: save the file as UTF-8, and write `E'…'` for texts with escapes",
  ],
  [/^tenancy\./, 'leave it out: the migrator says whose rows a migration reaches'],
];

/**
 * What of a file is run, and the settings that end with it: later files and the next home of a batch are in the same
 * transaction. What pg_dump begins with becomes blanks, so that lines stay where they are.
 * @throws TenantryError `migration_refused`
 */
export function settingsOf(
  file: string,
  sql: string,
  split: SplitScript,
): { sql: string; statements: readonly string[]; sets: readonly string[] } {
  const sets = new Set<string>();
  const own: string[] = [];
  const { statements, places } = split;
  let run = sql;
  for (const [index, statement] of statements.entries()) {
    if (ofRestores.some((form) => form.test(statement))) {
      const { from, to } = places[index]!;
      run = run.slice(0, from) + run.slice(from, to).replaceAll(/[^\n]/g, ' ') + run.slice(to);
      continue;
    }
    own.push(statement);
    for (const name of keptByFunction(statement)) sets.add(name);
    const name = nameOf(statement);
    if (name === undefined) continue;
    const remedy = kept.find(([names]) => names.test(name))?.[1];
    if (remedy !== undefined) throw refused(file, `changes ${name}${atStatement(sql, split, index)}`, remedy);
    sets.add(name);
  }
  return { sql: run, statements: own, sets: [...sets] };
}

/** Settings of the file's own, in which it keeps values: the next home of a batch would find one tenant's there. */
const keptByFunction = (statement: string): string[] =>
  [...statement.matchAll(keeps)].map(([, name]) => name!.replaceAll(/\w+/g, '"$&"'));

/** By `set_config`, or by a text that is put together: `execute format('set my.last = %L', …)`. */
const keeps =
  /(?:\bset_config\s*\(\s*'|'\s*set\s+(?:(?:local|session)\s+)?)((?!tenancy\.)[a-z_]\w*(?:\.[a-z_]\w*)+)/gi;

function nameOf(statement: string): string | undefined {
  if (/^set\s+(session\s+|local\s+)?time\s+zone\b/i.test(statement)) return 'timezone';
  const name = setting.exec(statement)?.[1]?.toLowerCase();
  return name === undefined || words.includes(name) ? undefined : name;
}
