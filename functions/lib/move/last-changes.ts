import { literal } from '../database/connect.ts';
import { byKey, type Sides } from './catch-up.ts';
import { requireSame } from './diff.ts';
import { becoming, type Next, setState } from './hold.ts';
import { adding, isInTheWay, keptTables, updating } from './in-place.ts';
import {
  fromKeys,
  type HashRow,
  hashes,
  hashesByTable,
  type Keys,
  keyLiteral,
  keyObject,
  list,
  rowHash,
  rowText,
  sameKey,
} from './rows.ts';
import { quote, reading, type Side, writing } from './side.ts';
import { landing, stagedName } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** Log entries that writers may be kept waiting for: some 100 ms. */
const MOST_ENTRIES = 1_000;
/** Of a row's text: so many rows of this length pass through the mover's memory. */
const LONGEST_ROW = 16_384;
/** In place of a table: there are more. */
const TOO_MANY = -1;

/** A key that has changed, and its row as it is now. */
export interface LastChange {
  /** Of its table in the move's order. */
  readonly place: number;
  readonly key: string;
  /** The row's own; null: it is not there. */
  readonly own: string | null;
  readonly hash: string | null;
  /** Null where it is too long. */
  readonly text: string | null;
}

export const areTooMany = (changes: readonly LastChange[]) => changes.some(({ place }) => place === TOO_MANY);

/** A prepared statement's plan at its first use is the one that it keeps. */
const planned = `${byKey}; set local plan_cache_mode = force_generic_plan`;

/** What is asked at the fence: `LastChange`s. Prepared by `prepareLast`. */
export const readLast = `${planned}; execute last_changes`;

/** Planning took half of the pause: each statement of it is planned ahead, by doing nothing. */
export async function prepareLast({ source, target, tables }: Sides): Promise<void> {
  await reading(
    source,
    () => source.connection.query(`prepare last_changes as ${lastChanges(source, tables)}; ${readLast}`),
    planned,
  );
  const kept = keptTables(tables);
  const statements = tables.flatMap((table, place) => {
    // A staged table has these columns and no others, in this order.
    const lines = `(select (r).* from (select line::${stagedName(target, place)} as r from unnest($1) line offset 0) t) s`;
    const given = list(table.given);
    const inserting = kept.has(table)
      ? adding(table, lines)
      : `insert into ${quote(table.name)} (${given}) overriding system value select ${given} from ${lines}`;
    return [
      `prepare last_deleted_${place} (jsonb) as delete from ${quote(table.name)} t using ${fromKeys(table, '$1')} where ${sameKey(table)}`,
      `prepare last_inserted_${place} (text[]) as ${inserting}`,
      `execute last_deleted_${place} ('[]'); execute last_inserted_${place} ('{}')`,
      ...(kept.has(table)
        ? [
            `prepare last_updated_${place} (text[]) as ${updating(table, lines)}; execute last_updated_${place} ('{}')`,
          ]
        : []),
    ];
  });
  const all: Keys = new Map(tables.map((table) => [table, new Set()]));
  const compared = hashes(all, (place) => `$${place + 1}`);
  const nothing = tables.map(() => "'[]'").join(', ');
  await writing(target, landing, async () => {}, {
    first: `${planned}; ${statements.join(';')}; prepare last_compared as ${compared}; execute last_compared (${nothing})`,
  });
}

/** What has changed since the last time, with its rows, as one question. */
function lastChanges({ home }: Side, tables: readonly MovedTable[]): string {
  const changed = (table: MovedTable) =>
    `coalesce((select jsonb_agg(distinct key) from log where table_name ${isOf(table)}), '[]')`;
  const ofTable = (table: MovedTable, place: number) =>
    `select ${place}, ${keyObject(table, 'k')}, case when t.tenant_id is not null then ${keyObject(table)} end, ${rowHash(table)},
            case when octet_length(${rowText(table)}) <= ${LONGEST_ROW} then ${rowText(table)} end
       from ${fromKeys(table, changed(table))} left join ${quote(table.name)} t on ${sameKey(table)}`;
  return `with log as materialized (
      select table_name, key from tenancy.changes where tenant_id = '${home.tenant}' and schema_name = '${home.schema}' limit ${MOST_ENTRIES + 1})
    select ${TOO_MANY} as place, null as key, null as own, null as hash, null as text from log having count(*) > ${MOST_ENTRIES}
    union all ${tables.map(ofTable).join(' union all ')}`;
}

/** A change of a partition's row is its table's. */
const isOf = ({ name, isPartitioned }: MovedTable) =>
  isPartitioned
    ? `in (select c.relname from pg_partition_tree(${literal(quote(name))}) p join pg_class c on c.oid = p.relid)`
    : `= ${literal(name)}`;

/**
 * Carries the last changes over and makes the target ready to serve, in one transaction of two round trips: writers wait for each.
 * @returns false, and does nothing, when rows are too long for this, or can't be changed where they are
 * @throws TenantryError `move_differs` when a row is not the same on both sides afterwards
 */
export async function carryLast(
  { target, tables }: Sides,
  changes: readonly LastChange[],
  serving: Next,
): Promise<boolean> {
  const there = changes.filter(({ own }) => own !== null);
  if (there.some(({ text }) => text === null)) return false;
  const byTable = Map.groupBy(changes, ({ place }) => tables[place]!);
  const keys: Keys = new Map([...byTable].map(([table, of]) => [table, new Set(of.map(({ key }) => key))]));
  if (keys.size === 0) {
    await setState(target, landing, 'fenced', serving);
    return true;
  }

  const kept = keptTables(tables);
  const inOrder = [...tables.entries()].filter(([, table]) => keys.has(table));
  const inPlace = inOrder.filter(([, table]) => kept.has(table));
  // All deletions first: two rows may have exchanged what is unique.
  const deletions = inOrder
    .filter(([, table]) => !kept.has(table))
    .toReversed()
    .map(([place, table]) => `execute last_deleted_${place} (${keyLiteral(keys.get(table)!)})`);
  // Where others would go with a row, only what is gone does, when nothing points at it any more.
  const gone = inPlace.toReversed().flatMap(([place, table]) => {
    const of = byTable.get(table)!.filter(({ own }) => own === null);
    return of.length === 0
      ? []
      : [`execute last_deleted_${place} (${keyLiteral(new Set(of.map(({ key }) => key)))})`];
  });
  const carried = (kind: 'updated' | 'inserted', of: typeof inOrder) =>
    of.flatMap(([place]) => {
      // Two keys that are equal, and written in two ways, are one row's.
      const rows = new Map(
        there.filter((row) => row.place === place).map(({ own, text }) => [own, literal(text!)]),
      );
      return rows.size === 0
        ? []
        : [`execute last_${kind}_${place} (array[${[...rows.values()].join(', ')}])`];
    });
  const ofAll: Keys = new Map(tables.map((table) => [table, keys.get(table) ?? new Set()]));
  const compared = `execute last_compared (${[...ofAll.values()].map(keyLiteral).join(', ')})`;
  const here = hashesByTable(
    ofAll,
    there.map(({ place, own, hash }) => ({ place, key: own!, hash: hash! })),
  );
  const first = [
    planned,
    'set constraints all deferred',
    ...deletions,
    ...carried('updated', inPlace),
    ...gone,
    ...carried('inserted', inOrder),
    compared,
  ].join(';');
  try {
    await writing(
      target,
      landing,
      async (rows) => requireSame(keys, here, hashesByTable(ofAll, rows as readonly HashRow[])),
      { first, last: becoming(target, landing, 'fenced', serving) },
    );
  } catch (error) {
    if (inPlace.length > 0 && isInTheWay(error)) return false;
    throw error;
  }
  return true;
}
