import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { type HomeTable, homeTables, maintaining, type RowsOf } from '../isolation/rows.ts';
import { type ExportedTable, hashing } from './manifest.ts';
import type { Store } from './store.ts';

export const exportRefused = (message: string) => new TenantryError('export_refused', message);

/**
 * Writes the tables that are not done yet, all that it comes to in one snapshot of the home: what its tenant sees between
 * two of its transactions. A table passes through in pieces.
 * @returns false when there is more to do at the time `until`, ms
 */
export async function exportTables(
  connection: ControlConnection,
  rows: RowsOf,
  store: Store,
  done: readonly ExportedTable[],
  until: number,
  record: (done: readonly ExportedTable[]) => Promise<void>,
  now = Date.now,
): Promise<{ isDone: boolean; schemaVersion: string }> {
  const snapshot = Math.max(0, ...done.map((table) => table.snapshot ?? 0)) + 1;
  const known = new Set(done.map(({ table }) => table));
  const finished = [...done];
  const read = async () => {
    const newest = await connection.query('select max(name) as name from _migrations');
    const schemaVersion = String(newest.rows[0]?.name).replace(/\.sql$/, '');
    for (const table of await tablesOf(connection, rows.schema)) {
      if (known.has(table.name)) continue;
      // At least one a run, so that it comes to an end.
      if (finished.length > done.length && now() >= until) return { isDone: false, schemaVersion };
      finished.push({ ...(await exportTable(connection, table, rows, store)), snapshot });
      await record(finished);
    }
    return { isDone: true, schemaVersion };
  };
  return maintaining(connection, rows, read, 'begin isolation level repeatable read read only');
}

async function exportTable(
  connection: ControlConnection,
  { name, table, columns }: TransferTable,
  { tenant }: RowsOf,
  store: Store,
): Promise<ExportedTable> {
  const file = `${name}.csv`;
  let sha256 = '';
  const list = columns.map(({ column }) => quoted(column)).join(', ');
  // In shared tables row security lets through this tenant's rows alone, whatever the condition says.
  const select = `select ${list} from ${table} where tenant_id = '${tenant}'`;
  const rows = await connection.copyTo(`copy (${select}) to stdout (format csv, header)`, async (bytes) => {
    const hashed = hashing(bytes);
    await store.write(file, hashed.bytes);
    sha256 = hashed.sha256();
  });
  return { table: name, columns: columns.map(({ column }) => column), file, rows, sha256 };
}

export interface TransferTable extends HomeTable {
  /** Those that hold values of their own, without tenant_id, in order. */
  readonly columns: readonly { readonly column: string; readonly type: string }[];
}

/** The tables of a home whose rows are the tenant's: without the product's own. */
export async function tablesOf(connection: ControlConnection, schema: string): Promise<TransferTable[]> {
  const tables = (await homeTables(connection, schema)).filter(({ name }) => name !== 'tenancy_probe');
  const { rows } = await connection.query<{ name: string; column: string; type: string }>(
    `select c.relname as name, a.attname as column, format_type(a.atttypid, a.atttypmod) as type
       from pg_class c join pg_attribute a on a.attrelid = c.oid
      where c.relnamespace = (select oid from pg_namespace where nspname = $1) and a.attnum > 0
        and not a.attisdropped and a.attgenerated = '' and a.attname <> 'tenant_id'
      order by a.attnum`,
    [schema],
  );
  return tables.map((table) => ({ ...table, columns: rows.filter(({ name }) => name === table.name) }));
}

export const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;
