import { setTimeout as sleep } from 'node:timers/promises';
import { answersOf, type ControlConnection, inTransaction, literal } from '../database/connect.ts';
import { RetryableError } from '../errors.ts';
import type { HomeState } from '../tenant/tenant.ts';
import { connectionLimit } from './connections.ts';
import type { Finding, Home, Scope } from './isolation.ts';

/** Runs `work` in one transaction with another role's rights: the provisioner has an owner's power only where it says so. */
export const asRole = <T>(
  connection: ControlConnection,
  role: 'tenancy_keeper' | 'tenancy_owner',
  work: () => Promise<T>,
  begin = 'begin',
): Promise<T> => inTransaction(connection, work, `${begin}; set local role ${role}`);

/** Values of a script, which takes no parameters: ids, names and states that we made, and no other text. */
const listed = (values: readonly string[]) => values.map((value) => `'${value}'`).join(', ');

/** Writes a home into its own database, which is what admits or refuses calls: one text of a transaction. Keeps what is there. */
const registration = (
  { homeId, tenant, login, schema, epoch }: Home,
  state: 'provisioning' | 'open',
) => `set local role tenancy_keeper;
  insert into tenancy.homes (home_id, tenant_id, login, schema_name, epoch, state)
  values (${listed([homeId, tenant, login, schema])}, ${epoch}, '${state}') on conflict (home_id) do nothing;`;

/** A home in shared tables, which needs nothing else: one round trip. */
export async function registerHome(
  connection: ControlConnection,
  home: Home,
  state: 'provisioning' | 'open',
): Promise<void> {
  await connection.query(registration(home, state));
}

/**
 * Login, schema and home of a tenant with tables of its own, in one round trip; the tables come with the migrations. All
 * or nothing. Several at once collide on catalogs that all of them write: retried.
 */
export async function makeOwnHome(
  connection: ControlConnection,
  home: Home,
  password: string | undefined,
  entry: Entry,
): Promise<void> {
  await retryOnCatalogCollision(() =>
    connection.query(`${loginOf(home.login, entry)}
      ${authentication(home.login, password)};
      set local role tenancy_owner;
      create schema if not exists ${home.schema};
      ${registration(home, 'provisioning')}`),
  );
}

/** Changes a home's state in its own database; a call that begins after the commit sees it. @returns false when it was in none of the states `from` */
export async function changeHomeState(
  connection: ControlConnection,
  homeId: string,
  from: readonly HomeState[],
  to: HomeState,
): Promise<boolean> {
  const { rowCount } = await connection.query(
    `set local role tenancy_keeper;
     update tenancy.homes set state = '${to}' where home_id = '${homeId}' and state in (${listed(from)})`,
  );
  return rowCount === 1;
}

/** Takes the home out of its own database, with what was noted for a move of it: once, because the tenant's next home may have its schema. */
export async function forgetHome(
  connection: ControlConnection,
  { homeId, tenant, schema }: Pick<Home, 'homeId' | 'tenant' | 'schema'>,
): Promise<void> {
  await asRole(connection, 'tenancy_keeper', async () => {
    const { rowCount } = await connection.query('delete from tenancy.homes where home_id = $1', [homeId]);
    if (rowCount !== 1) return;
    await connection.query('delete from tenancy.changes where tenant_id = $1 and schema_name = $2', [
      tenant,
      schema,
    ]);
    await connection.query('delete from tenancy.imports where tenant_id = $1', [tenant]);
  });
}

/**
 * Waits until no call that was admitted before the home's state changed is still writing: every writer holds the fence to
 * its transaction's end, which its login's timeouts bound. By asking again: who waits for the lock itself would hold up
 * those that are to be refused.
 * @throws RetryableError `busy`
 */
export async function awaitWriters(connection: ControlConnection, homeId: string): Promise<void> {
  for (let waited = 0; waited <= writersEnd; waited += 100) {
    const { rows } = await asRole(connection, 'tenancy_keeper', () =>
      connection.query(
        'select pg_try_advisory_xact_lock(lock_key) as got from tenancy.homes where home_id = $1',
        [homeId],
      ),
    );
    if (rows[0]?.got !== false) return;
    await sleep(100);
  }
  throw new RetryableError('busy', 'A call that began before the tenant was closed is still writing.', 5);
}

/** A statement ends after 30 s, an idle transaction after 60. ms */
const writersEnd = 65_000;

/**
 * How a login gets into its database and into no other one. The shared database lets a group in, because its access list
 * holds 2,442 names at most.
 */
export type Entry = 'tenancy_schemas' | 'its own database';

/** A login with rights on one home, and the group's right to enter. */
const loginOf = (login: string, entry: Entry) => `
  do $$ begin
    if not exists (select from pg_roles where rolname = '${login}') then
      create role ${login} login connection limit ${connectionLimit};
    end if;
  end $$;
  grant tenancy_tenants to ${login} with inherit true, set false;
  alter role ${login} reset all;
  alter role ${login} set search_path = '';
  alter role ${login} set statement_timeout = '30s';
  alter role ${login} set lock_timeout = '5s';
  alter role ${login} set idle_in_transaction_session_timeout = '60s';
  do $$ begin
    ${entry === 'its own database' ? `execute format('grant connect on database %I to ${login}', current_database())` : `grant ${entry} to ${login} with inherit true, set false`};
  end $$;`;

/**
 * A database that held one home, with whoever is connected to it, and that home's login. Done when they are not there.
 * @throws RetryableError `busy` while the server itself is at work in it
 */
export async function dropDatabase(
  connection: ControlConnection,
  name: string,
  login: string,
): Promise<void> {
  await endSessions(connection, login);
  try {
    await connection.query(`drop database if exists "${name}" with (force)`);
  } catch (error) {
    // The server's own workers (autovacuum) may not be ended by us, but without force it asks them itself and waits.
    if ((error as { code?: string }).code !== '42501') throw error;
    await connection.query(`drop database if exists "${name}"`).catch((cause) => {
      if (cause.code !== '55006') throw cause;
      throw new RetryableError('busy', 'The server is at work in a database that is to be dropped.', 5, {
        cause,
      });
    });
  }
  await connection.query(`drop role if exists ${login}`);
}

/** Nobody gets in with this login any more, and who is in is put out. Done when there is no such login. */
export async function endSessions(connection: ControlConnection, login: string): Promise<void> {
  await connection.query(`
    do $$ begin
      if exists (select from pg_roles where rolname = '${login}') then
        alter role ${login} nologin;
        -- Ending another role's sessions takes that role's rights.
        grant ${login} to tenancy_provisioner with inherit true;
      end if;
    end $$`);
  await connection.query('select pg_terminate_backend(pid) from pg_stat_activity where usename = $1', [
    login,
  ]);
}

/**
 * In one database: what keeps a login that nobody uses any more from being dropped. Rights on a large object only its owner's power
 * takes away, which the provisioner gives itself for as long; all of them, because who has one with a grant option passes it on.
 */
export async function freeLogin(connection: ControlConnection, login: string): Promise<void> {
  await connection.query(`
    do $$ declare given record; grantee text; begin
      for given in
        select m.oid, m.lomacl, m.lomowner::regrole as owner from pg_largeobject_metadata m
         where m.lomowner <> to_regrole('${login}') and exists (select from aclexplode(m.lomacl) a where a.grantee = to_regrole('${login}'))
      loop
        execute format('grant %s to tenancy_provisioner with inherit true', given.owner);
        for grantee in
          select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end from aclexplode(given.lomacl) a
           where a.grantor = (select m.lomowner from pg_largeobject_metadata m where m.oid = given.oid) and a.grantee <> a.grantor
        loop
          execute format('revoke all on large object %s from %s cascade', given.oid, grantee);
        end loop;
        execute format('revoke %s from tenancy_provisioner granted by tenancy_provisioner', given.owner);
      end loop;
      if exists (select from pg_roles where rolname = '${login}') then
        drop owned by ${login};
      end if;
    end $$`);
}

/** By an IAM token, or by a password. */
export async function authenticateBy(
  connection: ControlConnection,
  login: string,
  password: string | undefined,
): Promise<void> {
  await connection.query(authentication(login, password));
}

const authentication = (login: string, password: string | undefined) =>
  password === undefined ? `grant rds_iam to ${login}` : `alter role ${login} password ${literal(password)}`;

/** `XX000 tuple concurrently updated`, and a role or grant that another creator made first. */
async function retryOnCatalogCollision<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      const { code } = error as { code?: string };
      if (attempt === 5 || !['XX000', '42710', '23505', '40001', '40P01'].includes(code ?? '')) throw error;
    }
  }
}

const columns = (homes: readonly Home[]) => [
  homes.map(({ schema }) => schema),
  homes.map(({ tenant }) => tenant),
  homes.map(({ login }) => login),
];

/** Adds what the tables of the homes lack, and audits them: for all of them at once. */
export async function complete(
  connection: ControlConnection,
  homes: readonly Home[],
  scope: Scope,
  shared: boolean,
): Promise<Finding[]> {
  if (scope === 'whole') {
    const [, found, strays] = await answersOf([
      connection.query('select tenancy.protect_homes($1, $2, $3, $4)', [...columns(homes), shared]),
      audit(connection, homes, shared),
      connection.query<Finding>(
        'select home_schema as schema, object, finding, remedy from tenancy.audit_strays($1)',
        [homes.map(({ schema }) => schema)],
      ),
    ]);
    return [...found, ...strays.rows];
  }
  const { rows } = await connection.query<Finding>(
    'select home_schema as schema, object, finding, remedy from tenancy.complete_changes($1, $2, $3, $4)',
    [...columns(homes), shared],
  );
  return rows;
}

/** The audit's rows for the homes: one statement for all of them. */
export async function audit(
  connection: ControlConnection,
  homes: readonly Home[],
  shared: boolean,
): Promise<Finding[]> {
  const { rows } = await connection.query<Finding>(
    'select home_schema as schema, object, finding, remedy from tenancy.audit_homes($1, $2, $3, $4)',
    [...columns(homes), shared],
  );
  return rows;
}
