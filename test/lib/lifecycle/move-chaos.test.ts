import { afterAll, beforeAll, expect, it } from 'vitest';
import { startWorld, type World } from '../../support/world.ts';
import { type Fault, roundOf, strike } from './move-chaos.ts';

/** A handful of seeds, the same in every run; `npm run bench -- --only moves-many --faults 200` tries as many as one likes. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const seeds: [Fault, number[]][] = [
  ['mover killed', [1, 2]],
  ['mover late', [1, 2]],
  ['servers killed', [1, 2]],
  ['source away', [1]],
  ['target away', [1]],
  ['catalog away', [1]],
];

for (const [fault, of] of seeds)
  it.each(of)(
    `${fault}, seed %i: one home is open, which is the catalog's, and every acknowledged write is there once`,
    async (seed) => {
      const ended = await strike(world, roundOf(seed, [fault]));
      expect(ended.wrong, JSON.stringify(ended)).toEqual([]);
      expect(ended.acknowledged).toBeGreaterThan(0);
    },
  );
