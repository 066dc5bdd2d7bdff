import { type ControlConnection, withConnection } from '../database/connect.ts';
import type { Endpoint } from '../database/types.ts';
import { asRole } from '../isolation/homes.ts';

/** The primary key of a row, column by column, as text. */
export type Key = readonly string[];

/** Where the parts of large tables begin, kept in the home's database until the export has ended. */
export interface PartBegins {
  find(table: string, part: number): Promise<Key | undefined>;
  keep(table: string, part: number, key: Key): Promise<void>;
  /** All of the home, those of exports that failed too: one operation of a tenant runs at a time. */
  forget(): Promise<void>;
}

/** @returns undefined when the database's runtime knows none yet: then a table is one part */
export async function partBegins(
  admin: Endpoint,
  operationId: string,
  homeId: string,
): Promise<PartBegins | undefined> {
  // Beside the connection that reads: its transaction is read only, and lasts.
  const inHome = <T>(work: (connection: ControlConnection) => Promise<T>) =>
    withConnection(admin, (connection) => asRole(connection, 'tenancy_keeper', () => work(connection)));
  const { rows } = await inHome((connection) =>
    connection.query("select to_regclass('tenancy.exports') is not null as known"),
  );
  if (!rows[0]!.known) return undefined;
  return {
    find: (table, part) =>
      inHome(async (connection) => {
        const found = await connection.query<{ begins_at: string[] }>(
          'select begins_at from tenancy.exports where operation_id = $1 and table_name = $2 and part = $3',
          [operationId, table, part],
        );
        return found.rows[0]?.begins_at;
      }),
    keep: (table, part, key) =>
      inHome(async (connection) => {
        await connection.query(
          `insert into tenancy.exports (operation_id, table_name, part, home_id, begins_at) values ($1, $2, $3, $4, $5)
           on conflict (operation_id, table_name, part) do update set begins_at = excluded.begins_at`,
          [operationId, table, part, homeId, key],
        );
      }),
    forget: () =>
      inHome(async (connection) => {
        await connection.query('delete from tenancy.exports where home_id = $1', [homeId]);
      }),
  };
}
