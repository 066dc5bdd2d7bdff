import { asRole } from '../isolation/homes.ts';
import { atOnce } from './at-once.ts';
import { requireHold } from './hold.ts';
import { Pace } from './pace.ts';
import { keyNames, list } from './rows.ts';
import { quote, type Side, writing } from './side.ts';
import { landing } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** Rows deleted in one transaction: 100,000 take a third of a second, and nobody waits for them. */
const BATCH = 5_000;

/**
 * In shared tables: the rows of a home that the tenant has left. Others' rows are out of reach by row security.
 * @returns whether there is more to do
 */
export async function deleteRows(
  side: Side,
  tables: readonly MovedTable[],
  until: () => boolean,
): Promise<boolean> {
  const pace = new Pace(side.connection);
  // A trigger on one table may write to another, which was empty already.
  for (let deleted = 1; deleted > 0; ) {
    deleted = 0;
    try {
      for (const table of tables.toReversed())
        for (let some = 1; some > 0; deleted += some) {
          some = await pace.after(() => deleteSome(side, table, BATCH));
          if (some > 0 && until()) return true;
        }
    } catch (error) {
      // Rows that point at each other go together or not at all.
      if (!/^2(3503|3001)$/.test((error as { code?: string }).code ?? '')) throw error;
      await deleteTogether(side, tables.toReversed());
      deleted += 1;
    }
  }
  return false;
}

const deleteSome = (side: Side, table: MovedTable, limit: number): Promise<number> =>
  writing(side, landing, async () => {
    await side.connection.query('set constraints all deferred');
    const key = list(keyNames(table));
    const { rowCount } = await side.connection.query(
      `delete from ${quote(table.name)} where (${key}) in (select ${key} from ${quote(table.name)} where tenant_id = $1 limit $2)`,
      [side.home.tenant, limit],
    );
    return rowCount ?? 0;
  });

const deleteTogether = (side: Side, tables: readonly MovedTable[]) =>
  writing(side, landing, async () => {
    await side.connection.query('set constraints all deferred');
    const deletions = tables.map(({ name }) => `delete from ${quote(name)} where tenant_id = $1`);
    await side.connection.query(atOnce(deletions), [side.home.tenant]);
  });

/** What was captured and nobody will carry over. @throws TenantryError `operation_ended`: it may be the next move's */
export const forgetChanges = ({ connection, home, mover }: Side) =>
  asRole(connection, 'tenancy_keeper', async () => {
    await requireHold({ connection, home, mover });
    await connection.query('delete from tenancy.changes where tenant_id = $1 and schema_name = $2', [
      home.tenant,
      home.schema,
    ]);
  });
