import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { everyTenant, type MasterKeys, signContext } from '../isolation/context.ts';
import { asRole } from '../isolation/homes.ts';
import { type Finding, type Home, isolations } from '../isolation/isolation.ts';
import { inOrder, type MigrationFile, readMigrations, refused } from './migration-file.ts';

const home = new URL('../../../migrations/home/', import.meta.url);
const tenant = new URL('../../../migrations/tenant/', import.meta.url);

/** What a home consists of: the product's own table, then the adopting team's. @throws as `readMigrations` */
export async function homeMigrations(): Promise<MigrationFile[]> {
  return inOrder([...(await readMigrations(home)), ...(await readMigrations(tenant))]);
}

/** All tenants on shared tables have one home to migrate. */
export const sharedHome: Home = {
  homeId: everyTenant,
  tenant: everyTenant,
  strategy: 'rls',
  ...isolations.rls.name(everyTenant),
  epoch: 1,
};

export interface MigrationTarget {
  readonly home: Home;
  /** For which the maintenance context is signed. */
  readonly databaseId: string;
  readonly keys: MasterKeys;
}

/** How long a migration waits for a table's lock, ms: whoever comes after it waits as long. */
const lockTimeout = 3_000;

/**
 * As tenancy_provisioner, in the home's database: applies what is pending, each file in a transaction of its own that
 * also completes and audits the home's tables. Two migrators of one home take turns.
 * @returns the names of the files applied
 * @throws TenantryError `migration_refused`: file, object and remedy; nothing of that file is left
 */
export async function migrateHome(
  connection: ControlConnection,
  target: MigrationTarget,
  files: readonly MigrationFile[],
  now = Date.now,
): Promise<string[]> {
  const applied: string[] = [];
  for (const file of files) if (await migrate(connection, target, file, now())) applied.push(file.name);
  return applied;
}

async function migrate(
  connection: ControlConnection,
  { home, databaseId, keys }: MigrationTarget,
  file: MigrationFile,
  now: number,
): Promise<boolean> {
  return asRole(connection, 'tenancy_owner', async () => {
    const tenant = isolations[home.strategy].ownsTables ? home.tenant : everyTenant;
    const context = signContext(
      keys,
      { databaseId, tenant, epoch: home.epoch, mode: 'w', purpose: 'migrate', statementMs: 0 },
      now,
    );
    await connection.query(
      `select set_config('tenancy.context', $1, true), set_config('tenancy.tenant', $2, true),
              set_config('search_path', $3, true), set_config('lock_timeout', $4, true),
              -- A key space of two integers: the call fence's keys are single ones.
              pg_advisory_xact_lock(hashtext('tenancy.migrate'), hashtext($5))`,
      [
        context,
        // Rows that a migration inserts into shared tables must say whose they are.
        tenant === everyTenant ? '' : tenant,
        `${home.schema}, extensions, pg_temp`,
        String(lockTimeout),
        home.schema,
      ],
    );
    await connection.query(
      'create table if not exists _migrations (name text primary key, checksum text not null, applied_at timestamptz not null default now())',
    );
    const { rows } = await connection.query<{ checksum: string }>(
      'select checksum from _migrations where name = $1',
      [file.name],
    );
    if (rows[0]?.checksum === file.checksum) return false;
    if (rows[0] !== undefined)
      throw refused(file.name, 'was edited after it was applied', 'restore it and add a new file');

    await runFile(connection, file);
    await isolations[home.strategy].protect(connection, home);
    const findings = await isolations[home.strategy].check(connection, home);
    if (findings.length > 0) throw unprotected(file, findings);
    await connection.query('insert into _migrations (name, checksum) values ($1, $2)', [
      file.name,
      file.checksum,
    ]);
    return true;
  });
}

async function runFile(connection: ControlConnection, file: MigrationFile): Promise<void> {
  const where = () =>
    connection.query<{ here: string }>(`select concat(pg_current_xact_id(), current_user) as here`);
  const before = await where();
  try {
    await connection.query(file.sql);
    // Constraints checked at the end are this file's too.
    await connection.query('set constraints all immediate');
  } catch (error) {
    const { message, code } = error as { message: string; code?: string };
    throw refused(
      file.name,
      `failed: ${message}${code === undefined ? '' : ` (SQLSTATE ${code})`}`,
      'correct it and run it again',
      error,
    );
  }
  const after = await where();
  if (before.rows[0]!.here !== after.rows[0]!.here)
    throw refused(file.name, 'left its transaction or role', 'leave transactions and roles to the migrator');
}

/** A migration that would leave something of the home unprotected. */
export class UnprotectedHomeError extends TenantryError {
  readonly file: string;
  readonly findings: readonly Finding[];
  constructor(file: string, findings: readonly Finding[]) {
    const lines = findings.map(({ object, finding, remedy }) => `  ${object}: ${finding}. ${remedy}.`);
    super('migration_refused', `${file} would leave the home unprotected:\n${lines.join('\n')}`);
    this.file = file;
    this.findings = findings;
  }
}

const unprotected = (file: MigrationFile, findings: readonly Finding[]) =>
  new UnprotectedHomeError(file.name, findings);
