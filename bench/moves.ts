import { setTimeout as sleep } from 'node:timers/promises';
import type { Strategy } from '../functions/lib/tenant/tenant.ts';
import { begin } from '../test/lib/lifecycle/move.support.ts';
import * as apart from '../test/lib/lifecycle/move-apart.ts';
import { type Ended, kinds, roundOf, strike } from '../test/lib/lifecycle/move-chaos.ts';
import { MoverProcess } from '../test/lib/lifecycle/mover-process.ts';
import { startWorld, type TestTenant, type World } from '../test/support/world.ts';
import { median, timed } from './measure.ts';
import { fillLedger, ledger, startLedgerWriters, tables } from './moving-tenant.ts';
import { dormantCapture, watchNeighbour } from './neighbours.ts';
import { plainCopy } from './plain-copy.ts';
import { type Figure, table } from './report.ts';

const writers = 8;
const way = ['schema', 'database', 'rls'] as const satisfies readonly Strategy[];
/** How long a neighbour is watched before each move, ms. */
const gapMs = 4_000;

/** Writes reach the disk, as they do where it counts: a pause has commits in it. */
const parameters = {
  fsync: 'on',
  max_connections: '100',
  shared_buffers: '1GB',
  max_wal_size: '4GB',
  jit: 'off',
};

interface Moved {
  readonly to: Strategy;
  readonly ms: Readonly<Record<string, number>>;
  /** Without writers, as the mover counts it, ms. */
  readonly pauseMs: number;
  /** The longest time around the switch in which no write was acknowledged, ms, and the longest one took. */
  readonly silence: number;
  readonly slowest: number;
}

type Report = (line: string) => void;

/** How fast a tenant of `rows` rows is copied along rls → schema → database → rls, when nothing else is to be done. */
export const speed = (report: Report, rows = 400_000): Promise<Figure[]> =>
  withWorld(report, async (world, mover) => copySpeed(report, world, mover, await tenantOf(world, rows)));

/** What its agents and its neighbours notice of the same moves. */
export const run = (report: Report, rows = 400_000): Promise<Figure[]> =>
  withWorld(report, async (world, mover) => [
    ...(await underWriters(report, world, mover, await tenantOf(world, rows))),
    ...(await dormantCapture(report, world)),
  ]);

/** `moves` of a small tenant, again and again, and `faults` of others in which something dies: once in one server, once in three. */
export async function many(report: Report, moves: number, faults: number): Promise<Figure[]> {
  const figures = await withWorld(report, async (world, mover) => [
    ...(await small(report, world, mover, moves)),
    ...(await underFaults(report, 'one server', faults, (seed) => strike(world, roundOf(seed, kinds)))),
  ]);
  if (faults === 0) return figures;
  const three = await apart.startApart();
  try {
    const one = (seed: number) => apart.strike(three, apart.roundOf(seed, apart.victims));
    return [...figures, ...(await underFaults(report, 'a server each, through the endpoint', faults, one))];
  } finally {
    await three.close();
  }
}

async function withWorld(
  report: Report,
  measure: (world: World, mover: MoverProcess) => Promise<Figure[]>,
): Promise<Figure[]> {
  const world = await startWorld({ migrations: [ledger], parameters });
  const mover = new MoverProcess(world);
  report(
    'Moves. The mover is a process of its own; agents and neighbours share another, and all of them the machine.',
  );
  try {
    return await measure(world, mover);
  } finally {
    await mover.close();
    await world.close();
  }
}

async function tenantOf(world: World, rows: number): Promise<TestTenant> {
  const tenant = await world.addTenant('rls');
  await fillLedger(world, tenant, rows);
  return tenant;
}

async function copySpeed(
  report: Report,
  world: World,
  mover: MoverProcess,
  tenant: TestTenant,
): Promise<Figure[]> {
  const found: string[][] = [];
  const figures: Figure[] = [];
  for (const to of way) {
    const plain = await plainCopy(world, tenant);
    const { ms } = await moveTo(world, mover, tenant, to);
    // Shared tables have their keys: neither way can do without them there.
    const [ours, theirs] = to === 'rls' ? [ms.copy! + ms.land!, plain.keyed] : [ms.copy!, plain.bare];
    const times = [plain.bare, ms.copy!, plain.keyed, plain.whole, ms.copy! + ms.land!];
    found.push([to, ...times.map(seconds), (theirs / ours).toFixed(2)]);
    figures.push({
      name: `copy towards ${to}: speed / plain COPY`,
      value: theirs / ours,
      atLeast: to === 'rls' ? 0.5 : 0.8,
    });
    if (to === 'schema') figures.push({ name: 'pause of a naive copy, ms', value: plain.whole });
  }
  report(
    'Without writers, s. Plain COPY out and in: into tables without keys, with their keys, and keys made afterwards,',
  );
  report(
    'which is how long a naive copy keeps writers out. The ratio is that of the bare ones; towards rls, of all until the rows are in.',
  );
  table(
    report,
    ['to', 'plain, bare', 'copy', 'plain, keyed', 'plain, then keys', 'copy + land', 'speed / plain'],
    found,
  );
  return figures;
}

async function underWriters(report: Report, world: World, mover: MoverProcess, tenant: TestTenant) {
  const neighbour = watchNeighbour(world, world.tenants.rls.b);
  const agents = await startLedgerWriters(world, tenant, writers);
  const done: Moved[] = [];
  await sleep(500);
  for (const to of way) {
    neighbour.phase = 'without';
    await sleep(gapMs);
    neighbour.phase = 'with';
    done.push(await moveTo(world, mover, tenant, to, agents));
  }
  neighbour.phase = undefined;
  const { acknowledged } = agents;
  const { lost, doubled } = await agents.stop();
  const latency = await neighbour.stop();
  report(
    `A tenant of 400,000 rows in ${tables.length} tables with ${writers} writers at full speed (${acknowledged} writes acknowledged, ${agents.errors.length} asked to come back), ms:`,
  );
  table(
    report,
    [
      'to',
      'prepare',
      'capture',
      'copy',
      'land',
      'switch',
      'complete',
      'pause',
      'no write acknowledged',
      'slowest write',
    ],
    done.map(({ to, ms, pauseMs, silence, slowest }) => [
      to,
      ...(['prepare', 'capture', 'copy', 'land', 'switchOver', 'complete'] as const).map((step) =>
        ms[step]!.toFixed(0),
      ),
      ...[pauseMs, silence, slowest].map((value) => value.toFixed(1)),
    ]),
  );
  report(
    `A neighbour's call, median ms without and with a move: read ${pair(latency.read)}, write ${pair(latency.write)}`,
  );
  return [
    ...pauses('large tenant', done),
    { name: 'large tenant: acknowledged writes lost or doubled', value: lost + doubled, atMost: 0 },
    {
      name: "neighbour's read with a move / without",
      value: latency.read.with / latency.read.without,
      atMost: 1.2,
    },
    {
      name: "neighbour's write with a move / without",
      value: latency.write.with / latency.write.without,
      atMost: 1.2,
    },
  ];
}

/** Again and again: a write that is lost once in a hundred moves is lost. */
async function small(report: Report, world: World, mover: MoverProcess, moves: number) {
  const tenant = await world.addTenant('rls');
  await fillLedger(world, tenant, 2_000);
  // At full speed it would not stay small.
  const agents = await startLedgerWriters(world, tenant, writers, 50);
  const done: Moved[] = [];
  for (let n = 0; n < moves; n += 1)
    done.push(await moveTo(world, mover, tenant, way[n % way.length]!, agents));
  const { acknowledged } = agents;
  const { lost, doubled } = await agents.stop();
  report(
    `${moves} moves of a small tenant, ${writers} writers: ${acknowledged} writes acknowledged, ${lost} lost, ${doubled} doubled, ${agents.errors.length} asked to come back; a move takes ${seconds(median(done.map(({ ms }) => Object.values(ms).reduce((sum, one) => sum + one, 0))))} s`,
  );
  return [
    ...pauses(`${moves} moves`, done),
    { name: `${moves} moves: acknowledged writes lost or doubled`, value: lost + doubled, atMost: 0 },
  ];
}

type Struck = Pick<Ended, 'struck' | 'acknowledged' | 'phase' | 'wrong'>;

async function underFaults(
  report: Report,
  where: string,
  count: number,
  strikeOne: (seed: number) => Promise<Struck>,
): Promise<Figure[]> {
  if (count === 0) return [];
  const ended: Struck[] = [];
  for (let seed = 1; seed <= count; seed += 1) {
    const one = await strikeOne(seed);
    if (one.wrong.length > 0) report(`seed ${seed}: ${JSON.stringify(one)}`);
    ended.push(one);
  }
  const [struck, acknowledged] = (['struck', 'acknowledged'] as const).map((what) =>
    ended.reduce((sum, one) => sum + one[what], 0),
  );
  const phases = Object.entries(Object.groupBy(ended, ({ phase }) => phase)).map(
    ([phase, of]) => `${of!.length} ${phase}`,
  );
  report(
    `${count} moves, ${where}: ${struck} faults, ${acknowledged} writes acknowledged: ${phases.join(', ')}`,
  );
  const wrong = ended.filter((one) => one.wrong.length > 0).length;
  return [{ name: `${count} moves under faults, ${where}: that broke a promise`, value: wrong, atMost: 0 }];
}

function pauses(what: string, done: readonly Moved[]): Figure[] {
  const [engine, agents] = [done.map(({ pauseMs }) => pauseMs), done.map(({ silence }) => silence)];
  return [
    { name: `${what}: write pause, median ms`, value: median(engine), atMost: 25 },
    { name: `${what}: write pause, worst ms`, value: Math.max(...engine), atMost: 100 },
    { name: `${what}: no write acknowledged, median ms`, value: median(agents) },
    { name: `${what}: no write acknowledged, worst ms`, value: Math.max(...agents) },
  ];
}

async function moveTo(
  world: World,
  mover: MoverProcess,
  { slug }: TestTenant,
  to: Strategy,
  agents?: Awaited<ReturnType<typeof startLedgerWriters>>,
): Promise<Moved> {
  const operation = await begin(world, slug, to);
  const ms: Record<string, number> = {};
  let seen = { silence: 0, slowest: 0 };
  for (const step of ['prepare', 'capture', 'copy', 'land', 'switchOver', 'complete']) {
    const watched = step === 'switchOver' ? agents?.watch() : undefined;
    ms[step] = await timed(async () => {
      while (((await mover.step(operation, step)) as { more?: boolean } | undefined)?.more);
    });
    if (watched) seen = await watched();
  }
  const { rows } = await world.asProvisioner('catalog', (catalog) =>
    catalog.query('select pause_ms from catalog.moves where operation_id = $1', [operation]),
  );
  return { to, ms, pauseMs: rows[0]!.pause_ms, ...seen };
}

const seconds = (ms: number) => (ms / 1_000).toFixed(2);
const pair = (ms: { with: number; without: number }) => `${ms.without.toFixed(2)} / ${ms.with.toFixed(2)}`;
