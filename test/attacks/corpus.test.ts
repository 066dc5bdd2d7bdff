import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { corpus } from '../../infra/local/prove/corpus.ts';
import {
  closeTargets,
  prepareTargets,
  type Target,
  tryAttack,
  waysBetween,
} from '../../infra/local/prove/prove.ts';
import { strategies, type World } from '../support/world.ts';
import { partyOf, startAttackedWorld } from './support.ts';

/** Every attack of the corpus, by tenant a of each strategy, on tenant b of each strategy. */
let world: World;
let targets: Target[];
beforeAll(async () => {
  world = await startAttackedWorld();
  const victims = await Promise.all(strategies.map((strategy) => partyOf(world, world.tenants[strategy].b)));
  targets = await prepareTargets(world.plane.keys, victims);
});
afterAll(async () => {
  await closeTargets(targets ?? []);
  await world?.close();
});

const certain = corpus.flatMap((theme) =>
  theme.attacks.filter(({ residual }) => !residual).map((attack) => ({ theme, attack, name: attack.name })),
);

it('knows enough of its victims to notice a leak', () => {
  for (const { party, tables, sample } of targets) {
    expect(tables, party.name).toEqual(
      expect.arrayContaining(['canaries', 'items', 'notes', 'stock_movements']),
    );
    // Three rows with a secret in each of some twelve columns.
    expect(sample.markers.length, party.name).toBeGreaterThan(40);
  }
});

describe.each(strategies)('%s attacks', (strategy) => {
  it.each(certain)('$theme.title: $name', async ({ theme, attack }) => {
    const attacker = await partyOf(world, world.tenants[strategy].a);
    const outcomes: Record<string, string> = {};
    for (const target of targets)
      for (const way of waysBetween(attacker, target.party)) {
        const finding = await tryAttack(world.plane.keys, attacker, target, 'canaries', theme, attack, way);
        if (finding) outcomes[`${target.party.strategy}, ${way}`] = finding.what ?? finding.outcome;
      }
    expect(new Set(Object.values(outcomes)), JSON.stringify(outcomes)).toEqual(new Set(['held']));
  });
});
