import { readFile, writeFile } from 'node:fs/promises';
import {
  type ControlConnection,
  identifier,
  literal,
  withConnection,
} from '../../../functions/lib/database/connect.ts';
import type { PostgresServer } from '../postgres.ts';

/**
 * Makes (or gives a new password to) the master role, with no more than RDS's has: no superuser, no BYPASSRLS.
 * The only use of the embedded superuser. May be repeated after a crash at any point.
 */
export async function makeMaster(
  server: PostgresServer,
  master: string,
  password: string,
  database: string | undefined,
): Promise<void> {
  const superuser = {
    host: server.host,
    port: server.port,
    database: 'postgres',
    login: 'postgres',
    password: async () => server.superuserPassword,
    tls: 'off' as const,
  };
  await withConnection(superuser, async (connection) => {
    const name = identifier(master);
    if (!(await exists(connection, 'select from pg_roles where rolname = $1', master))) {
      await connection.query(
        `create role ${name} login nosuperuser createrole createdb nobypassrls noreplication`,
      );
    }
    await connection.query(`alter role ${name} password ${literal(password)}`);
    if (!(await exists(connection, 'select from pg_roles where rolname = $1', 'rds_iam'))) {
      await connection.query('create role rds_iam nologin');
    }
    await connection.query(`grant rds_iam to ${name} with admin option`);
    await keepPassword(connection, name);
    if (
      database !== undefined &&
      !(await exists(connection, 'select from pg_database where datname = $1', database))
    ) {
      await connection.query(`create database ${identifier(database)} owner ${name}`);
    }
  });
}

/**
 * Who administers `rds_iam` counts as its member, and members' passwords are refused. RDS's own master may grant
 * the role and keep its password: a line of its own before that rule does the same.
 */
async function keepPassword(connection: ControlConnection, name: string): Promise<void> {
  const { rows } = await connection.query("select setting from pg_settings where name = 'hba_file'");
  const file = rows[0]!.setting as string;
  const rules = await readFile(file, 'utf8');
  const rule = `host all ${name} 127.0.0.1/32 scram-sha-256\n`;
  if (rules.includes(rule)) return;
  await writeFile(file, rule + rules);
  await connection.query('select pg_reload_conf()');
}

const exists = async (connection: ControlConnection, query: string, name: string) =>
  (await connection.query(query, [name])).rowCount === 1;
