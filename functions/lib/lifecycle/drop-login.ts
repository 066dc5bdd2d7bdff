import { type ControlConnection, withConnection } from '../database/connect.ts';
import { freeLogin } from '../isolation/homes.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';

/**
 * Does `remove`, which drops a home's login last and is safe to repeat. Whoever has a login on the cluster may grant this one
 * something of its own, a large object or default privileges: in any database, and PostgreSQL then drops it no more.
 */
export async function droppingLogin(
  plane: ControlPlane,
  at: { clusterId: string; adminHost: string; adminPort: number; database: string },
  login: string,
  remove: () => Promise<void>,
): Promise<void> {
  try {
    return await remove();
  } catch (error) {
    if ((error as { code?: string }).code !== '2BP01') throw error;
  }
  const databases = await withConnection(endpointOf(plane, at, 'postgres'), (connection) =>
    databasesOf(connection, login),
  );
  for (const database of databases)
    await withConnection(endpointOf(plane, at, database), (connection) => freeLogin(connection, login));
  await remove();
}

/** In which something depends on the login. */
async function databasesOf(connection: ControlConnection, login: string): Promise<string[]> {
  const { rows } = await connection.query<{ name: string }>(
    `select distinct d.datname::text as name from pg_shdepend s join pg_database d on d.oid = s.dbid
      where s.refclassid = 'pg_authid'::regclass and s.refobjid = (select oid from pg_roles where rolname = $1)`,
    [login],
  );
  return rows.map(({ name }) => name);
}
