import { identifier, literal } from '../database/connect.ts';
import type { Side } from './side.ts';
import type { MovedTable } from './tables.ts';

/** Keys as the capture writes them: a JSON object of the text of each of the key's columns, here as one text for each key. */
export type Keys = Map<MovedTable, Set<string>>;

export const list = (names: readonly string[], prefix = '') =>
  names.map((name) => prefix + identifier(name)).join(', ');

export const keyNames = ({ key }: MovedTable) => key.map(({ name }) => name);

export const keyArray = (keys: ReadonlySet<string>) => `[${[...keys].join(',')}]`;

/**
 * Rows of `k`: the keys that parameter `$1`, or a literal, holds. Nothing else of a row, whose columns may refuse a null.
 * `offset 0`: a cast is not leakproof, and beside one in a condition row security would let no index find the rows.
 */
export const fromKeys = ({ key }: MovedTable, keys: string) => {
  const read = key.map(({ name, type }) => `${identifier(name)}::${type} as ${identifier(name)}`).join(', ');
  const texts = key.map(({ name }) => `${identifier(name)} text`).join(', ');
  return `(select ${read} from jsonb_to_recordset(${keys}::jsonb) as texts(${texts}) offset 0) k`;
};

/** For where PostgreSQL takes no parameters. A key is JSON that it has written itself. */
export const keyLiteral = (keys: ReadonlySet<string>) => literal(keyArray(keys));

export const sameKey = (table: MovedTable, left = 't', right = 'k') =>
  keyNames(table)
    .map((name) => `${left}.${identifier(name)} = ${right}.${identifier(name)}`)
    .join(' and ');

/** A row of `t` as PostgreSQL reads it: each column in the text that COPY writes. */
export const rowText = ({ columns }: MovedTable) => `row(${list(columns, 't.')})::text`;

/** A row's content as one number; both servers compute it from the same text. */
export const rowHash = (table: MovedTable) => `hashtextextended(${rowText(table)}, 0)`;

/** The key of a row of `t`, in the capture's form. */
export const keyObject = (table: MovedTable, of = 't') =>
  `jsonb_build_object(${keyNames(table)
    .map((name) => `${literal(name)}, concat(${of}.${identifier(name)})`)
    .join(', ')})::text`;

/** Of each key's row that is there its number: one question for all tables. */
export const hashes = (keys: Keys, literal: (place: number, keys: ReadonlySet<string>) => string): string =>
  [...keys]
    .map(
      ([table, of], place) =>
        `select ${place} as place, ${keyObject(table)} as key, ${rowHash(table)} as hash
           from ${fromKeys(table, literal(place, of))} join ${identifier(table.name)} t on ${sameKey(table)}`,
    )
    .join(' union all ');

export type Hashes = Map<MovedTable, Map<string, string>>;

/** In a transaction of `reading` or `writing`. */
export async function hashesOf({ connection }: Side, keys: Keys): Promise<Hashes> {
  if (keys.size === 0) return new Map();
  const { rows } = await connection.query<{ place: number; key: string; hash: string }>(
    hashes(keys, (place) => `$${place + 1}`),
    [...keys.values()].map(keyArray),
  );
  const tables = [...keys.keys()];
  const found: Hashes = new Map(tables.map((table) => [table, new Map()]));
  for (const { place, key, hash } of rows) found.get(tables[place]!)!.set(key, hash);
  return found;
}
