import { afterAll, beforeAll, expect, it } from 'vitest';
import { instanceName } from '../../../functions/lib/aws/rds.ts';
import { startWorld, type World } from '../../support/world.ts';
import { begin, homeOf, operationState, runMove } from './move.support.ts';
import { type Lifecycle, lifecycleOf } from './support.ts';

/** An instance that a move could not remove: it is not in the way of the next one for ever. */
let world: World;
let lifecycle: Lifecycle;
beforeAll(async () => {
  world = await startWorld({ rds: true });
  lifecycle = lifecycleOf(world);
});
afterAll(() => world?.close());

/** Somebody stops the old instance within the window: RDS deletes none that is stopped and protected. */
async function leftBehind() {
  const { tenant: id, slug } = await lifecycle.provisioned('database', 'dedicated');
  const notes = await lifecycle.answers(id);
  const { homeId } = await homeOf(world, { id });
  const instance = instanceName(homeId);
  const operation = await begin(world, slug, 'schema', { windowSeconds: 1 });
  const { status } = await runMove(world, operation, async ({ step }) => {
    if (step !== 'complete' || world.emulator.instances!.get(instance).status !== 'available') return;
    await world.emulator.instances!.stop(instance);
    await world.emulator.instances!.settled(instance);
  });
  expect(status).toBe('FAILED');
  expect(await operationState(world, operation)).toMatchObject({
    failedStep: 'removeLeftInstance',
    reason: expect.stringContaining('Start it, then run this again'),
  });
  return { id, slug, notes, operation, homeId, instance };
}

async function again(slug: string) {
  const operation = await begin(world, slug, 'rls', { windowSeconds: 1 });
  await runMove(world, operation);
  return operationState(world, operation);
}

async function left(homeId: string): Promise<string[]> {
  await lifecycle.settled();
  const lines = await lifecycle.inventory();
  return lines.filter((line) => line.includes(homeId) || line.includes(homeId.replaceAll('-', '')));
}

it('the next move says what to do while it is stopped, and removes it once it runs', async () => {
  const { id, slug, notes, operation, homeId, instance } = await leftBehind();
  expect(await again(slug)).toMatchObject({
    failedStep: 'removeEarlierInstances',
    reason: expect.stringContaining('Start it, then run this again'),
  });
  await world.emulator.instances!.start(instance);
  await world.emulator.instances!.settled(instance);
  expect(await again(slug)).toMatchObject({ state: 'done' });
  expect((await operationState(world, operation)).result).toMatchObject({
    finalSnapshot: `${instance}-final`,
    removedInstance: instance,
  });
  expect(await left(homeId)).toEqual([]);
  expect(await lifecycle.answers(id)).toBe(notes + 1);
});

it('one that somebody has deleted by hand is gone', async () => {
  const { id, slug, notes, homeId, instance } = await leftBehind();
  await world.emulator.instances!.delete(instance, undefined);
  expect(await again(slug)).toMatchObject({ state: 'done' });
  expect(await left(homeId)).toEqual([]);
  expect(await lifecycle.answers(id)).toBe(notes + 1);
});
