import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { answersOf, type ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { catalogDatabase } from '../isolation/catalog-reader.ts';
import { keyPads, type MasterKeys } from '../isolation/context.ts';
import { asRole, authenticateBy } from '../isolation/homes.ts';
import { neverInstalled } from './extensions.ts';
import type { MigrationFile } from './migration-file.ts';
import { refused } from './refused.ts';

/** In a shared cluster, beside the catalog's. */
export const tenantsDatabase = 'tenantry';

const migrations = new URL('../../../migrations/', import.meta.url);

/**
 * As the cluster's master, once: makes the provisioner, which does everything else. `password`: undefined where logins
 * use IAM (a role's creator is implicitly its member, so the master must be able to use IAM too).
 */
export async function installProvisioner(
  master: ControlConnection,
  password: string | undefined,
): Promise<void> {
  await master.query(`
    do $$ begin
      if not exists (select from pg_roles where rolname = 'tenancy_provisioner') then
        create role tenancy_provisioner login createrole createdb;
      end if;
    end $$`);
  if (password !== undefined) return authenticateBy(master, 'tenancy_provisioner', password);
  // It lets the logins that it makes use IAM too. From here on the master's password is refused: whoever makes a role is
  // its member, and members of rds_iam have no password.
  await master.query('grant rds_iam to tenancy_provisioner with admin option');
}

/** As tenancy_provisioner, in any database of the cluster: the roles. Safe to repeat. `appPassword`: undefined where logins use IAM. */
export async function installRoles(
  connection: ControlConnection,
  appPassword: string | undefined,
): Promise<void> {
  await connection.query(await readFile(new URL('roles.sql', migrations), 'utf8'));
  await authenticateBy(connection, 'tenancy_app', appPassword);
}

/**
 * As tenancy_provisioner: makes a database that nobody may enter yet. Not of template1, into which every login may come and put
 * large objects. CREATE DATABASE knows no transaction and no IF NOT EXISTS.
 */
export async function createDatabase(connection: ControlConnection, name: string): Promise<void> {
  const { rows } = await connection.query('select from pg_database where datname = $1', [name]);
  if (rows.length === 0) {
    await connection
      .query(`create database "${name}" template template0`)
      .catch((error: { code?: string }) => {
        // 42P04, 23505: another installer was first.
        if (error.code !== '42P04' && error.code !== '23505') throw error;
      });
  }
  // RDS Proxy watches its server by a login of its own: AWS asks for its right to connect where PUBLIC has none.
  await connection.query(`
    revoke all on database "${name}" from public;
    do $$ begin
      if exists (select from pg_roles where rolname = 'rdsproxyadmin') then
        grant connect on database "${name}" to rdsproxyadmin;
      end if;
    end $$`);
}

/**
 * As tenancy_provisioner, in a database that shall hold tenants: schemas, runtime and signing keys. Safe to repeat, and
 * at every deployment.
 * @returns the database's id, for which contexts are signed
 */
export async function installRuntime(
  connection: ControlConnection,
  keys: MasterKeys,
  extensions: readonly string[],
  newId = randomUUID,
): Promise<string> {
  await connection.query(`
    revoke all on schema public from public;
    create schema if not exists tenancy authorization tenancy_keeper;
    create schema if not exists extensions;
    grant usage on schema extensions to tenancy_app, tenancy_tenants, tenancy_owner;`);
  await installExtensions(connection, extensions);
  const { rows } = await connection.query<{ name: string }>('select current_database() as name');
  await connection.query(`grant create on database "${rows[0]!.name}" to tenancy_owner`);
  await connection.query(`alter role tenancy_app in database "${rows[0]!.name}" reset all`);
  // The login of a database of its own is let in with its home, and nobody else.
  if (rows[0]!.name === tenantsDatabase)
    await connection.query(`grant connect on database "${tenantsDatabase}" to tenancy_app, tenancy_schemas`);
  await applyFiles(connection, 'tenancy', await runtimeMigrations());
  await asRole(connection, 'tenancy_owner', () => connection.query('create schema if not exists shared'));
  return installKeys(connection, keys, newId);
}

/** @throws TenantryError `invalid_settings`: one that reaches out of the database, or that this server lacks or does not trust us with */
async function installExtensions(connection: ControlConnection, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (neverInstalled.includes(name))
      throw notInstalled(name, 'leads past the walls between tenants', takeItOut);
    await connection
      .query(`create extension if not exists "${name}" schema extensions`)
      .catch((cause: { code?: string; message: string }) => {
        // 42501 not trusted; 0A000, 58P01, 22023 not there.
        if (!['42501', '0A000', '58P01', '22023'].includes(cause.code ?? '')) throw cause;
        throw notInstalled(name, cause.message, cause.code === '42501' ? takeItOut : orAnotherServer, cause);
      });
  }
}

const takeItOut = 'Take it out of the setting `extensions`';
const orAnotherServer = `${takeItOut}, or use a server that has it: RDS and Aurora list theirs for each version, \`npm start\` has those that come with PostgreSQL`;

const notInstalled = (name: string, why: string, remedy: string, cause?: unknown) =>
  new TenantryError('invalid_settings', `The extension ${name} can't be installed: ${why}. ${remedy}.`, {
    cause,
  });

/** The schema `tenancy`. @throws as `readMigrations` */
export const runtimeMigrations = () => ownMigrations('runtime/');

/** The product's own. What reads files is loaded with the first: most of who knows of them reads none. */
async function ownMigrations(folder: string): Promise<MigrationFile[]> {
  const { readMigrations } = await import('./migration-file.ts');
  return readMigrations(new URL(folder, migrations), 'product');
}

/** Whether the database is at these files, extensions and keys. */
export async function hasRuntime(
  connection: ControlConnection,
  keys: MasterKeys,
  files: readonly MigrationFile[],
  extensions: readonly string[],
): Promise<boolean> {
  const [{ rows: there }, { rows }] = await answersOf([
    connection.query<{ name: string }>('select extname as name from pg_extension'),
    asRole(connection, 'tenancy_keeper', () =>
      connection.query<{ names: string[]; ids: string[] }>(
        'select array(select name from tenancy._migrations) as names, array(select key_id from tenancy.keys) as ids',
      ),
    ),
  ]);
  const { names, ids } = rows[0]!;
  const installed = new Set(there.map(({ name }) => name));
  return (
    files.every(({ name }) => names.some(standsFor(name))) &&
    extensions.every((name) => installed.has(name)) &&
    ids.sort().join() === [...keys.keys.keys()].sort().join()
  );
}

/** As `installRuntime`, where the database is not there yet: a dedicated one follows with its migrations. */
export async function ensureRuntime(
  connection: ControlConnection,
  keys: MasterKeys,
  files: readonly MigrationFile[],
  extensions: readonly string[],
): Promise<void> {
  if (!(await hasRuntime(connection, keys, files, extensions)))
    await installRuntime(connection, keys, extensions);
}

/** Makes the database accept exactly the given master keys: two during a rotation, the retired one's pads gone after it. */
export async function installKeys(
  connection: ControlConnection,
  keys: MasterKeys,
  newId = randomUUID,
): Promise<string> {
  return asRole(connection, 'tenancy_keeper', async () => {
    await connection.query('lock table tenancy.keys in exclusive mode');
    const known = await connection.query<{ database_id: string }>(
      'select database_id from tenancy.keys limit 1',
    );
    const databaseId = known.rows[0]?.database_id ?? newId();
    await connection.query('delete from tenancy.keys where key_id <> all ($1)', [[...keys.keys.keys()]]);
    for (const [keyId, master] of keys.keys) {
      const { inner, outer } = keyPads(master, databaseId);
      await connection.query(
        `insert into tenancy.keys (key_id, database_id, inner_pad, outer_pad) values ($1, $2, $3, $4)
         on conflict (key_id) do update set inner_pad = excluded.inner_pad, outer_pad = excluded.outer_pad`,
        [keyId, databaseId, inner, outer],
      );
    }
    return databaseId;
  });
}

/** As tenancy_provisioner, in the catalog's database. Safe to repeat. `readerPassword`: undefined where logins use IAM. */
export async function installCatalog(
  connection: ControlConnection,
  readerPassword: string | undefined,
): Promise<void> {
  await connection.query(await readFile(new URL('catalog-roles.sql', migrations), 'utf8'));
  await authenticateBy(connection, 'tenancy_catalog_reader', readerPassword);
  await connection.query(`
    revoke all on schema public from public;
    grant connect on database "${catalogDatabase}" to tenancy_catalog_reader;
    create schema if not exists catalog authorization tenancy_keeper;`);
  await applyFiles(connection, 'catalog', await ownMigrations('catalog/'));
}

const anew = 'take a new database (`npm start -- --fresh`)';

/**
 * The functions of a schema are one migration, which replaces them all, and gets another number with every release that changes one. Code
 * of the release before finds a newer one here while a deployment is under way, and leaves it.
 */
const functions = /^\d{4}-functions\.sql$/;
const standsFor = (name: string) => (there: string) =>
  there === name || (functions.test(name) && functions.test(there) && there > name);

/** The product's own migrations: each in its own transaction, as the keeper, recorded in the schema they build. */
async function applyFiles(
  connection: ControlConnection,
  schema: string,
  files: readonly MigrationFile[],
): Promise<void> {
  await asRole(connection, 'tenancy_keeper', () =>
    connection.query(`create table if not exists ${schema}._migrations
      (name text primary key, checksum text not null, applied_at timestamptz not null default now())`),
  );
  for (const file of files) {
    await asRole(connection, 'tenancy_keeper', async () => {
      await connection.query(`lock table ${schema}._migrations in exclusive mode`);
      const { rows } = await connection.query<{ name: string; checksum: string }>(
        `select name, checksum from ${schema}._migrations order by name desc`,
      );
      const there = rows.find((row) => standsFor(file.name)(row.name));
      if (there === undefined) {
        await connection.query(file.sql).catch((cause: { code?: string }) => {
          // 42P07 duplicate table: the first release's files make all of it at once.
          if (cause.code !== '42P07') throw cause;
          throw refused(
            `${schema}/${file.name}`,
            'makes what is there already, by files from before the first release',
            anew,
            cause,
          );
        });
        if (functions.test(file.name))
          await connection.query(`delete from ${schema}._migrations where name ~ $1`, [functions.source]);
        await connection.query(`insert into ${schema}._migrations (name, checksum) values ($1, $2)`, [
          file.name,
          file.checksum,
        ]);
      } else if (there.name === file.name && there.checksum !== file.checksum) {
        throw refused(
          `${schema}/${file.name}`,
          'was edited after it was applied',
          functions.test(file.name)
            ? `give its folder the next number; before that is released, ${anew}`
            : `restore it; before the first release, ${anew}`,
        );
      }
    });
  }
}
