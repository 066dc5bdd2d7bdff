import { type ControlConnection, identifier } from '../database/connect.ts';
import type { GivenTable } from './manifest.ts';

/**
 * The sequences of the tables' columns go on after the values that came in. A value beyond half of what a sequence can count
 * to was not drawn from it: it would end the sequence, in shared tables for other tenants too, so it raises nothing.
 * In the import's transaction, as the owner, and last: what a sequence is set to stays when a transaction is rolled back.
 */
export async function raiseIdentities(
  connection: ControlConnection,
  schema: string,
  tables: readonly GivenTable[],
): Promise<void> {
  const { rows } = await connection.query<{ table: string; column: string; sequence: string; most: string }>(
    `select c.relname as table, a.attname as column, format('%I.%I', n.nspname, q.relname) as sequence, (s.seqmax / 2)::text as most
       from pg_class c join pg_attribute a on a.attrelid = c.oid
       join pg_depend d on d.classid = 'pg_class'::regclass and d.refclassid = d.classid and d.refobjid = c.oid and d.refobjsubid = a.attnum and d.deptype = 'i'
       join pg_sequence s on s.seqrelid = d.objid join pg_class q on q.oid = s.seqrelid join pg_namespace n on n.oid = q.relnamespace
      where c.relnamespace = (select oid from pg_namespace where nspname = $1) and c.relname = any ($2)
        and a.attidentity <> '' and s.seqincrement > 0`,
    [schema, tables.map(({ table }) => table)],
  );
  for (const [index, { table, columns }] of tables.entries())
    for (const { column, sequence, most } of rows.filter((row) => row.table === table))
      if (columns.includes(column))
        await connection.query(
          `select setval($1::regclass, came.last) from ${sequence} s,
                  (select max(${identifier(column)})::bigint as last from pg_temp.import_${index} where ${identifier(column)} <= $2::bigint) came
            where s.last_value < came.last or s.last_value = came.last and not s.is_called`,
          [sequence, most],
        );
}
