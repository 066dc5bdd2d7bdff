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

/** For where PostgreSQL takes no parameters. A key is JSON that it has written itself. */
export const keyLiteral = (keys: ReadonlySet<string>) => `'${keyArray(keys).replaceAll("'", "''")}'`;

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

/** Each key's row as a number, of those that are there: one question for all tables. In a transaction of `reading` or `writing`. */
export async function hashesOf(
  { connection }: Side,
  keys: Keys,
): Promise<Map<MovedTable, Map<string, string>>> {
  const tables = [...keys.keys()];
  const found = new Map(tables.map((table) => [table, new Map<string, string>()]));
  if (tables.length === 0) return found;
  const { rows } = await connection.query<{ place: number; key: string; hash: string }>(
    tables
      .map(
        (table, place) =>
          `select ${place} as place, ${keyObject(table)} as key, ${rowHash(table)} as hash
             from ${fromKeys(table, `$${place + 1}`)} join ${quote(table.name)} t on ${sameKey(table)}`,
      )
      .join(' union all '),
    tables.map((table) => keyArray(keys.get(table)!)),
  );
  for (const { place, key, hash } of rows) found.get(tables[place]!)!.set(key, hash);
  return found;
}
