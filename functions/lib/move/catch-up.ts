import { RetryableError, TenantryError } from '../errors.ts';
import { asRole } from '../isolation/homes.ts';
import { carrying } from './carry.ts';
import { requireHold } from './hold.ts';
import type { Keys } from './rows.ts';
import { reading, type Side, writing } from './side.ts';
import { landing } from './staging.ts';
import type { MovedTable } from './tables.ts';

/**
 * A few rows among many are found by their keys, whatever the planner thinks how many there are: writers wait. The start
 * of parallel workers alone takes 30 ms. And a bitmap of the log reads all that was deleted from it each time, while an
 * index scan leaves marks for the next.
 */
export const byKey = `set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_seqscan = off;
  set local enable_material = off; set local enable_bitmapscan = off; set local max_parallel_workers_per_gather = 0`;
/** Log entries read at a time while the target has not landed: some 20 MB with their keys. */
const PIECE = 100_000;
const PIECES = 200;
/** Log entries that fit into the mover's memory at once, with their keys: some 200 MB. */
const MOST_ENTRIES = 500_000;
/** Log entries deleted in one statement. */
const DELETED_AT_ONCE = 20_000;

export interface Sides {
  readonly source: Side;
  readonly target: Side;
  /** The source's. */
  readonly tables: readonly MovedTable[];
}

interface Entry {
  id: string;
  table: string;
  key: string;
}

export interface CatchUpOptions<T> {
  /** Reads more of the source in the same snapshot. */
  readonly meanwhile?: () => Promise<T>;
  /**
   * Writers wait: what was read stays in the log, and the target's transaction need not reach the disk by itself, because
   * one that does must follow in the same server before anything is decided.
   */
  readonly isLast?: boolean;
  /** Of the log's entries. What is read in pieces is the source at one moment only when the last one was the rest. */
  readonly atMost?: number;
}

/**
 * Carries over all that has changed since the last time. Log and rows are read in one snapshot: afterwards the target is
 * what the source was at one moment, and every foreign key holds. Exactly the entries that were read are deleted from the
 * log, because a transaction that began earlier may commit an older one later. In few round trips: the last time, writers
 * wait for all of them.
 * @returns how many keys had changed
 * @throws TenantryError `move_differs` when a row is not the same on both sides afterwards, `move_refused` when too much
 *   has changed since the last time
 */
export async function catchUp<T = void>(
  { source, target, tables }: Sides,
  hasLanded: boolean,
  { meanwhile = async () => undefined as T, isLast = false, atMost }: CatchUpOptions<T> = {},
): Promise<{ changed: number; isAll: boolean; meanwhile: T }> {
  let entries: readonly Entry[] = [];
  let keys: Keys = new Map();
  let changed = 0;
  const seen = await reading(
    source,
    async () => {
      entries = await readLog(source, atMost);
      if (entries.length === 0) return meanwhile();
      keys = keysOf(await ofTables(source, entries, tables), tables);
      changed = [...keys.values()].reduce((sum, { size }) => sum + size, 0);
      // The target's transaction lies within the source's: what it inserts is read as it goes.
      const { first, carry } = carrying({ source, target, tables }, keys, hasLanded);
      await writing(
        target,
        landing,
        carry,
        `${byKey}; ${isLast ? 'set local synchronous_commit = off;' : ''} set constraints all deferred; ${first}`,
      );
      return meanwhile();
    },
    byKey,
  );
  if (!isLast) await forget(source, entries);
  return { changed, isAll: entries.length !== atMost, meanwhile: seen };
}

/**
 * What was written during hours of copying, piece by piece: not all of it fits into a function's memory. Before the target
 * has landed none of its rows has to find another one, so that between two pieces they need not belong together.
 * @throws RetryableError `busy`
 */
export async function catchUpInPieces(sides: Sides, atMost = PIECE): Promise<void> {
  for (let piece = 0; !(await catchUp(sides, false, { atMost })).isAll; piece += 1)
    if (piece === PIECES) throw tooFast();
}

export const tooFast = () =>
  new RetryableError('busy', 'The tenant writes faster than its changes can be carried over.', 30);

async function forget(side: Side, entries: readonly Entry[]): Promise<void> {
  const { connection } = side;
  for (let first = 0; first < entries.length; first += DELETED_AT_ONCE) {
    const ids = entries.slice(first, first + DELETED_AT_ONCE).map(({ id }) => id);
    await asRole(connection, 'tenancy_keeper', async () => {
      await requireHold(side);
      await connection.query('delete from tenancy.changes where change_id = any ($1::bigint[])', [ids]);
    });
  }
}

async function readLog({ connection, home }: Side, atMost: number | undefined): Promise<Entry[]> {
  const { rows } = await connection.query<Entry>(
    `select change_id::text as id, table_name as "table", key::text as key from tenancy.changes where tenant_id = $1 and schema_name = $2 limit $3`,
    [home.tenant, home.schema, atMost ?? MOST_ENTRIES + 1],
  );
  // What has landed has to be carried on in one piece.
  if (rows.length > MOST_ENTRIES)
    throw new TenantryError(
      'move_refused',
      `More than ${MOST_ENTRIES.toLocaleString('en')} changes wait to be carried over in one piece: the move has rested for too long. Before the switch, cancel it and begin another; after it, complete it.`,
    );
  return rows;
}

/** A change of a partition's row is its table's. Asked only where there are partitions: not for every entry of the log. */
async function ofTables(
  { connection, home }: Side,
  entries: readonly Entry[],
  tables: readonly MovedTable[],
): Promise<readonly Entry[]> {
  const known = new Set(tables.map(({ name }) => name));
  const others = [...new Set(entries.map(({ table }) => table))].filter((name) => !known.has(name));
  if (others.length === 0) return entries;
  const { rows } = await connection.query<{ name: string; root: string }>(
    `select name, p.relname::text as root from unnest($1::text[]) name
       join pg_class p on p.oid = pg_partition_root(to_regclass(format('%I.%I', $2::text, name)))`,
    [others, home.schema],
  );
  const roots = new Map(rows.map(({ name, root }) => [name, root]));
  return entries.map((entry) => ({ ...entry, table: roots.get(entry.table) ?? entry.table }));
}

function keysOf(entries: readonly Entry[], tables: readonly MovedTable[]): Keys {
  const byName = new Map(tables.map((table) => [table.name, table]));
  const keys: Keys = new Map();
  for (const entry of entries) {
    const table = byName.get(entry.table);
    if (table === undefined) continue;
    if (!keys.has(table)) keys.set(table, new Set());
    keys.get(table)!.add(entry.key);
  }
  return keys;
}
