import { type ControlConnection, openConnection } from '../functions/lib/database/connect.ts';
import type { Release } from '../functions/lib/migrations/release.ts';
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
import {
  asOwner,
  batch,
  behind,
  file,
  fleetServer,
  inParallel,
  makeHomes,
  plain,
  range,
  releaseOf,
  statements,
  tables,
  throughMachine,
  workers,
} from './homes.ts';
import { median, timed } from './measure.ts';
import { type Figure, table } from './report.ts';

const atMostOfBest = 1.3;
const atLeastFasterThanSerial = 4;
const atMostIdleMs = 1;

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
    const made = await timed(() => makeHomes(world, releaseOf(world), range(homes), makePlain));
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
      Object.entries(times).map(([way, values]) => [way, median(values)]),
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

/** Schemas with the same tables, and nothing else. */
const makePlain = (connection: ControlConnection, numbers: readonly number[]) =>
  asOwner(
    connection,
    numbers
      .map(
        (number) =>
          `create schema plain_${number}; set local search_path = plain_${number}; ${plain(tables)}`,
      )
      .join('\n'),
  );

async function bestWay(world: World, homes: number, sql: readonly string[]): Promise<void> {
  await inParallel(world, range(homes), (connection, numbers) =>
    asOwner(
      connection,
      numbers.map((index) => `set local search_path = plain_${index}; ${plain(sql.join(';'))};`).join('\n'),
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
