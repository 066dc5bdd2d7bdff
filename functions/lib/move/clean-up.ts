import { identifier } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import { atOnce } from './at-once.ts';
import { requireHold } from './hold.ts';
import { Pace } from './pace.ts';
import { keyNames, list } from './rows.ts';
import { type Side, writing } from './side.ts';
import { landing } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** Rows deleted in one transaction, at first and at most: 100,000 take a third of a second, and nobody waits for them. */
const FIRST = 500;
const MOST = 5_000;
/** How long one such transaction shall take, ms: where a foreign key has no index, each row is looked for among all others. */
const AIM_MS = 2_000;

/**
 * In shared tables: the rows of a home that the tenant has left. Others' rows are out of reach by row security. Those that
 * nothing points at go first, some at a time, until none is left: a trigger on one table may write to another.
 * @returns whether there is more to do
 * @throws TenantryError `not_removed` when rows stay, whatever is done
 */
export async function deleteRows(
  side: Side,
  tables: readonly MovedTable[],
  isOver: () => boolean,
): Promise<boolean> {
  const pace = new Pace(side.connection);
  let size = FIRST;
  for (let wasTogether = false; ; ) {
    let deleted = 0;
    for (const table of tables.toReversed()) {
      const statement = deletion(table, tables);
      for (let some = 1; some > 0; deleted += some) {
        some = await pace.after(async () => {
          const begun = performance.now();
          const count = await deleteSome(side, statement, size);
          const fitting = (size * AIM_MS) / (performance.now() - begun);
          size = Math.max(10, Math.round(Math.min(MOST, size * 2, fitting)));
          return count;
        });
        if (some > 0 && isOver()) return true;
      }
    }
    const isLast = deleted === 0;
    // Rows that point at each other go together or not at all.
    if (isLast && !(await deleteTogether(side, tables.toReversed()))) return false;
    if (isLast && wasTogether)
      throw new TenantryError(
        'not_removed',
        'Rows of this tenant stay in shared tables: a trigger keeps them.',
      );
    wasTogether = isLast;
  }
}

/** Of some rows that none of these tables' rows points at; but that a row points at itself keeps nothing. */
function deletion(table: MovedTable, tables: readonly MovedTable[]): string {
  const key = (of: string) => list(keyNames(table), of);
  const children = tables.flatMap((child) =>
    child.pointsAt
      .filter(({ parent }) => parent === table.name)
      .map(({ columns, parentColumns }) => {
        const points = columns
          .map((name, at) => `c.${identifier(name)} = t.${identifier(parentColumns[at]!)}`)
          .join(' and ');
        const itself = child === table ? `and row(${key('c.')}) <> row(${key('t.')})` : '';
        return `and not exists (select from ${identifier(child.name)} c where c.tenant_id = $1 and ${points} ${itself})`;
      }),
  );
  return `delete from ${identifier(table.name)} where (${key('')}) in (
    select ${key('t.')} from ${identifier(table.name)} t where t.tenant_id = $1 ${children.join(' ')} limit $2)`;
}

const deleteSome = (side: Side, statement: string, limit: number): Promise<number> =>
  writing(side, landing, async () => {
    const { rowCount } = await side.connection.query(statement, [side.home.tenant, limit]);
    return rowCount ?? 0;
  });

/** @returns whether there was something to delete */
const deleteTogether = (side: Side, tables: readonly MovedTable[]): Promise<boolean> =>
  writing(side, landing, async () => {
    const { connection, home } = side;
    const exist = tables.map(({ name }) => `exists (select from ${identifier(name)} where tenant_id = $1)`);
    const { rows } = await connection.query<{ some: boolean }>(
      `select ${['$1::uuid is null', ...exist].join(' or ')} as some`,
      [home.tenant],
    );
    if (!rows[0]!.some) return false;
    await connection.query('set constraints all deferred');
    const deletions = tables.map(({ name }) => `delete from ${identifier(name)} where tenant_id = $1`);
    await connection.query(atOnce(deletions), [home.tenant]);
    return true;
  });

/**
 * Foreign keys of the tables that no index begins with: every deletion of a row that one may point at reads all that the
 * tenant has in its table. In a transaction.
 */
export async function unindexedKeys(
  { connection, home }: Side,
  tables: readonly MovedTable[],
): Promise<string[]> {
  const { rows } = await connection.query<{ name: string }>(
    `select format('%s (%s)', c.relname, (select string_agg(a.attname, ', ' order by k.place) from unnest(f.conkey) with ordinality k(attnum, place)
                                           join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum)) as name
       from pg_class c join pg_constraint f on f.conrelid = c.oid and f.contype = 'f' and f.conparentid = 0
      where c.relname = any ($2) and c.relnamespace = (select oid from pg_namespace where nspname = $1)
        and not exists (select from pg_index i where i.indrelid = c.oid and i.indisvalid and i.indpred is null
                           and (i.indkey::smallint[])[0:cardinality(f.conkey) - 1] @> f.conkey) order by 1`,
    [home.schema, tables.map(({ name }) => name)],
  );
  return rows.map(({ name }) => name);
}

/** What was captured and nobody will carry over. @throws TenantryError `operation_ended`: it may be the next move's */
export const forgetChanges = (side: Side) =>
  asRole(side.connection, 'tenancy_keeper', async () => {
    const { connection, home } = side;
    await requireHold(side);
    await connection.query('delete from tenancy.changes where tenant_id = $1 and schema_name = $2', [
      home.tenant,
      home.schema,
    ]);
  });
