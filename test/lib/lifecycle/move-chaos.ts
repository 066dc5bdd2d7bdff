import { setTimeout as sleep } from 'node:timers/promises';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import type { World } from '../../support/world.ts';
import {
  admitted,
  begin,
  homeOf,
  moveState,
  notes,
  operationState,
  startWriters,
  tenantWithNotes,
  type Writers,
  wish,
} from './move.support.ts';
import { MoverProcess } from './mover-process.ts';
import { runStruck } from './struck-move.ts';

/**
 * What dies: the mover's process; the mover, but it wakes up when another has taken over; the PostgreSQL server, which is
 * all three here; or the source, the target or the catalog by itself: whoever is in it is put out, and nobody gets in for a while.
 */
export const kinds = [
  'mover killed',
  'mover late',
  'servers killed',
  'source away',
  'target away',
  'catalog away',
] as const;
export type Fault = (typeof kinds)[number];

export interface Round {
  readonly from: Strategy;
  readonly to: Strategy;
  readonly isReversed: boolean;
  readonly faults: readonly { readonly step: string; readonly fault: Fault; readonly afterMs: number }[];
}

export interface Ended {
  readonly round: Round;
  readonly status: string;
  readonly operation: string;
  readonly phase: string;
  /** Faults that came to pass. */
  readonly struck: number;
  readonly acknowledged: number;
  /** What must not be. Empty, or the product is broken. */
  readonly wrong: readonly string[];
}

const rows = 300;
const ways: readonly (readonly [Strategy, Strategy])[] = [
  ['rls', 'schema'],
  ['schema', 'rls'],
  ['schema', 'database'],
  ['database', 'rls'],
  ['database', 'schema'],
];
const steps = ['copy', 'land', 'switchOver', 'follow', 'reverse', 'complete'];

/** The same for the same seed, but for what the operating system does with it. */
export function roundOf(seed: number, of: readonly Fault[]): Round {
  const random = randomOf(seed);
  const pick = <T>(all: readonly T[]) => all[Math.floor(random() * all.length)]!;
  const [from, to] = pick(ways);
  const fault = () => ({ step: pick(steps), fault: pick(of), afterMs: Math.floor(120 * random() ** 2) });
  return { from, to, isReversed: random() < 0.4, faults: [fault(), fault(), fault()] };
}

/** One move under writers and faults, by the state machine's own file, and a look at what is left of it. */
export async function strike(world: World, round: Round): Promise<Ended> {
  const tenant = await tenantWithNotes(world, round.from, rows, 7);
  const mover = new MoverProcess(world);
  const writers = startWriters(world, tenant, 2);
  try {
    return await watched(world, round, tenant, mover, writers);
  } finally {
    await writers.stop();
    await mover.close();
  }
}

async function watched(
  world: World,
  round: Round,
  tenant: Awaited<ReturnType<typeof tenantWithNotes>>,
  mover: MoverProcess,
  writers: Writers,
): Promise<Ended> {
  const operation = await begin(world, tenant.slug, round.to, { windowSeconds: 1 });
  const { status, struck } = await runStruck(
    mover,
    operation,
    round.faults,
    ({ fault }) => faults[fault](world, mover, operation),
    async (step) => {
      if (step === 'follow' && round.isReversed) await wish(world, operation, 'reverse').catch(() => {});
    },
  );
  await writers.stop();

  const wrong: string[] = [];
  const found = await notes(world, tenant);
  const lost = [...writers.acknowledged].filter((key) => found.get(key) !== 2);
  if (lost.length > 0) wrong.push(`${lost.length} acknowledged writes are lost or doubled`);
  const first = [...found.values()].filter((amount) => amount === 7).length;
  if (first !== rows) wrong.push(`${first} of ${rows} first rows are there`);
  const home = await homeOf(world, tenant);
  const open = (await admitted(world, tenant)).map(
    ({ home_id, state, capturing, busy }) => `${home_id} ${state} ${capturing} ${busy}`,
  );
  const { state } = await operationState(world, operation);
  if (state === 'running') wrong.push('the operation has not ended');
  // Ended in order, it has left nothing: the one home serves, and no move holds it.
  if (open.join() !== `${home.homeId} open false false`)
    wrong.push(`the catalog says ${home.homeId}, its databases: ${open.join(', ')}`);
  const { phase } = await moveState(world, operation);
  return {
    round,
    status,
    operation: state,
    phase,
    struck,
    acknowledged: writers.acknowledged.size,
    wrong,
  };
}

const faults: Record<Fault, (world: World, mover: MoverProcess, operation: string) => Promise<void>> = {
  'mover killed': (_, mover) => mover.kill(),

  async 'mover late'(world, mover, operation) {
    const wake = mover.stall();
    // Nobody hears of it any more, the catalog neither: that is when the next attempt may begin.
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query(
        `select pg_terminate_backend(l.pid) from pg_locks l
          where l.locktype = 'advisory' and l.granted and l.classid = (hashtext('tenancy.operation')::bigint & 4294967295)::oid
            and l.objid = (hashtext($1)::bigint & 4294967295)::oid`,
        [operation],
      ),
    );
    await sleep(150);
    wake();
  },

  'source away': (world, _, operation) => away(world, operation, 'source_home'),
  'target away': (world, _, operation) => away(world, operation, 'target_home'),
  'catalog away': (world, _, operation) => away(world, operation, undefined),

  async 'servers killed'(world) {
    await world.cluster.server.stop('immediate');
    await world.cluster.restart();
  },
};

/** A server that only some are on, as all of them see it. */
async function away(
  world: World,
  operation: string,
  which: 'source_home' | 'target_home' | undefined,
): Promise<void> {
  const name =
    which === undefined
      ? 'tenantry_catalog'
      : await withConnection(world.superuser('tenantry_catalog'), async (connection) => {
          const { rows } = await connection.query<{ name: string }>(
            `select h.database_name as name from catalog.moves m join catalog.homes h on h.home_id = m.${which} where m.operation_id = $1`,
            [operation],
          );
          return rows[0]?.name;
        });
  if (name === undefined) return;
  await withConnection(world.superuser('postgres'), async (connection) => {
    // It may be dropped meanwhile, by the move's own end.
    const set = (may: boolean) =>
      connection.query(`alter database "${name}" allow_connections ${may}`).catch(() => {});
    await set(false);
    await connection.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [
      name,
    ]);
    await sleep(300);
    await set(true);
  });
}

/** mulberry32: repeatable, and good enough to choose by. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
