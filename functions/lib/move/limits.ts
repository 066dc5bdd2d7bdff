import { identifier } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { reading, type Side } from './side.ts';
import type { MovedTable } from './tables.ts';

/**
 * What is one piece of work has to end within a function's 15 minutes. Both homes are compared in one snapshot of the
 * source, at some 80,000 rows/s. Rows land in shared tables in one transaction, each with its foreign keys, at some
 * 30,000 rows/s. On a busy server a move takes four times as long.
 */
const MOST_ROWS = 20_000_000;
const MOST_ROWS_TO_SHARED = 5_000_000;

const mostTo = (to: Strategy) => (isolations[to].ownsTables ? MOST_ROWS : MOST_ROWS_TO_SHARED);

/** @returns what keeps so many rows from being moved, in words */
export function tooMany(rows: number, to: Strategy, most = mostTo(to)): string | undefined {
  if (rows <= most) return undefined;
  const remedy = isolations[to].ownsTables
    ? 'Export it, and import it elsewhere while it is suspended.'
    : 'It can go to a schema or a database of its own.';
  return `It has more than ${most.toLocaleString('en')} rows, and so many can't be moved to ${to}. ${remedy}`;
}

/** @throws TenantryError `move_refused` before anything is copied */
export async function requireFew(
  source: Side,
  tables: readonly MovedTable[],
  to: Strategy,
  most = mostTo(to),
): Promise<void> {
  const rows = await reading(source, async () => {
    let rows = 0;
    for (const { name } of tables) {
      const { rows: found } = await source.connection.query<{ n: string }>(
        `select count(*) as n from (select from ${identifier(name)} where tenant_id = $1 limit $2) t`,
        [source.home.tenant, most + 1 - rows],
      );
      rows += Number(found[0]!.n);
      if (rows > most) break;
    }
    return rows;
  });
  const reason = tooMany(rows, to, most);
  if (reason !== undefined) throw new TenantryError('move_refused', reason);
}
