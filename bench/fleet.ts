import { randomUUID } from 'node:crypto';
import { recordSchemaState } from '../functions/lib/catalog/migration-runs.ts';
import { recordTenant } from '../functions/lib/catalog/tenants.ts';
import { type ControlConnection, openConnection } from '../functions/lib/database/connect.ts';
import { makeHome } from '../functions/lib/lifecycle/home.ts';
import { type MigrationFile, parseMigration } from '../functions/lib/migrations/migration-file.ts';
import { type MigrationTarget, migrateHomes } from '../functions/lib/migrations/migrator.ts';
import { newestState, type Release } from '../functions/lib/migrations/release.ts';
import {
  begin,
  ended,
  migratorOf,
  releaseWith,
  request,
  run as runMachine,
} from '../test/lib/lifecycle/migrate.support.ts';
import { startWorld, type World } from '../test/support/world.ts';
import { startDelayProxy } from './delay-proxy.ts';
import { delayMs } from './ground.ts';
import { timed } from './measure.ts';
import { type Figure, table } from './report.ts';

const batch = 25;
const workers = 4;
const atMostOfBest = 1.3;
const atLeastFasterThanSerial = 4;
const atMostIdleMs = 1;

/** The lock table as the parameter group has it. */
const fleetServer = {
  max_connections: '100',
  max_locks_per_transaction: '256',
  shared_buffers: '512MB',
  jit: 'off',
};

const range = (count: number) => Array.from({ length: count }, (_, index) => index);

/** Ten tables, as a tenant migration writes them. */
const tables = range(10)
  .map(
    (
      n,
    ) => `create table t${n} (tenant_id uuid not null, id uuid not null default gen_random_uuid(), name text not null,
      amount bigint not null default 0, primary key (tenant_id, id));
      create index t${n}_name on t${n} (name);`,
  )
  .join('\n');

/** Two columns, an index, a table, a backfill. */
const statements = (round: number) => [
  `alter table t1 add column note${round} text`,
  `alter table t2 add column flag${round} boolean not null default false`,
  `create index t3_amount${round} on t3 (amount)`,
  `create table extra${round} (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id))`,
  `update t4 set amount = amount + 1 where name = 'round ${round}'`,
];

/** What one migration over many schemas costs, against the fastest and the plainest way to run the same statements. */
export async function run(report: (line: string) => void, homes = 1_000, rounds = 3): Promise<Figure[]> {
  const world = await startWorld({ parameters: fleetServer });
  const proxy = await startDelayProxy(world.cluster.server.port, delayMs);
  try {
    report(
      `A migration of five statements over ${homes} schemas of ten tables, +${2 * delayMs} ms, ${rounds} rounds in turn. "best": ${workers} connections,`,
    );
    report(
      `${batch} schemas a transaction, one text each, on tables without protection. "one by one": a statement at a time.`,
    );
    const made = await timed(() => makeFleet(world, homes));
    report(`(${homes} homes and as many plain schemas made in ${(made / 1000).toFixed(0)} s)`);
    const far = await behind(world, proxy.port);
    let release = releaseOf(world);
    const times: Record<'best' | 'serial' | 'ours' | 'idle', number[]> = {
      best: [],
      serial: [],
      ours: [],
      idle: [],
    };
    // One schema after the other takes a tenth of them: it is that many times slower.
    const few = Math.max(10, Math.floor(homes / 10));
    for (let round = 0; round < rounds; round += 1) {
      times.best.push((await timed(() => bestWay(far, homes, statements(round)))) / homes);
      release = releaseWith({ ...far, release }, file(round));
      times.ours.push((await timed(() => throughMachine(far, release))) / homes);
      times.idle.push((await timed(() => throughMachine(far, release))) / homes);
      times.serial.push((await timed(() => oneByOne(far, few, statements(rounds + round)))) / few);
    }
    const ms = Object.fromEntries(
      Object.entries(times).map(([way, values]) => [way, medianOf(values)]),
    ) as Record<keyof typeof times, number>;
    await oneBroken(far, releaseWith({ ...far, release }, file(rounds)), homes);
    report(
      `(one home was broken on purpose: ${homes - 1} done, one quarantined; the rerun touched that one)`,
    );
    table(
      report,
      ['way', 'ms a schema'],
      (['best', 'ours', 'serial', 'idle'] as const).map((way) => [names[way], ms[way].toFixed(2)]),
    );
    return [
      { name: `migration, ${homes} schemas: ours / best`, value: ms.ours / ms.best, atMost: atMostOfBest },
      {
        name: `migration, ${homes} schemas: one by one / ours`,
        value: ms.serial / ms.ours,
        atLeast: atLeastFasterThanSerial,
      },
      { name: 'migration with nothing to do, ms a schema', value: ms.idle, atMost: atMostIdleMs },
    ];
  } finally {
    proxy.close();
    await world.close();
  }
}

const names = {
  best: 'best',
  ours: 'ours: completed, audited, recorded',
  serial: 'one by one',
  idle: 'ours, nothing to do',
};
const medianOf = (values: readonly number[]) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

const file = (round: number): MigrationFile =>
  parseMigration(`${9_600 + round}-round.sql`, `${statements(round).join(';\n')};`);
const releaseOf = (world: World): Release => releaseWith(world, parseMigration('9100-ten.sql', tables));

/** Homes as provisioning makes them, migrated in batches, and plain schemas with the same tables beside them. */
async function makeFleet(world: World, homes: number): Promise<void> {
  const release = releaseOf(world);
  const state = newestState(release);
  await inParallel(world, homes, async (connection, indexes) => {
    await world.asProvisioner('catalog', async (catalog) => {
      const targets: MigrationTarget[] = [];
      for (const index of indexes) {
        const tenant = await recordTenant(catalog, {
          slug: `fleet-x${index}`,
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
        await catalog.query("update catalog.homes set state = 'open' where home_id = $1", [
          target.home.homeId,
        ]);
        await catalog.query(
          "update catalog.tenants set status = 'active', home_id = $2 where tenant_id = $1",
          [target.home.tenant, target.home.homeId],
        );
      }
    });
    await asOwner(
      connection,
      indexes
        .map(
          (index) => `create schema plain_${index}; set local search_path = plain_${index}; ${plain(tables)}`,
        )
        .join('\n'),
    );
  });
  // The demo tenants of the world follow, so that the first round finds the fleet alone behind.
  await throughMachine(world, release);
}

/** The default that completing would add, so that the same insert works. */
const plain = (sql: string) =>
  sql.replaceAll('tenant_id uuid not null', 'tenant_id uuid not null default gen_random_uuid()');

/** The same world, 1 ms away. */
async function behind(world: World, port: number): Promise<World> {
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

async function bestWay(world: World, homes: number, sql: readonly string[]): Promise<void> {
  await inParallel(world, homes, (connection, indexes) =>
    asOwner(
      connection,
      indexes.map((index) => `set local search_path = plain_${index}; ${plain(sql.join(';'))};`).join('\n'),
    ),
  );
}

async function oneByOne(world: World, homes: number, sql: readonly string[]): Promise<void> {
  const { connection, close } = await openConnection(world.shared.admin);
  for (const index of range(homes)) {
    await connection.query('begin');
    await connection.query('set local role tenancy_owner');
    await connection.query(`set local search_path = plain_${index}`);
    for (const statement of sql) await connection.query(plain(statement));
    await connection.query('commit');
  }
  await close();
}

async function throughMachine(world: World, release: Release): Promise<void> {
  const operation = await begin(world, release);
  const { outcome } = await runMachine(migratorOf(world, release), operation);
  if (outcome.status !== 'SUCCEEDED')
    throw new Error(`The run ended ${outcome.status}: ${JSON.stringify(outcome)}`);
}

/** @throws Error unless exactly the broken home is quarantined, and the rerun touches it alone */
async function oneBroken(world: World, release: Release, homes: number): Promise<void> {
  const slug = `fleet-x${Math.floor(homes / 2)}`;
  const column = statements(Number(release.home.at(-1)!.name.slice(0, 4)) - 9_600)[0]!.split(' ')[5]!;
  const spoil = async (sql: string) => {
    const { rows } = await world.asProvisioner('catalog', (catalog) =>
      catalog.query(
        'select schema_name from catalog.homes join catalog.tenants using (home_id) where slug = $1',
        [slug],
      ),
    );
    const { connection, close } = await openConnection(world.shared.admin);
    await asOwner(connection, `set local search_path = ${rows[0]!.schema_name}; ${sql};`);
    await close();
  };
  await spoil(`alter table t1 add column ${column} integer`);
  const counts = async (tolerated: number) => {
    const operation = await begin(world, release, request({ tolerated }));
    await runMachine(migratorOf(world, release), operation);
    const { targets } = await ended(world, operation);
    return {
      done: targets.filter(({ state, kind }) => state === 'done' && kind === 'home').length,
      quarantined: targets.filter(({ state }) => state === 'quarantined').map(({ slug }) => String(slug)),
    };
  };
  const first = await counts(1);
  await spoil(`alter table t1 drop column ${column}`);
  const second = await counts(0);
  if (
    first.quarantined.join() !== slug ||
    first.done < homes - 1 ||
    second.done !== 1 ||
    second.quarantined.length > 0
  )
    throw new Error(`The run's report is wrong: ${JSON.stringify({ first, second })}`);
}

const asOwner = (connection: ControlConnection, sql: string) =>
  connection.query(`begin; set local role tenancy_owner; ${sql}; commit`);

async function inParallel(
  world: World,
  homes: number,
  work: (connection: ControlConnection, indexes: number[]) => Promise<unknown>,
): Promise<void> {
  const batches = range(Math.ceil(homes / batch)).map((n) => range(homes).slice(n * batch, (n + 1) * batch));
  await Promise.all(
    range(workers).map(async () => {
      const { connection, close } = await openConnection(world.shared.admin);
      for (let mine = batches.shift(); mine; mine = batches.shift()) await work(connection, mine);
      await close();
    }),
  );
}
