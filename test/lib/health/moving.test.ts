import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { begin, step, tenantWithNotes, untilSwitched, wish } from '../lifecycle/move.support.ts';
import { runOnce, startWatching, told } from './support.ts';

/** A move takes a home's walls down and builds another's: whoever is woken in the middle of one would look for a breach. */
let world: World;
let watch: Watch;
beforeAll(async () => {
  world = await startWorld({ rds: true });
  watch = await startWatching(world, true);
});
afterAll(() => world?.close());

const ways = strategies.flatMap((from) =>
  strategies.filter((to) => to !== from).map((to) => [from, to] as const),
);

const isGreen = async (moment: string) => expect([moment, ...told(await runOnce(watch))]).toEqual([moment]);

describe.each(ways)('while a tenant moves from %s to %s', (from, to) => {
  it('the canary finds nothing, there and on the way back', async () => {
    const tenant = await tenantWithNotes(world, from, 20);
    const there = await begin(world, tenant.slug, to);
    await untilSwitched(world, there, async (name, run) => {
      const answer = await run();
      await isGreen(name);
      return answer;
    });
    await wish(world, there, 'reverse');
    expect(await step(world, there, 'follow')).toEqual({ next: 'reverse' });
    await isGreen('asked to reverse');
    await step(world, there, 'reverse');
    await isGreen('reversed');
  });

  it('the canary finds nothing when it completes, nor when it is called off', async () => {
    const tenant = await tenantWithNotes(world, from, 20);
    const off = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy'] as const) await step(world, off, name);
    await wish(world, off, 'cancel');
    await step(world, off, 'cancel', { failedStep: 'none' });
    await isGreen('called off');
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation);
    await step(world, operation, 'complete');
    await isGreen('completed');
  });
});
