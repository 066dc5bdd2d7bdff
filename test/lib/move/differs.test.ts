import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { requireSame } from '../../../functions/lib/move/diff.ts';
import type { MovedTable } from '../../../functions/lib/move/tables.ts';
import { startWorld, type World } from '../../support/world.ts';
import { begin, homeOf, moveState, step, tenantWithNotes } from '../lifecycle/move.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
}, 120_000);
afterAll(() => world?.close());

it('a row is compared whose key was rewritten in other words', () => {
  const table = { name: 'prices' } as MovedTable;
  const changed = new Map([[table, new Set(['{"price": "1.0"}'])]]);
  const row = (hash: string) => new Map([[table, new Map([['{"price": "1.00"}', hash]])]]);
  expect(() => requireSame(changed, row('7'), row('7'))).not.toThrow();
  expect(() => requireSame(changed, row('7'), row('8'))).toThrow('prices {"price": "1.00"}');
});

it('what differs, and cannot be found by its key, ends the move', async () => {
  const tenant = await tenantWithNotes(world, 'schema', 5);
  const operation = await begin(world, tenant.slug, 'rls');
  for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
  const { database, schema } = await homeOf(world, tenant);
  // Past the migrator: the same row a second time.
  await withConnection(world.superuser(database), (connection) =>
    connection.query(
      `create schema elsewhere; create table elsewhere.copies () inherits (${schema}.notes);
       insert into elsewhere.copies select * from ${schema}.notes where body = 'first 3'`,
    ),
  );
  await expect(step(world, operation, 'switchOver')).rejects.toMatchObject({ code: 'move_differs' });
  expect((await moveState(world, operation)).differs).toContain('different rows: notes.');
  await step(world, operation, 'cancel', { failedStep: 'switchOver' });
});
