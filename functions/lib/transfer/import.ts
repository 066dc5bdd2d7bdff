import { type ControlConnection, identifier } from '../database/connect.ts';
import { RetryableError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import { isolations } from '../isolation/isolation.ts';
import { type RowsOf, takeContext } from '../isolation/rows.ts';
import { readVersion } from '../migrations/history.ts';
import type { Strategy } from '../tenant/tenant.ts';
import type { TransferTable } from './export.ts';
import { fitting } from './fitting.ts';
import { raiseIdentities } from './identities.ts';
import { type GivenTable, hashing, importRefused, type Manifest, whileWanted } from './manifest.ts';
import type { Store } from './store.ts';
import { toItsEnd } from './to-its-end.ts';
import { resting, triggersOf } from './triggers.ts';

interface Bounds {
  /** All of it has to be done by then, ms. */
  readonly until: number;
  readonly clock: () => number;
  /** @throws when nobody wants it any more, or its operation has ended */
  wanted(): Promise<void>;
}

/** Each is a table until the end, and holds entries of the server's lock table, which all its databases share. */
const mostFiles = 1_000;

/**
 * Reads what an export has written, in one transaction with foreign keys checked at its end: all of it is there, or nothing.
 * Files are read into tables of the session's own first, because PostgreSQL knows no COPY FROM under row security; whose the
 * rows are is said by us and checked by the home's own policies and constraints. Again with the same operation: nothing.
 * @returns the rows of each table; undefined when this operation has done it before
 * @throws TenantryError `import_refused` with what to do
 */
export async function importTables(
  connection: ControlConnection,
  rows: RowsOf & { readonly strategy: Strategy; readonly homeId: string },
  store: Store,
  { schemaVersion, tables }: Manifest,
  operationId: string,
  { until, wanted, clock }: Bounds,
): Promise<Record<string, number> | undefined> {
  if (tables.length > mostFiles)
    throw importRefused(`One import takes ${mostFiles} files, and these are ${tables.length}. ${inPieces}`);
  const home = { schema: rows.schema, ownsTables: isolations[rows.strategy].ownsTables };
  const filled = tables.filter((given) => given.rows !== 0).map(({ table }) => table);
  const { pairs, references, triggers } = await asRole(connection, 'tenancy_owner', async () => {
    await connection.query("select set_config('search_path', $1, true)", [`${rows.schema}, pg_temp`]);
    await requireVersion(connection, schemaVersion);
    return {
      ...(await fitting(connection, rows.schema, tables)),
      triggers: await triggersOf(connection, home, filled),
    };
  });
  /** What is being read or taken, for whoever has to find the fault. */
  let at: GivenTable | undefined;

  await connection.query('begin');
  try {
    // Two runs at once: the second waits here and then finds that it is done.
    await connection.query("select pg_advisory_xact_lock(hashtext('tenancy.import'), hashtext($1))", [
      operationId,
    ]);
    await connection.query('set local role tenancy_keeper');
    const { rowCount } = await connection.query(
      'insert into tenancy.imports (operation_id, tenant_id) values ($1, $2) on conflict do nothing',
      [operationId, rows.tenant],
    );
    if (rowCount === 0) {
      await connection.query('rollback');
      return undefined;
    }
    // Writes to the home as a call does: whoever closes or moves it waits for our end. What is `wanted` is asked after this, so
    // that an import whose operation has ended comes before it or not at all.
    await connection.query(
      'select pg_advisory_xact_lock_shared(lock_key) from tenancy.homes where home_id = $1',
      [rows.homeId],
    );
    await connection.query('set local role none');
    /** So that a statement ends before the function does. */
    const inTime = async () => {
      await wanted();
      const left = until - clock();
      if (left <= 0) throw tooLarge();
      await connection.query(`set local statement_timeout = ${left}`);
    };
    // To put them into the tables, with their keys, takes longer than to read them.
    const readUntil = (clock() + until) / 2;
    for (const [index, { given, table }] of pairs.entries()) {
      at = given;
      await stage(connection, index, given, table, store, { wanted, clock, until: readUntil });
    }
    at = undefined;
    await connection.query('set local role tenancy_owner');
    await takeContext(connection, rows);
    // Files take minutes to read.
    await requireVersion(connection, schemaVersion);
    await connection.query('set constraints all deferred');
    const counted = new Map<string, number>();
    await inTime();
    await resting(connection, triggers, async () => {
      for (const [index, { given, table }] of pairs.entries()) {
        await inTime();
        at = given;
        const taken = given.rows !== 0 ? await take(connection, index, given, table, rows) : 0;
        counted.set(given.table, (counted.get(given.table) ?? 0) + taken);
      }
      at = undefined;
      await inTime();
      await connection.query('set constraints all immediate');
    });
    // Whoever changes a table that has got rows waits for us; before that it may have been changed.
    await requireVersion(connection, schemaVersion);
    await raiseIdentities(connection, rows.schema, tables);
    await wanted();
    await connection.query('commit');
    return Object.fromEntries(counted);
  } catch (error) {
    await connection.query('rollback').catch(() => {});
    throw refusalOf(error, at, references);
  }
}

/** Whether the home has the rows of this operation. */
export const wasImported = (connection: ControlConnection, operationId: string): Promise<boolean> =>
  asRole(connection, 'tenancy_keeper', async () => {
    const { rows } = await connection.query('select from tenancy.imports where operation_id = $1', [
      operationId,
    ]);
    return rows.length > 0;
  });

/** @throws TenantryError `import_refused` when the home has another schema version than the rows */
async function requireVersion(connection: ControlConnection, schemaVersion: string): Promise<void> {
  const version = await readVersion(connection);
  if (version !== schemaVersion)
    throw importRefused(
      `The rows are of schema version ${schemaVersion}, the tenant's home has ${version}. Migrate the home, export again from one of that version, or name the home's in a manifest of your own.`,
    );
}

async function stage(
  connection: ControlConnection,
  index: number,
  { columns, file, rows, sha256, table }: GivenTable,
  { columns: known }: TransferTable,
  store: Store,
  { wanted, clock, until }: Bounds,
): Promise<void> {
  const bytes = await store.read(file);
  if (bytes === undefined) throw importRefused(`The file ${file} is missing.`);
  // We have no right on the home's schema, so its own types are not known here: their values wait as text.
  const types = new Map([
    ['tenant_id', 'uuid'],
    ...known.map(({ column, readAs }): [string, string] => [column, readAs]),
  ]);
  const definition = columns.map((column) => `${identifier(column)} ${types.get(column)}`).join(', ');
  await connection.query(`create temporary table import_${index} (${definition}) on commit drop`);
  const inTime = onTime(whileWanted(bytes, wanted, clock), () => clock() >= until);
  // Where the manifest counts the rows, that tells of any that are missing.
  const hashed = hashing(rows === undefined ? toItsEnd(inTime, file) : inTime);
  const list = columns.map(identifier).join(', ');
  const count = await connection.copyFrom(
    `copy pg_temp.import_${index} (${list}) from stdin (format csv, header match)`,
    hashed.bytes,
  );
  if (sha256 !== undefined && hashed.sha256() !== sha256)
    throw importRefused(`The file ${file} is not the one that its SHA-256 was taken of.`);
  if (rows !== undefined && count !== rows)
    throw importRefused(`The file ${file} of ${table} has ${count} rows, its manifest says ${rows}.`);
  await connection.query(`grant select on pg_temp.import_${index} to tenancy_owner`);
}

const inPieces =
  'Import it in pieces: a folder for each, with some of the files and a manifest of those; tables that others point at first.';
const tooLarge = (cause?: unknown) =>
  importRefused(
    `This is more than one import can take in the time that a function has, and nothing of it was taken. ${inPieces}`,
    cause,
  );

/** Sooner than at the end of the time: what has been read until then has to be written too. @throws TenantryError `import_refused` */
async function* onTime(bytes: AsyncIterable<unknown>, isLate: () => boolean) {
  for await (const chunk of bytes) {
    if (isLate()) throw tooLarge();
    yield chunk;
  }
}

async function take(
  connection: ControlConnection,
  index: number,
  { columns, table: name }: GivenTable,
  { table, columns: known }: TransferTable,
  { tenant }: RowsOf,
): Promise<number> {
  if (columns.includes('tenant_id')) {
    const { rows } = await connection.query(
      `select from pg_temp.import_${index} where tenant_id is distinct from $1 limit 1`,
      [tenant],
    );
    if (rows.length > 0) throw importRefused(`There is a row of another tenant for the table ${name}.`);
  }
  const own = known.filter(({ column }) => columns.includes(column));
  const values = own.map(({ column, type, readAs }) =>
    readAs === type ? identifier(column) : `${identifier(column)}::${type}`,
  );
  const { rowCount } = await connection.query(
    `insert into ${table} (${['tenant_id', ...own.map(({ column }) => identifier(column))].join(', ')}) overriding system value
     select ${['$1::uuid', ...values].join(', ')} from pg_temp.import_${index}`,
    [tenant],
  );
  return rowCount ?? 0;
}

const twice = 'Such a row is there already, or twice in the files: leave one of them out.';
/** What to do about a row that breaks a rule. */
const remedies: Readonly<Record<string, string>> = {
  23502:
    'Give this column a value in every row (an empty field is null, `""` an empty text), or leave it out where it has a default.',
  23503: 'It points at a row that is not there: give that too, or bring it in before.',
  23505: twice,
  23514: 'Change the row in the file, or the rule by a migration.',
  '23P01': twice,
};
/** What the server has of its own, of whatever rows: connections, transactions, resources, an operator's doing, contexts. */
const isServers = /^(08|25|40|53|55|57|58|F0|TN|XX)/;

/** What PostgreSQL says of the rows, without the values that it quotes. */
function refusalOf(error: unknown, at: GivenTable | undefined, references: readonly string[]): unknown {
  const {
    code = '',
    constraint,
    table = at?.table,
    column,
    detail = '',
    severity,
  } = error as Partial<Record<string, string>>;
  const named = [
    table && `table ${table}`,
    at && `file ${at.file}`,
    column && `column ${column}`,
    constraint && `constraint ${constraint}`,
    `SQLSTATE ${code}`,
  ];
  const where = named.filter(Boolean).join(', ');
  if (code === '57014') return tooLarge(error);
  if (code === '40P01')
    return new RetryableError('busy', 'The tenant wrote to the same tables. Try again.', 5, { cause: error });
  const parent = / table "(.+)"\.$/.exec(detail)?.[1];
  if (code === '23503' && parent !== undefined && references.includes(parent))
    return importRefused(
      `A row breaks a rule of the home (${where}). It points at a row of ${parent} that is not there, and every tenant reads that table: add the row by a migration that begins with \`-- shared\`, or change this one in the file.`,
      error,
    );
  if (code.startsWith('23'))
    return importRefused(
      `A row breaks a rule of the home (${where}). ${remedies[code] ?? 'Change the row in the file.'}`,
      error,
    );
  if (code === '22021') return importRefused(`A text is not UTF-8, or has a NUL in it (${where}).`, error);
  if (code === '22P04')
    return importRefused(
      `It is not CSV as PostgreSQL's COPY writes it, with the manifest's columns as its first line and no byte order mark, or it was cut off (${where}).`,
      error,
    );
  if (code.startsWith('22')) return importRefused(`A value is not of its column's type (${where}).`, error);
  if (code.startsWith('42') && at) return importRefused(`The home can't take this file (${where}).`, error);
  if (code.startsWith('54') && at)
    return importRefused(
      `A value or row is longer than the home can take (${where}). Shorten it in the file, or change the index or table by a migration.`,
      error,
    );
  // What a function of the home's own raises, under whatever code, and may quote the row in.
  if (severity !== undefined && at && !isServers.test(code))
    return importRefused(
      `A row breaks a rule of the home (${where}). A function of the home refuses it: change the row in the file, or the function by a migration.`,
      error,
    );
  return error;
}
