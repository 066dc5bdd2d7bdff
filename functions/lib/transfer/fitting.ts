import type { ControlConnection } from '../database/connect.ts';
import { type TransferTable, tablesOf } from './export.ts';
import { type GivenTable, importRefused } from './manifest.ts';

/** A file, and the table that it goes into. */
export interface Fitting {
  readonly given: GivenTable;
  readonly table: TransferTable;
}

/**
 * What the manifest names beside what the home has. As the owner of all homes.
 * @returns `references`: the home's tables that every tenant reads
 * @throws TenantryError `import_refused` that names everything that does not fit, and what to do about it
 */
export async function fitting(
  connection: ControlConnection,
  schema: string,
  tables: readonly GivenTable[],
): Promise<{ pairs: Fitting[]; references: string[] }> {
  const known = new Map((await tablesOf(connection, schema)).map((table) => [table.name, table]));
  const { rows } = await connection.query<{ name: string; isReference: boolean; generated: string[] }>(
    `select c.relname as name, count(*) filter (where a.attname = 'tenant_id') = 0 as "isReference",
            coalesce(array_agg(a.attname::text) filter (where a.attgenerated <> ''), '{}') as generated
       from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      where c.relnamespace = (select oid from pg_namespace where nspname = $1) and c.relkind in ('r', 'p') and c.relname <> '_migrations'
      group by c.oid, c.relname`,
    [schema],
  );
  const there = new Map(rows.map((row) => [row.name, row]));
  const faults: string[] = [];
  const names = new Set(tables.map(({ table }) => table));
  const references = rows.flatMap(({ name, isReference }) => (isReference ? [name] : []));
  const reference = [...names].filter((name) => references.includes(name));
  const missing = [...names].filter((name) => !known.has(name) && !references.includes(name));
  if (missing.length > 0)
    faults.push(
      `The home has no table ${missing.join(', ')}: leave it out, or make it by a migration first.`,
    );
  if (reference.length > 0)
    faults.push(
      `For every tenant to read, ${reference.join(', ')} get their rows by a migration that begins with \`-- shared\`: leave them out.`,
    );
  const pairs: Fitting[] = [];
  for (const given of tables) {
    const table = known.get(given.table);
    if (table === undefined) continue;
    const taken = ['tenant_id', ...table.columns.map(({ column }) => column)];
    const generated = there.get(given.table)!.generated;
    const computed = given.columns.filter((column) => generated.includes(column));
    const unknown = given.columns.filter((column) => !taken.includes(column) && !computed.includes(column));
    if (computed.length > 0)
      faults.push(`Of ${given.table} the columns ${computed.join(', ')} are generated: leave them out.`);
    if (unknown.length > 0)
      faults.push(
        `The table ${given.table} has no column ${unknown.join(', ')}: leave it out, or make it by a migration first.`,
      );
    pairs.push({ given, table });
  }
  if (faults.length > 0) throw importRefused(faults.join(' '));
  return { pairs, references };
}
