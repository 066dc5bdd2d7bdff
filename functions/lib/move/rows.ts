import { quote, type Side } from './side.ts';
import type { MovedTable } from './tables.ts';

/** Keys as the capture writes them: a JSON object of the key's columns, here as one text for each. */
export type Keys = Map<MovedTable, Set<string>>;

export const list = (names: readonly string[], prefix = '') =>
  names.map((name) => prefix + quote(name)).join(', ');

export const keyNames = ({ key }: MovedTable) => key.map(({ name }) => name);

export const keyArray = (keys: ReadonlySet<string>) => `[${[...keys].join(',')}]`;

/** Rows of `k`: the keys that parameter `$1`, or a literal, holds. */
export const fromKeys = ({ name }: MovedTable, keys: string) =>
  `jsonb_populate_recordset(null::${quote(name)}, ${keys}::jsonb) k`;

export const sameKey = (table: MovedTable, left = 't', right = 'k') =>
  keyNames(table)
    .map((name) => `${left}.${quote(name)} = ${right}.${quote(name)}`)
    .join(' and ');

/** A row's content as one number; both servers compute it from the same text. */
export const rowHash = ({ columns }: MovedTable) => `hashtextextended(row(${list(columns, 't.')})::text, 0)`;

/** The key of a row of `t`, in the capture's form. */
export const keyObject = (table: MovedTable) =>
  `jsonb_build_object(${keyNames(table)
    .map((name) => `'${name.replaceAll("'", "''")}', t.${quote(name)}`)
    .join(', ')})::text`;

/** Each key's row as a number, of those that are there. In a transaction of `reading` or `writing`. */
export async function hashes({ connection }: Side, table: MovedTable, keys: ReadonlySet<string>) {
  const { rows } = await connection.query<{ key: string; hash: string }>(
    `select ${keyObject(table)} as key, ${rowHash(table)} as hash from ${fromKeys(table, '$1')} join ${quote(table.name)} t on ${sameKey(table)}`,
    [keyArray(keys)],
  );
  return new Map(rows.map(({ key, hash }) => [key, hash]));
}
