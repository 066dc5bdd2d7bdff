import { randomUUID } from 'node:crypto';
import { recordSchemaState } from '../functions/lib/catalog/migration-runs.ts';
import { recordTenant } from '../functions/lib/catalog/tenants.ts';
import { type ControlConnection, openConnection } from '../functions/lib/database/connect.ts';
import { changeHomeState } from '../functions/lib/isolation/homes.ts';
import { makeHome } from '../functions/lib/lifecycle/home.ts';
import type { Migrator } from '../functions/lib/lifecycle/migrate.ts';
import { type MigrationFile, parseMigration } from '../functions/lib/migrations/migration-file.ts';
import { migrateHomes } from '../functions/lib/migrations/migrator.ts';
import { newestState, type Release } from '../functions/lib/migrations/release.ts';
import type { MigrationTarget } from '../functions/lib/migrations/script.ts';
import { begin, migratorOf, releaseWith, run as runMachine } from '../test/lib/lifecycle/migrate.support.ts';
import type { World } from '../test/support/world.ts';

/** As the product's own workers. */
export const batch = 25;
export const workers = 4;

/** The lock table as the parameter group has it. */
export const fleetServer = {
  max_connections: '100',
  max_locks_per_transaction: '256',
  shared_buffers: '512MB',
  jit: 'off',
};

export const range = (count: number) => Array.from({ length: count }, (_, index) => index);

/** Ten tables, as a tenant migration writes them. */
export const tables = range(10)
  .map(
    (
      n,
    ) => `create table t${n} (tenant_id uuid not null, id uuid not null default gen_random_uuid(), name text not null,
      amount bigint not null default 0, primary key (tenant_id, id));
      create index t${n}_name on t${n} (name, tenant_id);`,
  )
  .join('\n');

/** Two columns, an index, a table, a backfill. */
export const statements = (round: number) => [
  `alter table t1 add column note${round} text`,
  `alter table t2 add column flag${round} boolean not null default false`,
  `create index t3_amount${round} on t3 (amount, tenant_id)`,
  `create table extra${round} (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id))`,
  `update t4 set amount = amount + 1 where name = 'round ${round}'`,
];

export const file = (round: number): MigrationFile =>
  parseMigration(`${9_600 + round}-round.sql`, `${statements(round).join(';\n')};`);
export const releaseOf = (world: World): Release =>
  releaseWith(world, parseMigration('9100-ten.sql', tables));

/** Homes as provisioning makes them, migrated in batches; `beside`: what else to make for each. */
export async function makeHomes(
  world: World,
  release: Release,
  numbers: readonly number[],
  beside?: (connection: ControlConnection, numbers: readonly number[]) => Promise<unknown>,
): Promise<void> {
  const state = newestState(release);
  await inParallel(world, numbers, async (connection, mine) => {
    await world.asProvisioner('catalog', async (catalog) => {
      const targets: MigrationTarget[] = [];
      for (const number of mine) {
        const tenant = await recordTenant(catalog, {
          slug: `fleet-x${number}`,
          tier: 'pro',
          strategy: 'schema',
        });
        const home = await makeHome(
          world.plane,
          catalog,
          { tenant, strategy: 'schema', homeId: randomUUID() },
          world.shared,
        );
        targets.push({ home, databaseId: home.databaseId, keys: world.plane.keys });
      }
      const { outcomes } = await migrateHomes(connection, targets, release.home);
      for (const { target, error } of outcomes) {
        if (error) throw error;
        await recordSchemaState(catalog, target.home, state);
        await changeHomeState(connection, target.home.homeId, ['provisioning'], 'open');
        await catalog.query("update catalog.homes set state = 'open' where home_id = $1", [
          target.home.homeId,
        ]);
        await catalog.query(
          "update catalog.tenants set status = 'active', home_id = $2 where tenant_id = $1",
          [target.home.tenant, target.home.homeId],
        );
      }
    });
    await beside?.(connection, mine);
  });
  // The tenants of the world follow, so that the first round finds the fleet alone behind.
  await throughMachine(world, release);
}

/** The default that completing would add, so that the same insert works. */
export const plain = (sql: string) =>
  sql.replaceAll('tenant_id uuid not null', 'tenant_id uuid not null default gen_random_uuid()');

/** The same world, 1 ms away. */
export async function behind(world: World, port: number): Promise<World> {
  const { clusterId } = world.plane.catalog;
  await world.asProvisioner('catalog', (catalog) =>
    catalog.query('update catalog.clusters set admin_port = $2 where cluster_id = $1', [clusterId, port]),
  );
  return {
    ...world,
    plane: { ...world.plane, catalog: { ...world.plane.catalog, port } },
    shared: { ...world.shared, admin: { ...world.shared.admin, port } },
  };
}

/** A whole run, by the state machine's own file. @returns how large its history was, and what its functions were given or gave, in bytes */
export async function throughMachine(
  world: World,
  release: Release,
  more: Partial<Migrator> = {},
): Promise<{ events: number; largest: number }> {
  const operation = await begin(world, release);
  const { outcome, history, largest } = await runMachine(migratorOf(world, release, more), operation);
  if (outcome.status !== 'SUCCEEDED')
    throw new Error(`The run ended ${outcome.status}: ${JSON.stringify(outcome)}`);
  return { events: history.length, largest };
}

export const asOwner = (connection: ControlConnection, sql: string) =>
  connection.query(`begin; set local role tenancy_owner; ${sql}; commit`);

export async function inParallel(
  world: World,
  numbers: readonly number[],
  work: (connection: ControlConnection, numbers: readonly number[]) => Promise<unknown>,
): Promise<void> {
  const batches = range(Math.ceil(numbers.length / batch)).map((n) =>
    numbers.slice(n * batch, (n + 1) * batch),
  );
  await Promise.all(
    range(workers).map(async () => {
      const { connection, close } = await openConnection(world.shared.admin);
      for (let mine = batches.shift(); mine; mine = batches.shift()) await work(connection, mine);
      await close();
    }),
  );
}
