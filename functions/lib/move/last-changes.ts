import { identifier, literal } from '../database/connect.ts';
import { byKey, type Sides } from './catch-up.ts';
import { becoming, type Next, setState } from './hold.ts';
import { adding, isInTheWay, keptTables, updating } from './in-place.ts';
import {
  fromKeys,
  hashes,
  type Keys,
  keyLiteral,
  keyObject,
  list,
  rowHash,
  rowText,
  sameKey,
} from './rows.ts';
import { reading, type Side, writingAtOnce } from './side.ts';
import { landing, stagedName } from './staging.ts';
import type { MovedTable } from './tables.ts';

/** Log entries that writers may be kept waiting for: some 100 ms. */
const MOST_ENTRIES = 1_000;
/** Of a row's text: so many rows of this length pass through the mover's memory. */
const LONGEST_ROW = 16_384;
/** In place of a table: there are more. */
const TOO_MANY = -1;
/** In place of a table: of which entries of the log all this is. */
const ENTRIES = -2;

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

/** What changed, as one question has found it. */
export interface LastChanges {
  readonly changes: readonly LastChange[];
  /** Of the log, by their ids: what is carried stays there until the next attempt, or the move's end. */
  readonly entries: readonly string[];
  readonly areTooMany: boolean;
}

/** @param rows what `readLast` has answered */
export const lastOf = (rows: readonly LastChange[]): LastChanges => ({
  changes: rows.filter(({ place }) => place >= 0),
  entries: rows.flatMap(({ place, key }) => (place === ENTRIES ? (JSON.parse(key) as string[]) : [])),
  areTooMany: rows.some(({ place }) => place === TOO_MANY),
});

/** A prepared statement's plan at its first use is the one that it keeps. */
const planned = `${byKey}; set local plan_cache_mode = force_generic_plan`;

/** What is asked at the fence: `LastChange`s, but for these entries of the log. Prepared by `prepareLast`. */
export const readLast = (carried: readonly string[]) =>
  `${planned}; execute last_changes ('{${carried.join(',')}}')`;

/** Planning took half of the pause: each statement of it is planned ahead, by doing nothing. */
export async function prepareLast({ source, target, tables }: Sides): Promise<void> {
  await reading(
    source,
    () =>
      source.connection.query(
        `prepare last_changes (bigint[]) as ${lastChanges(source, tables)}; ${readLast([])}`,
      ),
    planned,
  );
  const kept = keptTables(tables);
  const statements = tables.flatMap((table, place) => {
    // A staged table has these columns and no others, in this order.
    const lines = `(select (r).* from (select line::${stagedName(target, place)} as r from unnest($1) line offset 0) t) s`;
    const given = list(table.given);
    const inserting = kept.has(table)
      ? adding(table, lines)
      : `insert into ${identifier(table.name)} (${given}) overriding system value select ${given} from ${lines}`;
    return [
      `prepare last_deleted_${place} (jsonb) as delete from ${identifier(table.name)} t using ${fromKeys(table, '$1')} where ${sameKey(table)}`,
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
  const here = `select * from jsonb_to_recordset($${tables.length + 1}::jsonb) as here (place integer, key text, hash bigint)`;
  const there = hashes(all, (place) => `$${place + 1}`);
  const nothing = [...tables.map(() => "'[]'"), "'[]'"].join(', ');
  await writingAtOnce(
    target,
    landing,
    `${planned}; ${statements.join(';')};
     prepare last_compared as with here as (${here}), there as (${there})
       select 1 / (not exists ((table here except table there) union all (table there except table here)))::integer;
     execute last_compared (${nothing})`,
  );
}

/** What `last_compared` ends with where a row is not the same on both sides: it has to say so within the one script. */
const DIFFERS = '22012';

/** What has changed since the last time, with its rows, as one question. */
function lastChanges({ home }: Side, tables: readonly MovedTable[]): string {
  const changed = (table: MovedTable) =>
    `coalesce((select jsonb_agg(distinct key) from log where table_name ${isOf(table)}), '[]')`;
  const ofTable = (table: MovedTable, place: number) =>
    `select ${place}, ${keyObject(table, 'k')}, case when t.tenant_id is not null then ${keyObject(table)} end, ${rowHash(table)},
            case when octet_length(${rowText(table)}) <= ${LONGEST_ROW} then ${rowText(table)} end
       from ${fromKeys(table, changed(table))} left join ${identifier(table.name)} t on ${sameKey(table)}`;
  return `with log as materialized (
      select change_id, table_name, key from tenancy.changes
       where tenant_id = '${home.tenant}' and schema_name = '${home.schema}' and change_id <> all ($1) limit ${MOST_ENTRIES + 1})
    select case when count(*) > ${MOST_ENTRIES} then ${TOO_MANY} else ${ENTRIES} end as place, json_agg(change_id::text)::text as key,
           null as own, null as hash, null as text from log having count(*) > 0
    union all ${tables.map(ofTable).join(' union all ')}`;
}

/** A change of a partition's row is its table's. */
const isOf = ({ name, isPartitioned }: MovedTable) =>
  isPartitioned
    ? `in (select c.relname from pg_partition_tree(${literal(identifier(name))}) p join pg_class c on c.oid = p.relid)`
    : `= ${literal(name)}`;

/**
 * Carries the last changes over and, when it is said how the target is to serve, makes it ready to, in one transaction of
 * one round trip: writers wait for it.
 * @returns false, and does nothing, when this way can't do it: rows are too long for it, can't be changed where they are, or
 *   differ afterwards. The longer way says which.
 */
export async function carryLast(
  { target, tables }: Sides,
  changes: readonly LastChange[],
  serving?: Next,
): Promise<boolean> {
  const there = changes.filter(({ own }) => own !== null);
  if (there.some(({ text }) => text === null)) return false;
  if (changes.length === 0) {
    if (serving !== undefined) await setState(target, landing, 'fenced', serving);
    return true;
  }
  const kept = keptTables(tables);
  const byPlace = Map.groupBy(changes, ({ place }) => place);
  const keysOf = (place: number, of = byPlace.get(place) ?? []) =>
    keyLiteral(new Set(of.map(({ key }) => key)));
  const places = [...tables.keys()].filter((place) => byPlace.has(place));
  const inPlace = places.filter((place) => kept.has(tables[place]!));
  // All deletions first: two rows may have exchanged what is unique.
  const deletions = places
    .filter((place) => !inPlace.includes(place))
    .toReversed()
    .map((place) => `execute last_deleted_${place} (${keysOf(place)})`);
  // Where others would go with a row, only what is gone does, when nothing points at it any more.
  const gone = inPlace.toReversed().flatMap((place) => {
    const of = byPlace.get(place)!.filter(({ own }) => own === null);
    return of.length === 0 ? [] : [`execute last_deleted_${place} (${keysOf(place, of)})`];
  });
  const carried = (kind: 'updated' | 'inserted', of: readonly number[]) =>
    of.flatMap((place) => {
      // Two keys that are equal, and written in two ways, are one row's.
      const rows = new Map(
        there.filter((row) => row.place === place).map(({ own, text }) => [own, literal(text!)]),
      );
      return rows.size === 0
        ? []
        : [`execute last_${kind}_${place} (array[${[...rows.values()].join(', ')}])`];
    });
  const here = JSON.stringify(there.map(({ place, own, hash }) => ({ place, key: own, hash })));
  const compared = [...tables.keys()].map((place) => keysOf(place));
  try {
    await writingAtOnce(
      target,
      landing,
      [
        planned,
        // What is written last, before anything is decided, reaches the disk, and all else in the same server before it.
        ...(serving === undefined ? ['set local synchronous_commit = off'] : []),
        'set constraints all deferred',
        ...deletions,
        ...carried('updated', inPlace),
        ...gone,
        ...carried('inserted', places),
        `execute last_compared (${compared.join(', ')}, ${literal(here)})`,
        ...(serving === undefined ? [] : [becoming(target, landing, 'fenced', serving)]),
      ].join(';'),
    );
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === DIFFERS || (inPlace.length > 0 && isInTheWay(error))) return false;
    throw error;
  }
  return true;
}
