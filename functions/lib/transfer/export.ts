import { type ControlConnection, identifier, literal } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { type HomeTable, homeTables, maintaining, type RowsOf } from '../isolation/rows.ts';
import { readVersion } from '../migrations/history.ts';
import { type ExportedTable, fileOf, hashing, whileWanted } from './manifest.ts';
import type { Key, PartBegins } from './parts.ts';
import type { Store } from './store.ts';

export const exportRefused = (message: string) => new TenantryError('export_refused', message);

/** What is written; `more`: further parts of this table follow. */
export type WrittenPart = ExportedTable & { readonly more?: boolean };

/** Bytes of a table that are one file. Written at 3 MiB/s it takes six minutes: less than is left to a run that begins its last one. */
const usualPart = 2 ** 30;

export interface Exporting {
  readonly store: Store;
  readonly done: readonly WrittenPart[];
  /** After this time no other part is begun, ms. */
  readonly until: number;
  record(done: readonly WrittenPart[]): Promise<void>;
  /** @throws when nobody wants it any more */
  wanted(): Promise<void>;
  readonly begins: PartBegins | undefined;
  readonly partBytes?: number | undefined;
  readonly clock: () => number;
}

/**
 * Writes the tables that are not done yet, all that it comes to in one snapshot of the home: what its tenant sees between
 * two of its transactions. A table passes through in pieces, and a large one becomes several files, in the order of its key.
 * @returns false when there is more to do at the time `until`
 */
export async function exportTables(
  connection: ControlConnection,
  rows: RowsOf,
  { store, done, until, record, wanted, begins, partBytes = usualPart, clock }: Exporting,
): Promise<{ isDone: boolean; schemaVersion: string }> {
  const snapshot = Math.max(0, ...done.map((table) => table.snapshot ?? 0)) + 1;
  const finished = [...done];
  const read = async () => {
    const schemaVersion = (await readVersion(connection))!;
    for (const table of await tablesOf(connection, rows.schema)) {
      const written = finished.filter((each) => each.table === table.name);
      if (written.length > 0 && !written.at(-1)!.more) continue;
      const size = begins && (await rowsOfPart(connection, table, partBytes));
      let part = written.length + 1;
      let from = part === 1 ? undefined : await begins?.find(table.name, part);
      if (part > 1 && from === undefined)
        throw exportRefused(`Where ${table.name} goes on is not known any more. Export to another place.`);
      for (let more = true; more; part += 1) {
        // At least one a run, so that it comes to an end.
        if (finished.length > done.length && clock() >= until) return { isDone: false, schemaVersion };
        await wanted();
        const to = size === undefined ? undefined : await beginOfNext(connection, table, rows, from, size);
        const file = fileOf(table.name, part);
        const entry = await exportPart(connection, table, rows, store, { file, from, to, wanted, clock });
        more = to !== undefined;
        // Before it is said that this part is written: what follows must be known then.
        if (to !== undefined) await begins!.keep(table.name, part + 1, to);
        finished.push({ ...entry, snapshot, ...(more && { more }) });
        await record(finished);
        from = to;
      }
    }
    return { isDone: true, schemaVersion };
  };
  return maintaining(connection, rows, read, 'begin isolation level repeatable read read only');
}

/** How many rows of the table are about so many bytes; undefined: it is not larger. */
async function rowsOfPart(
  connection: ControlConnection,
  { table }: TransferTable,
  bytes: number,
): Promise<number | undefined> {
  const { rows } = await connection.query<{ size: number; row: number | null }>(
    `select sum(pg_table_size(c.oid))::float8 as size, (sum(pg_table_size(c.oid))::float8 / nullif(sum(greatest(c.reltuples, 0)), 0))::float8 as row
       from pg_class c where c.oid = $1::regclass or c.oid in (select relid from pg_partition_tree($1::regclass))`,
    [table],
  );
  const { size, row } = rows[0]!;
  // A table that was never counted: about what rows usually are.
  return size <= bytes ? undefined : Math.max(100, Math.floor(bytes / (row || 1_024)));
}

/** The key of the row that comes `size` rows later; undefined: it is the last part. */
async function beginOfNext(
  connection: ControlConnection,
  { table, key }: TransferTable,
  { tenant }: RowsOf,
  from: Key | undefined,
  size: number,
): Promise<Key | undefined> {
  const columns = key.map(({ column }) => identifier(column));
  const { rows } = await connection.query<{ key: string[] }>(
    `select array[${columns.map((column) => `${column}::text`).join(', ')}] as key from ${table}
      where tenant_id = '${tenant}' ${bound(key, '>=', from)} order by ${columns.join(', ')} offset ${size} limit 1`,
  );
  return rows[0]?.key;
}

/** COPY takes no parameters: the key's values stand in the text, quoted. */
function bound(key: TransferTable['key'], operator: '>=' | '<', values: Key | undefined): string {
  if (values === undefined) return '';
  const literals = key.map(({ type }, index) => `${literal(values[index]!)}::${type}`);
  return `and (${key.map(({ column }) => identifier(column)).join(', ')}) ${operator} (${literals.join(', ')})`;
}

async function exportPart(
  connection: ControlConnection,
  { name, table, columns, key }: TransferTable,
  { tenant }: RowsOf,
  store: Store,
  {
    file,
    from,
    to,
    wanted,
    clock,
  }: {
    file: string;
    from: Key | undefined;
    to: Key | undefined;
    clock: () => number;
  } & Pick<Exporting, 'wanted'>,
): Promise<ExportedTable> {
  let sha256 = '';
  const list = columns.map(({ column }) => identifier(column)).join(', ');
  // In shared tables row security lets through this tenant's rows alone, whatever the condition says.
  const select = `select ${list} from ${table} where tenant_id = '${tenant}' ${bound(key, '>=', from)} ${bound(key, '<', to)}`;
  const rows = await connection.copyTo(`copy (${select}) to stdout (format csv, header)`, async (bytes) => {
    const hashed = hashing(whileWanted(bytes, wanted, clock));
    await store.write(file, hashed.bytes);
    sha256 = hashed.sha256();
  });
  return { table: name, columns: columns.map(({ column }) => column), file, rows, sha256 };
}

export interface TransferColumn {
  readonly column: string;
  readonly type: string;
  /** What a file's values are read as: the type itself where it is PostgreSQL's own, what a domain is over, or text. */
  readonly readAs: string;
}

export interface TransferTable extends HomeTable {
  /** Those that hold values of their own, without tenant_id, in order. */
  readonly columns: readonly TransferColumn[];
  /** The primary key, tenant_id included, in its order. */
  readonly key: readonly { readonly column: string; readonly type: string }[];
}

/** The tables of a home whose rows are the tenant's: without the product's own. */
export async function tablesOf(connection: ControlConnection, schema: string): Promise<TransferTable[]> {
  const tables = (await homeTables(connection, schema)).filter(({ name }) => name !== 'tenancy_probe');
  const { rows } = await connection.query<TransferColumn & { name: string }>(
    `select c.relname as name, a.attname as column, format_type(a.atttypid, a.atttypmod) as type,
            coalesce((with recursive base (type, modifier) as (
                        select a.atttypid, a.atttypmod
                        union all select t.typbasetype, t.typtypmod from base b join pg_type t on t.oid = b.type where t.typtype = 'd')
                      select format_type(b.type, b.modifier) from base b join pg_type t on t.oid = b.type
                       where t.typtype <> 'd' and t.typnamespace = 'pg_catalog'::regnamespace), 'text') as "readAs"
       from pg_class c join pg_attribute a on a.attrelid = c.oid
      where c.relnamespace = (select oid from pg_namespace where nspname = $1) and a.attnum > 0
        and not a.attisdropped and a.attgenerated = '' and a.attname <> 'tenant_id'
      order by a.attnum`,
    [schema],
  );
  const keys = await connection.query<{ name: string; column: string; type: string }>(
    `select c.relname as name, a.attname as column, format_type(a.atttypid, a.atttypmod) as type
       from pg_class c join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
       cross join unnest(k.conkey) with ordinality u(attnum, position) join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum
      where c.relnamespace = (select oid from pg_namespace where nspname = $1)
      order by u.position`,
    [schema],
  );
  const of = <T extends { name: string }>(all: T[], table: HomeTable) =>
    all.filter(({ name }) => name === table.name);
  return tables.map((table) => ({ ...table, columns: of(rows, table), key: of(keys.rows, table) }));
}
