import { identifier } from '../database/connect.ts';
import { fromKeys, keyNames, list, sameKey } from './rows.ts';
import type { MovedTable } from './tables.ts';

/**
 * Tables at which foreign keys point that do something, or refuse, when a row is deleted. Of theirs only those go that are
 * gone from the source, and the others are changed where they are: as often as a parent is written to, all its children
 * would go and come again.
 */
export function keptTables(tables: readonly MovedTable[]): ReadonlySet<MovedTable> {
  const parents = new Set(tables.flatMap(({ actsOn }) => actsOn.map(({ parent }) => parent)));
  return new Set(tables.filter(({ name }) => parents.has(name)));
}

/**
 * Of rows that are on both sides what `from` says of them. Identities can't be written by an update: a row with another one
 * differs afterwards.
 * @param from rows of the table, as an item of a FROM that is called `s`
 */
export function updating(table: MovedTable, from: string): string {
  const { name, given, identities } = table;
  const set = given
    .filter((column) => column !== 'tenant_id' && !identities.includes(column))
    .map((column) => `${identifier(column)} = s.${identifier(column)}`);
  // Where there is nothing to write, a row is the same as soon as it is there; what is prepared has to be a statement.
  if (set.length === 0) return 'select where false';
  return `update ${identifier(name)} t set ${set.join(', ')} from ${from} where ${sameKey(table, 't', 's')}`;
}

/** Those of `from` that are not there. */
export const adding = (table: MovedTable, from: string): string =>
  `insert into ${identifier(table.name)} (${list(table.given)}) overriding system value select ${list(table.given, 's.')} from ${from}
     where not exists (select from ${identifier(table.name)} t where ${sameKey(table, 't', 's')})`;

/** Those of the keys that `from`, the source's rows of these keys, does not have. */
export const deletingGone = (table: MovedTable, keys: string, from: string): string =>
  `delete from ${identifier(table.name)} t using (select ${list(keyNames(table))} from ${fromKeys(table, keys)}
     except select ${list(keyNames(table), 's.')} from ${from}) k where ${sameKey(table)}`;

/** Of an error in what is carried in place: two rows have exchanged what is unique, or one may not go before another. */
export const isInTheWay = (error: unknown): boolean =>
  String((error as { code?: unknown }).code).startsWith('23') ||
  (error as { code?: unknown }).code === 'move_differs';
