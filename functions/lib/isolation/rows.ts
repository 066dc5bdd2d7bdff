import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type MasterKeys, signContext } from './context.ts';
import { asRole } from './homes.ts';

/** Whose rows, and what the maintenance context is signed with. */
export interface RowsOf {
  readonly tenant: TenantId;
  readonly schema: string;
  readonly epoch: number;
  readonly databaseId: string;
  readonly keys: MasterKeys;
}

/** Rows that one statement deletes: a few hundred milliseconds of locks, and of log for standbys. */
const batch = 5_000;

/**
 * Runs `work` as the owner of the tables, with the home's path: row security shows and lets through this tenant's rows
 * alone, whatever a statement says.
 */
export function maintaining<T>(
  connection: ControlConnection,
  rows: RowsOf,
  work: () => Promise<T>,
  begin = 'begin',
): Promise<T> {
  return asRole(
    connection,
    'tenancy_owner',
    async () => {
      await takeContext(connection, rows);
      return work();
    },
    begin,
  );
}

/** In a transaction of tenancy_owner: the signed context for this tenant's rows alone, and its home's path. */
export async function takeContext(
  connection: ControlConnection,
  { tenant, schema, epoch, databaseId, keys }: RowsOf,
): Promise<void> {
  const context = signContext(
    keys,
    { databaseId, tenant, epoch, mode: 'w', purpose: 'move', statementMs: 0 },
    Date.now(),
  );
  await connection.query(
    `select set_config('tenancy.context', $1, true), set_config('tenancy.tenant', $2, true),
            set_config('search_path', $3, true)`,
    [context, tenant, `${schema}, extensions, pg_temp`],
  );
}

/** By what a trigger of shared tables is left out of what moves and imports write: what a team gives it, and how its definition shows it. */
export const leftOut = {
  condition: "when (split_part(current_setting('tenancy.context', true), '.', 7) is distinct from 'move')",
  pattern: String.raw` WHEN .*tenancy\.context.* EXECUTE FUNCTION `,
};

/** A table of a home, under the name that a statement gives it, with the tables of the home that its foreign keys point to. */
export interface HomeTable {
  readonly name: string;
  readonly table: string;
  readonly parents: readonly string[];
}

/** The home's tables, without partitions: their parents stand for them. */
export async function homeTables(connection: ControlConnection, schema: string): Promise<HomeTable[]> {
  const { rows } = await connection.query<HomeTable>(
    `select c.relname as name, format('%I.%I', $1::name, c.relname) as table,
            -- A partition may have keys of its own, and be pointed at itself.
            array(select distinct format('%I.%I', $1::name, p.relname)
                    from pg_constraint f join pg_class p on p.oid = coalesce(pg_partition_root(f.confrelid), f.confrelid)
                   where f.conrelid = any (c.oid || array(select t.relid::oid from pg_partition_tree(c.oid) t)) and f.contype = 'f') as parents
       from pg_class c
      where c.relnamespace = (select oid from pg_namespace where nspname = $1) and c.relkind in ('r', 'p')
        and not c.relispartition
        and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
      order by c.relname`,
    [schema],
  );
  return rows;
}

/** How often all tables are gone through: triggers that write to one another's tables can take a few turns. */
const passes = 10;

/**
 * Deletes the tenant's rows from tables that it shares. A trigger may write rows into a table that was empty already (a log
 * of what is deleted), so it goes on until none is left.
 * @returns false when there is more to do and `isOver`
 * @throws TenantryError `not_removed` when something in the schema keeps rows
 */
export async function deleteRows(
  connection: ControlConnection,
  rows: RowsOf,
  isOver: () => boolean,
): Promise<boolean> {
  const tables = await homeTables(connection, rows.schema);
  for (let pass = 1; ; pass += 1) {
    if (!(await deleteOnce(connection, rows, tables, isOver))) return false;
    const left = await maintaining(connection, rows, () => tablesWithRows(connection, tables, rows.tenant));
    if (left.length === 0) return true;
    if (pass === passes)
      throw kept(left.join(', '), 'they are still there, or there again, after it was tried');
  }
}

const kept = (tables: string, why: string, cause?: unknown) =>
  new TenantryError(
    'not_removed',
    `Rows of the tenant in ${tables} can't be deleted: ${why}. A trigger or a rule of your schema may be what keeps them; change it by a migration, then offboard the tenant again.`,
    { cause },
  );

/** In a transaction that sees this tenant's rows. */
export async function tablesWithRows(
  connection: ControlConnection,
  tables: readonly { readonly table: string }[],
  tenant: TenantId,
): Promise<string[]> {
  const found: string[] = [];
  for (const { table } of tables) {
    const { rows } = await connection.query(`select from ${table} where tenant_id = $1 limit 1`, [tenant]);
    if (rows.length > 0) found.push(table);
  }
  return found;
}

/**
 * Once through all tables, a batch a transaction, those that point at others first. Tables whose foreign keys form a circle,
 * or point at themselves, have no such order: they are emptied in one transaction.
 */
async function deleteOnce(
  connection: ControlConnection,
  rows: RowsOf,
  tables: readonly HomeTable[],
  isOver: () => boolean,
): Promise<boolean> {
  for (const group of inDeletionOrder(tables)) {
    const isCircle = group.length > 1 || group[0]!.parents.includes(group[0]!.table);
    for (;;) {
      if (isOver()) return false;
      const deleted = await maintaining(connection, rows, async () => {
        await connection.query('set constraints all deferred');
        let most = 0;
        for (const { table } of group) {
          const some = `ctid = any (array(select ctid from ${table} where tenant_id = $1 limit ${batch}))`;
          const statement = `delete from ${table} where tenant_id = $1${isCircle ? '' : ` and ${some}`}`;
          const { rowCount } = await connection.query(statement, [rows.tenant]);
          most = Math.max(most, rowCount ?? 0);
        }
        return most;
      }).catch((error) => {
        const { code = '', severity } = error as { code?: string; severity?: string };
        // The server's state, or the connection's. All else is what a trigger raises, whatever SQLSTATE it takes, a constraint,
        // or a statement of a trigger's: the next attempt would end as this one, and its message may quote the row.
        if (severity === undefined || /^(08|25|40|53|54|55|57|58|XX)/.test(code)) throw error;
        throw kept(group.map(({ table }) => table).join(', '), `SQLSTATE ${code}`, error);
      });
      if (isCircle || deleted < batch) break;
    }
  }
  return true;
}

/** Groups of tables that have to go together, each before those that it points at. */
function inDeletionOrder(tables: readonly HomeTable[]): HomeTable[][] {
  const byName = new Map(tables.map((table) => [table.table, table]));
  const reach = (from: HomeTable, seen = new Set<string>()): Set<string> => {
    for (const parent of from.parents) {
      const next = byName.get(parent);
      if (next === undefined || seen.has(parent)) continue;
      seen.add(parent);
      reach(next, seen);
    }
    return seen;
  };
  const reached = new Map(tables.map((table) => [table.table, reach(table)]));
  const isBelow = (a: string, b: string) => reached.get(b)!.has(a);
  const groups: HomeTable[][] = [];
  for (const table of tables) {
    if (groups.some((group) => group.includes(table))) continue;
    const circle = tables.filter(
      (other) => other === table || (isBelow(other.table, table.table) && isBelow(table.table, other.table)),
    );
    groups.push(circle);
  }
  // Falls along every foreign key between groups: whoever points at a table reaches it, and all that it reaches.
  const weight = (group: HomeTable[]) => new Set([...reached.get(group[0]!.table)!, group[0]!.table]).size;
  return groups.sort((a, b) => weight(b) - weight(a));
}
