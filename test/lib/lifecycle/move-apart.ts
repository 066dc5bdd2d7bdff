import { setTimeout as sleep } from 'node:timers/promises';
import { type Strategy, strategies } from '../../../functions/lib/tenant/tenant.ts';
import { type Agents, startAgents } from '../../support/agents.ts';
import { type McpEndpoint, startEndpoint } from '../../support/endpoint.ts';
import { addSharedCluster, type SharedCluster } from '../../support/shared-cluster.ts';
import { type Stocked, stockedTenant } from '../../support/stocked-tenant.ts';
import { startWorld, type World } from '../../support/world.ts';
import { begin, homeOf, moveState, operationState, wish } from './move.support.ts';
import { randomOf } from './move-chaos.ts';
import { everything, remainsOf } from './move-remains.ts';
import { MoverProcess } from './mover-process.ts';
import { runStruck } from './struck-move.ts';

/** Source, target and catalog on a server each, and the endpoint in front of them. */
export interface Apart {
  readonly world: World;
  readonly endpoint: McpEndpoint;
  readonly source: SharedCluster;
  readonly target: SharedCluster;
  close(): Promise<void>;
}

export async function startApart(): Promise<Apart> {
  const world = await startWorld();
  const [source, target, endpoint] = await Promise.all([
    addSharedCluster(world),
    addSharedCluster(world),
    startEndpoint(world),
  ]);
  return {
    ...{ world, endpoint, source, target },
    async close() {
      await endpoint.close();
      await Promise.all([source.server.close(), target.server.close()]);
      await world.close();
    },
  };
}

/** What dies; `mover late`: with the catalog's server, whose new one does not know that the mover is still there. */
export const victims = ['mover', 'mover late', 'source', 'target', 'catalog'] as const;
export type Victim = (typeof victims)[number];

interface Strike {
  readonly step: string;
  readonly victim: Victim;
  /** `ended`: a server that crashes tells its clients. `killed`: nobody hears of anything. */
  readonly how: 'ended' | 'killed';
  /** Since the step has begun. */
  readonly afterMs: number;
  readonly awayMs: number;
}

export interface Round {
  readonly from: Strategy;
  readonly to: Strategy;
  /** What the operator thinks of it before, or after, the switch. */
  readonly wanted: 'cancel' | 'reverse' | undefined;
  readonly strikes: readonly Strike[];
}

export interface Ended {
  readonly round: Round;
  readonly status: string;
  readonly operation: string;
  readonly phase: string;
  /** Strikes that came to pass. */
  readonly struck: number;
  readonly acknowledged: number;
  /** Answers that agents had to come back for. */
  readonly refused: number;
  /** What must not be. Empty, or the product is broken. */
  readonly wrong: readonly string[];
}

/** What the operator may come to want while a step runs. */
const wishes: Readonly<Record<string, 'cancel' | 'reverse'>> = { land: 'cancel', follow: 'reverse' };
// Where more can go wrong, more does.
const steps = ['prepare', 'capture', 'copy', 'land', 'switchOver', 'switchOver', 'follow', 'complete'];

/** The same for the same seed, but for what the operating system does with it. */
export function roundOf(seed: number, of: readonly Victim[]): Round {
  const random = randomOf(seed);
  const pick = <T>(all: readonly T[]) => all[Math.floor(random() * all.length)]!;
  const [from, to] = [pick(strategies), pick(strategies)];
  const wanted = pick([undefined, undefined, 'cancel', 'reverse'] as const);
  const all = wanted === undefined ? steps : [...steps, wanted, wanted];
  const strike = (): Strike => ({
    ...{ step: pick(all), victim: pick(of), how: pick(['ended', 'killed'] as const) },
    ...{ afterMs: Math.floor(150 * random() ** 2), awayMs: Math.floor(500 * random() ** 2) },
  });
  return { from, to, wanted, strikes: [strike(), strike(), strike()] };
}

/** One move under agents and strikes, by the state machine's own file, and a look at what is left of it. */
export async function strike(apart: Apart, round: Round): Promise<Ended> {
  const { world, endpoint, source } = apart;
  const before = await everything(apart);
  const place = round.from === 'database' ? await source.ownPlace() : source.place;
  const tenant = await stockedTenant(world, round.from, place);
  const agents = await startAgents(endpoint.url, await endpoint.keyOf(tenant.id));
  const mover = new MoverProcess(world);
  try {
    return await watched(apart, round, before, tenant, mover, agents);
  } finally {
    await mover.close();
  }
}

async function watched(
  apart: Apart,
  round: Round,
  before: readonly string[],
  tenant: Stocked,
  mover: MoverProcess,
  agents: Agents,
): Promise<Ended> {
  const { world, target } = apart;
  await agents.answered();
  const operation = await begin(world, tenant.slug, round.to, {
    ...{ cluster: target.place.clusterId, windowSeconds: 1 },
  });
  const { status, struck } = await runStruck(
    mover,
    operation,
    round.strikes,
    (strike) => befall(apart, mover, strike),
    async (step) => {
      const wanted = wishes[step];
      if (wanted !== undefined && wanted === round.wanted)
        await wish(world, operation, wanted).catch(() => {});
    },
  );
  await agents.answered();
  const refused = agents.errors.length;
  const wrong = [...(await agents.stop()), ...agents.errors.filter((error) => !passing.test(error))];

  const { state } = await operationState(world, operation);
  if (state === 'running') wrong.push('the operation has not ended');
  wrong.push(...(await remainsOf(apart, before, tenant, await homeOf(world, tenant))));
  const { phase } = await moveState(world, operation);
  const { acknowledged } = agents;
  return { round, status, operation: state, phase, struck, acknowledged, refused, wrong };
}

/** What an agent may be told while a server is away: come back, or look before you do. */
const passing = /code\\*":\s*\\*"(busy|unavailable|outcome_unknown)\\*"/;

async function befall(
  { world, source, target }: Apart,
  mover: MoverProcess,
  { victim, how, awayMs }: Strike,
): Promise<void> {
  if (victim === 'mover') return mover.kill();
  const wake = victim === 'mover late' ? mover.stall() : () => {};
  const servers = { source: source.server, target: target.server, catalog: world.cluster };
  const server = servers[victim === 'mover late' ? 'catalog' : victim];
  await (how === 'killed' ? server.kill() : server.server.stop('immediate'));
  await sleep(awayMs);
  await server.restart();
  if (victim === 'mover late') await sleep(150);
  wake();
}
