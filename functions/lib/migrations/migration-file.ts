import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { TenantryError } from '../errors.ts';
import { type ConcurrentStatement, parseConcurrent } from './concurrent-statement.ts';
import { directivesOf } from './directives.ts';
import { atLast, atStatement, lineOf } from './places.ts';
import { refused, requireNone } from './refused.ts';
import { settingsOf } from './session-settings.ts';
import { splitStatements } from './split-statements.ts';
import { ruleAgainst } from './statement-rules.ts';

export interface MigrationFile {
  /** `0001-inventory.sql`; files run in the order of their numbers. */
  readonly name: string;
  /** What is run: without what a pg_dump begins with. */
  readonly sql: string;
  /** Settings that it changes: they end with it. */
  readonly sets: readonly string[];
  /** SHA-256 of its whole text, hex: an applied file may not change. */
  readonly checksum: string;
  /** `-- replaces <checksum>`: earlier texts of it. A home that has got one of them has got this file. */
  readonly replaces: readonly string[];
  /** `-- shared`: its tables without `tenant_id` are for every tenant to read, and for migrations alone to change. */
  readonly makesReferenceTables: boolean;
  /** `-- no-transaction`: the one statement, which runs by itself. */
  readonly concurrent: ConcurrentStatement | undefined;
}

const fileName = /^(\d{4})-[a-z0-9]+(-[a-z0-9]+)*\.sql$/;

const concurrently = /^(create\s+(unique\s+)?index|drop\s+index|reindex\s+\w+)\s+concurrently\b/i;

const ofItsOwn = {
  what: 'runs a statement that knows no transaction',
  remedy: 'move it to a file of its own that begins with `-- no-transaction`',
};

/** Whose files: the product's own may do what an adopting team's may not. */
type Author = 'product' | 'team';

/**
 * Reads a folder of plain, numbered SQL files. Of the product's own, a numbered folder in it is one migration, of all its files.
 * @throws TenantryError `migration_refused` that names the file and the remedy
 */
export async function readMigrations(folder: URL, author: Author = 'team'): Promise<MigrationFile[]> {
  const names = (await namesIn(folder))
    .filter((name) => isSql(name) || (author === 'product' && !name.includes('.')))
    .sort();
  const read = await Promise.allSettled(
    names.map(async (name) =>
      isSql(name)
        ? parseMigration(name, await readFile(new URL(name, folder), 'utf8'), author)
        : parseMigration(`${name}.sql`, await readTogether(new URL(`${name}/`, folder)), author),
    ),
  );
  // All of them: whoever brings a hundred files mends them in one go.
  const failures = read.flatMap((file) => (file.status === 'rejected' ? [file.reason] : []));
  if (failures.length > 1 && failures.every((error) => error instanceof TenantryError)) requireNone(failures);
  if (failures.length > 0) throw failures[0];
  return inOrder(read.flatMap((file) => (file.status === 'fulfilled' ? [file.value] : [])));
}

/** Git keeps no empty folder: with the example's one file the folder goes too. */
async function namesIn(folder: URL): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
    const path = fileURLToPath(folder);
    throw refused(
      path,
      'is not there',
      'make the folder, with a first file in it like `0001-what-it-does.sql`',
      cause,
    );
  }
}

/** In capital letters too: a file that is meant to run is named rightly, or refused. */
const isSql = (name: string) => /\.sql$/i.test(name);

async function readTogether(folder: URL): Promise<string> {
  const names = (await readdir(folder)).filter(isSql).sort();
  const texts = await Promise.all(names.map((name) => readFile(new URL(name, folder), 'utf8')));
  return texts.join('\n');
}

/** @throws TenantryError `migration_refused` that names the file, the line and the remedy */
export function parseMigration(name: string, sql: string, author: Author = 'team'): MigrationFile {
  if (!fileName.test(name))
    throw refused(
      name,
      'is not named like `0001-what-it-does.sql`',
      'rename it: four digits, then words of small letters and digits, each behind a hyphen',
    );
  // Neither would be read as what it is: a directive behind the mark, a statement behind the NUL.
  if (sql.startsWith('\ufeff') || sql.includes('\0'))
    throw refused(name, 'is not plain UTF-8 text', 'save it as UTF-8, without a byte order mark');
  const directives = directivesOf(name, sql);
  const split = splitStatements(sql);
  const isConcurrent = directives.names.has('no-transaction');
  const faults = new Map<string, { what: string; at: string; remedy: string; more: number }>();
  for (const [index, statement] of split.statements.entries()) {
    const rule =
      (author === 'team' ? ruleAgainst(statement, split.bare[index]!) : undefined) ??
      (concurrently.test(statement) && !isConcurrent ? ofItsOwn : undefined);
    if (rule === undefined) continue;
    const known = faults.get(rule.what);
    if (known) known.more += 1;
    else faults.set(rule.what, { ...rule, at: atStatement(sql, split, index), more: 0 });
  }
  requireNone(
    [...faults.values()].map(({ what, at, remedy, more }) => {
      const elsewhere = more === 0 ? '' : `, and in ${more} more statement${more === 1 ? '' : 's'}`;
      return refused(name, what + at + elsewhere, remedy);
    }),
  );
  // In a batch another home's statements follow in the same text.
  if (split.openAt !== undefined)
    throw refused(
      name,
      `has a quote or a comment that does not end, from line ${lineOf(sql, split.openAt)}`,
      'end it',
    );
  const { sql: run, statements, sets } = settingsOf(name, sql, split);
  return {
    name,
    sql: run,
    sets,
    checksum: createHash('sha256').update(sql).digest('hex'),
    replaces: directives.replaces,
    makesReferenceTables: directives.names.has('shared'),
    concurrent: isConcurrent ? parseConcurrent(name, statements, atLast(sql, split)) : undefined,
  };
}

/** @throws TenantryError `migration_refused` when two have one number, or one is out of order */
export function inOrder(files: readonly MigrationFile[]): MigrationFile[] {
  for (const [index, file] of files.entries()) {
    const previous = files[index - 1];
    if (previous && previous.name.slice(0, 4) >= file.name.slice(0, 4))
      throw refused(
        file.name,
        `does not come after ${previous.name}`,
        'give it the next free number, from 0001',
      );
  }
  return [...files];
}
