import { afterAll, beforeAll, expect, it } from 'vitest';
import { previewTargets } from '../../../functions/lib/catalog/migration-plan.ts';
import { plannedFor } from '../../../functions/lib/lifecycle/migrate.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import {
  type ended,
  file,
  migrate,
  notesColumns,
  releaseWith,
  request,
  versionOf,
} from './migrate.support.ts';
import { begin, step, untilSwitched, wish } from './move.support.ts';

/** A run of migrations beside moves: who waits, for how long, and who does not. */
let world: World;
let mover: TestTenant;
let other: TestTenant;
beforeAll(async () => {
  world = await startWorld();
  mover = await world.addTenant('schema', 'mover');
  other = await world.addTenant('schema', 'other-one');
});
afterAll(() => world?.close());

const add = (name: string) => file(`${name}.sql`, `alter table notes add column ${name.slice(5)} text`);
const targetOf = (targets: Awaited<ReturnType<typeof ended>>['targets'], slug: string | null) =>
  targets.find((target) => target.slug === slug);

it('passes over a tenant that is being moved, says until when and what ends it earlier, and takes it along the next time', async () => {
  const release = releaseWith(world, add('9501-one'));
  const operation = await begin(world, mover.slug, 'database');
  await step(world, operation, 'prepare');
  const first = await migrate(world, release);
  expect([first.outcome.status, first.state]).toEqual(['SUCCEEDED', 'done']);
  expect(targetOf(first.targets, 'mover')).toMatchObject({
    state: 'moving',
    reason:
      'mover is being moved, and can be moved back for 60 minutes after the switch: npm run tenants -- move status mover',
  });
  expect(targetOf(first.targets, 'other-one')).toMatchObject({ state: 'done' });
  expect(targetOf(first.targets, null)).toMatchObject({ kind: 'shared', state: 'done' });
  expect(await notesColumns(world, other)).toContain('one');
  expect(await notesColumns(world, mover)).not.toContain('one');

  await untilSwitched(world, operation);
  const plan = await world.asProvisioner('catalog', async (catalog) =>
    previewTargets(catalog, await plannedFor(catalog, release, request()), 50),
  );
  expect(plan.targets.map(({ slug, moving }) => [slug, moving])).toEqual([
    [
      'mover',
      expect.stringMatching(
        /^mover can be moved back until 20\d\d-\d\d-\d\d \d\d:\d\d UTC; to end that earlier: npm run tenants -- move complete mover$/,
      ),
    ],
  ]);
  expect(targetOf((await migrate(world, release)).targets, 'mover')).toMatchObject({ state: 'moving' });

  await wish(world, operation, 'complete');
  await step(world, operation, 'complete');
  const last = await migrate(world, release);
  expect(last.targets).toMatchObject([{ slug: 'mover', state: 'done' }]);
  expect(await versionOf(world, mover)).toBe('9501-one');
});

it('the shared tables wait for whoever leaves or enters them; homes of their own do not', async () => {
  const release = releaseWith(world, add('9501-one'), add('9502-two'));
  const { a } = world.tenants.rls;
  const operation = await begin(world, a.slug, 'schema');
  await wish(world, operation, 'pause');
  const leaving = await migrate(world, release);
  expect(targetOf(leaving.targets, null)).toMatchObject({
    kind: 'shared',
    state: 'moving',
    reason: 'the move of rls-a is paused; to go on: npm run tenants -- move resume rls-a, or cancel',
  });
  expect(targetOf(leaving.targets, 'other-one')).toMatchObject({ state: 'done' });
  await step(world, operation, 'cancel', { failedStep: 'begin' });

  const entering = await begin(world, other.slug, 'rls');
  expect(targetOf((await migrate(world, release)).targets, null)).toMatchObject({ state: 'moving' });
  await step(world, entering, 'cancel', { failedStep: 'begin' });
  expect((await migrate(world, release)).targets).toMatchObject([{ kind: 'shared', state: 'done' }]);
});
