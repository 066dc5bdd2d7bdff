import { identifier } from '../database/connect.ts';
import { atOnce } from './at-once.ts';
import type { Sides } from './catch-up.ts';
import { requireSame } from './diff.ts';
import { adding, deletingGone, isInTheWay, keptTables, updating } from './in-place.ts';
import {
  fromKeys,
  hashesOf,
  type Keys,
  keyArray,
  keyLiteral,
  keyNames,
  keyObject,
  list,
  sameKey,
} from './rows.ts';
import type { Side } from './side.ts';
import { isStaged, stagedName } from './staging.ts';
import type { MovedTable } from './tables.ts';

/**
 * How the rows of these keys come over: what goes with the BEGIN of the target's transaction, and what follows it. Every
 * row is then the same on both sides, or `carry` throws.
 */
export function carrying(
  sides: Sides,
  keys: Keys,
  hasLanded: boolean,
): { readonly first: string; readonly carry: () => Promise<void> } {
  const of = touched(sides.tables, keys);
  const kept = keptTables(sides.tables);
  const inPlace = of.filter(({ table }) => kept.has(table));
  if (hasLanded && inPlace.length > 0) {
    const others = of.filter(({ table }) => !kept.has(table));
    return {
      first: 'savepoint in_place',
      carry: () =>
        carryInPlace(sides, keys, inPlace, others).catch((error) => carryAfresh(sides, keys, error)),
    };
  }
  return {
    first: deletions(sides, of, keys, hasLanded),
    carry: async () => {
      await insert(sides, of, keys, hasLanded);
      if (hasLanded) await compare(sides, keys);
    },
  };
}

interface Touched {
  readonly table: MovedTable;
  readonly index: number;
}

const touched = (tables: readonly MovedTable[], keys: Keys): Touched[] =>
  tables.flatMap((table, index) => (keys.has(table) ? [{ table, index }] : []));

/** All of them first: two rows may have exchanged what is unique. */
const deletions = (
  { target }: Pick<Sides, 'target'>,
  of: readonly Touched[],
  keys: Keys,
  hasLanded: boolean,
) =>
  atOnce(
    of
      .toReversed()
      .map(
        ({ table, index }) =>
          `delete from ${nameIn(target, table, index, hasLanded)} t using ${fromKeys(table, keyLiteral(keys.get(table)!))} where ${sameKey(table)}`,
      ),
  );

/** So that no row goes which others would go with, unless it is gone from the source. */
async function carryInPlace(
  sides: Sides,
  keys: Keys,
  inPlace: readonly Touched[],
  others: readonly Touched[],
): Promise<void> {
  const { source, target } = sides;
  for (const { table, index } of inPlace)
    await copyRowsOf(source, target, table, keys, stagedName(target, index));
  const from = ({ index }: Touched) => `${stagedName(target, index)} s`;
  await target.connection.query(
    [
      deletions(sides, others, keys, true),
      ...inPlace.map((of) => updating(of.table, from(of))),
      ...inPlace.toReversed().map((of) => deletingGone(of.table, keyLiteral(keys.get(of.table)!), from(of))),
      ...inPlace.map((of) => adding(of.table, from(of))),
      ...inPlace.map(({ index }) => `delete from ${stagedName(target, index)}`),
    ]
      .filter((statement) => statement !== '')
      .join(';'),
  );
  await insert(sides, others, keys, true);
  await compare(sides, keys);
}

/** What can't be carried in place: all of these rows go, with those that would go with them, and come again. */
async function carryAfresh(sides: Sides, keys: Keys, error: unknown): Promise<void> {
  const { target, tables } = sides;
  if (!isInTheWay(error)) throw error;
  await target.connection.query('rollback to savepoint in_place');
  await addDependents(target, tables, keys);
  const of = touched(tables, keys);
  await target.connection.query(deletions(sides, of, keys, true));
  await insert(sides, of, keys, true);
  await compare(sides, keys);
}

/**
 * Rows of the target that would change or refuse by themselves when a row that they point at is deleted, to be inserted
 * again: they are deleted first, and carried over with the others.
 */
async function addDependents(target: Side, tables: readonly MovedTable[], keys: Keys): Promise<void> {
  const byName = new Map(tables.map((table) => [table.name, table]));
  let fresh: Keys = new Map([...keys].map(([table, of]) => [table, new Set(of)]));
  while (fresh.size > 0) {
    const next: Keys = new Map();
    for (const table of tables)
      for (const { parent, columns, parentColumns } of table.actsOn) {
        const of = fresh.get(byName.get(parent)!);
        if (of === undefined) continue;
        const points = columns
          .map((name, at) => `t.${identifier(name)} = p.${identifier(parentColumns[at]!)}`)
          .join(' and ');
        const { rows } = await target.connection.query<{ key: string }>(
          `select distinct ${keyObject(table)} as key from ${fromKeys(byName.get(parent)!, '$1')}
             join ${identifier(parent)} p on ${sameKey(byName.get(parent)!, 'p')} join ${identifier(table.name)} t on ${points}`,
          [keyArray(of)],
        );
        const known = keys.get(table) ?? new Set();
        const added = rows.map(({ key }) => key).filter((key) => !known.has(key));
        if (added.length === 0) continue;
        keys.set(table, new Set([...known, ...added]));
        next.set(table, new Set([...(next.get(table) ?? []), ...added]));
      }
    fresh = next;
  }
}

const nameIn = (target: Side, table: MovedTable, index: number, hasLanded: boolean) =>
  !hasLanded && isStaged(target, table) ? stagedName(target, index) : identifier(table.name);

async function insert(
  { source, target }: Pick<Sides, 'source' | 'target'>,
  of: readonly Touched[],
  keys: Keys,
  hasLanded: boolean,
): Promise<void> {
  const waiting: string[] = [];
  for (const { table, index } of of) {
    const given = list(table.given);
    const staged = isStaged(target, table);
    const into = staged ? stagedName(target, index) : identifier(table.name);
    await copyRowsOf(source, target, table, keys, into);
    if (staged && hasLanded)
      waiting.push(
        `insert into ${identifier(table.name)} (${given}) overriding system value select ${given} from ${into}; delete from ${into}`,
      );
  }
  if (waiting.length > 0) await target.connection.query(waiting.join(';'));
}

const copyRowsOf = (source: Side, target: Side, table: MovedTable, keys: Keys, into: string) =>
  source.connection.stream(
    `copy (select ${list(table.columns, 't.')} from (select distinct ${list(keyNames(table))} from ${fromKeys(table, keyLiteral(keys.get(table)!))}) k
       join ${identifier(table.name)} t on ${sameKey(table)}) to stdout`,
    target.connection,
    `copy ${into} (${list(table.columns)}) from stdin`,
  );

/** Every changed row, as each side itself reads it. @throws TenantryError `move_differs` */
async function compare({ source, target }: Pick<Sides, 'source' | 'target'>, keys: Keys): Promise<void> {
  const [here, there] = await Promise.all([hashesOf(source, keys), hashesOf(target, keys)]);
  requireSame(keys, here, there);
}
