import {
  type ControlConnection,
  identifier,
  withConnection,
} from '../../../functions/lib/database/connect.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import { contextOf, type Party } from './party.ts';

export const relationOf = (schema: string, table: string) => `${identifier(schema)}.${identifier(table)}`;

/** Runs `work` in a transaction of the party's, as a tool's call would. */
export async function entered<T>(
  keys: MasterKeys,
  party: Party,
  work: (connection: ControlConnection) => Promise<T>,
): Promise<T> {
  return withConnection(party.endpoint, async (connection) => {
    await connection.query('begin isolation level read committed');
    await connection.query('select tenancy.enter($1)', [contextOf(keys, party)]);
    const result = await work(connection);
    await connection.query('commit');
    return result;
  });
}

/** What the party's home has that its tools can reach, whoever made it, from the catalogs. */
export interface Relations {
  readonly tables: readonly string[];
  /** They can only be read, and have no rows of their own. */
  readonly views: readonly string[];
}

export async function relationsOf(keys: MasterKeys, party: Party): Promise<Relations> {
  return entered(keys, party, async (connection) => {
    const { rows } = await connection.query<{ relname: string; has_rows: boolean }>(
      `select relname, relkind in ('r', 'p') as has_rows from pg_class where relnamespace = (select oid from pg_namespace where nspname = $1)
          and relkind in ('r', 'p', 'v', 'm') and not relispartition and has_table_privilege(oid, 'select') order by relname`,
      [party.schema],
    );
    const named = (hasRows: boolean) =>
      rows.filter(({ has_rows }) => has_rows === hasRows).map(({ relname }) => relname);
    return { tables: named(true), views: named(false) };
  });
}

export interface Sample {
  /** Per table: one row as JSON text; none where there is none. */
  readonly rows: ReadonlyMap<string, string>;
  /** Per table: the columns that can be written, quoted. */
  readonly columns: ReadonlyMap<string, readonly string[]>;
  /** Per table: the columns of each of its unique keys but tenant_id, quoted. */
  readonly keys: ReadonlyMap<string, readonly (readonly string[])[]>;
  /** Values that nobody but the party has: seen elsewhere, they have leaked. */
  readonly markers: readonly string[];
}

/** Shorter values are not telling: they occur everywhere. */
const TELLING = 12;
const SAMPLED_ROWS = 40;

/** What of the party's rows would betray a leak. */
export async function sampleOf(
  keys: MasterKeys,
  party: Party,
  relations: readonly string[],
): Promise<Sample> {
  return entered(keys, party, async (connection) => {
    const rows = new Map<string, string>();
    const columns = new Map<string, string[]>();
    const uniqueKeys = new Map<string, string[][]>();
    const markers = new Set<string>();
    for (const table of relations) {
      const relation = relationOf(party.schema, table);
      const found = await someRows(connection, relation);
      if (found[0]) rows.set(table, found[0].json);
      const { rows: writable } = await connection.query<{ attname: string }>(
        `select attname from pg_attribute where attrelid = '${relation}'::regclass and attnum > 0 and not attisdropped
            and attgenerated = '' and attidentity <> 'a' order by attnum`,
      );
      columns.set(
        table,
        writable.map(({ attname }) => identifier(attname)),
      );
      const { rows: unique } = await connection.query<{ columns: string[] }>(
        `select array(select quote_ident(a.attname) from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey)
                         and a.attname <> 'tenant_id') as columns
           from pg_index i where i.indrelid = '${relation}'::regclass and i.indisunique`,
      );
      uniqueKeys.set(
        table,
        unique.map(({ columns }) => columns).filter(({ length }) => length > 0),
      );
      for (const value of found.flatMap(({ values }) => values)) {
        if (value?.length >= TELLING && value !== party.tenant)
          for (const shown of spellingsOf(value)) markers.add(shown);
      }
    }
    return { rows, columns, keys: uniqueKeys, markers: [...markers] };
  });
}

/** None of a view that fails, over rows that it was not made for. */
async function someRows(
  connection: ControlConnection,
  relation: string,
): Promise<{ json: string; values: string[] }[]> {
  await connection.query('savepoint here');
  try {
    const { rows } = await connection.query<{ json: string; values: string[] }>(
      `select row_to_json(t)::text as json, array(select value from json_each_text(row_to_json(t))) as values
         from ${relation} t order by md5(t::text) limit ${SAMPLED_ROWS}`,
    );
    return rows;
  } catch {
    await connection.query('rollback to here');
    return [];
  }
}

/** A time is written in two ways: by JSON, and in tables and errors. */
export const spellingsOf = (value: string): readonly string[] => [value, value.replace('T', ' ')];
