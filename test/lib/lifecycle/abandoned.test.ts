import { afterAll, beforeAll, expect, it } from 'vitest';
import { startWorld, type World } from '../../support/world.ts';
import { type Lifecycle, lifecycleOf, stepsOf } from './support.ts';

let world: World;
let lifecycle: Lifecycle;
beforeAll(async () => {
  world = await startWorld({ rds: true });
  lifecycle = lifecycleOf(world);
});
afterAll(() => world?.close());

it('an instance that was made for no home yet is taken back too', async () => {
  await lifecycle.settled();
  const before = await lifecycle.inventory();
  const first = await lifecycle.begin('database', 'dedicated');
  for (const step of ['reserve', 'createInstance', 'awaitInstance'])
    await lifecycle.run(first.operation, step);
  await lifecycle.run(first.operation, 'abandon', {
    failedStep: 'createHome',
    failure: { Error: 'Planned' },
  });
  await expect(lifecycle.begin('schema', 'shared-cluster', first.slug)).rejects.toMatchObject({
    code: 'wrong_strategy',
  });
  const second = await lifecycle.begin('database', 'shared-cluster', first.slug);
  await lifecycle.run(second.operation, 'reserve');
  await lifecycle.run(second.operation, 'compensate', {
    failedStep: 'createHome',
    failure: { Error: 'Planned' },
  });
  await lifecycle.settled();
  expect(await lifecycle.inventory()).toEqual(before);
  // Taken back is taken back.
  const third = await lifecycle.begin('schema', 'shared-cluster', first.slug);
  for (const step of stepsOf('schema', 'shared-cluster')) await lifecycle.run(third.operation, step);
  expect(await lifecycle.answers(third.tenant)).toBe(1);
});
