import type { ControlConnection } from '../database/connect.ts';
import type { Home } from '../isolation/isolation.ts';
import type { MigrationFile } from './migration-file.ts';
import { refused } from './refused.ts';
import { versionNamed } from './release.ts';

/** What a home's own `_migrations` says of one file. */
interface Entry {
  readonly checksum: string;
  /** false: a statement without a transaction has begun, and nobody has seen it end. */
  readonly isDone: boolean;
}
export type History = ReadonlyMap<string, Entry>;

/**
 * In a transaction, as tenancy_owner: takes turns with every other migrator of these homes until its end, then reads
 * what each has. By a lock on the homes' own tables of it, which no tenant has a right on: an advisory lock anybody could
 * hold. In one order, so that two batches cannot wait for each other.
 */
export async function lockHistories(
  connection: ControlConnection,
  homes: readonly Home[],
): Promise<ReadonlyMap<string, History>> {
  const schemas = homes.map(({ schema }) => schema).sort();
  const tables = schemas.map((schema) => `"${schema}"._migrations`);
  return readHistories(
    connection,
    schemas,
    `${makeMissing(schemas)} lock table ${tables.join(', ')} in share row exclusive mode;`,
  );
}

/** CREATE TABLE IF NOT EXISTS twice at once is an error; a home that is being made has nobody yet who could hold this lock. */
const makeMissing = (schemas: readonly string[]) => `do $$ declare home text; begin
  for home in select h from unnest(array[${schemas.map((schema) => `'${schema}'`)}]) h where to_regclass(format('%I._migrations', h)) is null loop
    perform pg_advisory_xact_lock(hashtext('tenancy.migrate'), hashtext(home));
    execute format('${makeHistory('%I')}', home);
  end loop; end $$;`;

/** Without a lock: for looking only. A home that has no table of it yet has no history. */
export async function readHistory(connection: ControlConnection, { schema }: Home): Promise<History> {
  const { rows } = await connection.query<{ known: boolean }>(
    `select to_regclass(format('%I._migrations', $1::text)) is not null as known`,
    [schema],
  );
  return rows[0]!.known ? (await readHistories(connection, [schema])).get(schema)! : new Map();
}

/** The newest migration of the home that the search path leads to. */
export async function readVersion(connection: ControlConnection): Promise<string | null> {
  const { rows } = await connection.query<{ name: string | null }>(
    'select max(name) as name from _migrations',
  );
  return rows[0]!.name && versionNamed(rows[0]!.name);
}

/** Every schema must have its table. */
async function readHistories(connection: ControlConnection, schemas: readonly string[], first = '') {
  const { rows } = await connection.query<{ schema: string; name: string; checksum: string; done: boolean }>(
    first +
      schemas
        .map(
          (schema) =>
            `select '${schema}' as schema, name, checksum, applied_at < 'infinity' as done from "${schema}"._migrations`,
        )
        .join(' union all '),
  );
  const histories = new Map(schemas.map((schema) => [schema, new Map<string, Entry>()]));
  for (const { schema, name, checksum, done } of rows)
    histories.get(schema)!.set(name, { checksum, isDone: done });
  return histories;
}

/**
 * `applied_at` is infinity from the begin of a statement that knows no transaction to its end. `plain`: without a table beside it
 * for long values, which takes as long to make as this one.
 */
export const makeHistory = (quotedSchema: string) =>
  `create table if not exists ${quotedSchema}._migrations (name text storage plain primary key, checksum text storage plain not null, applied_at timestamptz not null default now())`;

/**
 * The files that the home lacks, in order.
 * @throws TenantryError `migration_refused`: one was edited after it was applied
 */
export function pendingOf(history: History, files: readonly MigrationFile[]): MigrationFile[] {
  requireUnedited(files, (name) => history.get(name)?.checksum);
  return files.filter(({ name }) => !history.get(name)?.isDone);
}

/**
 * @param checksumOf of the text that was applied under a file's name; undefined: none was
 * @throws TenantryError `migration_refused`: a file is another one than was applied, and does not say so
 */
export function requireUnedited(
  files: readonly MigrationFile[],
  checksumOf: (name: string) => string | undefined,
): void {
  for (const file of files) {
    const applied = checksumOf(file.name);
    if (applied !== undefined && !isText(file, applied))
      throw refused(
        file.name,
        'was edited after it was applied',
        'restore it and add a new file; or, when homes that lack it can not get it as it was, begin it with ' +
          `\`-- replaces ${applied}\`, and where it makes something else now, bring the homes that have it to the same by a new file`,
      );
  }
}

/** Whether the text with this checksum is the file, or an earlier one that it stands for. */
export const isText = ({ checksum, replaces }: MigrationFile, applied: string): boolean =>
  applied === checksum || replaces.includes(applied);
