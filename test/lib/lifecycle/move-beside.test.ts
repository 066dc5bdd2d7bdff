import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { startWorld, type World } from '../../support/world.ts';
import { begin, moverOf, notes, runMove, step, tenantWithNotes } from './move.support.ts';

/** Moves beside others' work in the same tables. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
}, 120_000);
afterAll(() => world?.close());

it('lands in shared tables while another landing, or a vacuum, holds them', async () => {
  const tenant = await tenantWithNotes(world, 'schema', 20, 7);
  const operation = await begin(world, tenant.slug, 'rls', { windowSeconds: 1 });
  await withConnection(world.superuser('tenantry'), async (connection) => {
    await connection.query('begin; lock table shared.notes in share update exclusive mode');
    for (const name of ['prepare', 'capture', 'copy', 'land', 'switchOver'] as const)
      await step(world, operation, name);
    await connection.query('rollback');
  });
  await runMove(world, operation);
  expect((await notes(world, tenant)).size).toBe(20);
}, 60_000);

it.each<[string, string, string?]>([
  ['XX000', 'Busy', 'tuple concurrently updated'],
  ['XX000', 'error'],
  ['55P03', 'Busy'],
  ['40P01', 'Busy'],
  ['40001', 'Busy'],
  ['53100', 'Busy'],
  ['23505', 'error'],
  ['57014', 'error'],
])(
  'what PostgreSQL refuses with %s is %s to the state machine',
  async (code, name, message = 'of the server, about a row') => {
    const tenant = await tenantWithNotes(world, 'schema', 1);
    const operation = await begin(world, tenant.slug, 'rls');
    const failing = {
      async prepare() {
        throw Object.assign(new Error(message), { code, name: 'error' });
      },
    };
    const error: Error = await runStep(
      moverOf(world),
      { operation, step: 'prepare', input: {} },
      ['move'],
      failing,
    ).then(
      () => expect.unreachable(),
      (thrown) => thrown,
    );
    expect(error.name).toBe(name);
    if (name === 'Busy') {
      const why = code === '53100' ? ': make room on that server’s disk' : '';
      expect(error.message).toBe(`A database refused this step for now (SQLSTATE ${code})${why}.`);
      expect(error.cause).toMatchObject({ code });
    }
    await step(world, operation, 'cancel', { failedStep: 'prepare' });
  },
);
