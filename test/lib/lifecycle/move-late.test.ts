import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { forgetHome } from '../../../functions/lib/isolation/homes.ts';
import { withSide } from '../../../functions/lib/lifecycle/move-sides.ts';
import { forgetChanges } from '../../../functions/lib/move/clean-up.ts';
import { dropHeldStaging } from '../../../functions/lib/move/staging.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import {
  atHome,
  begin,
  homeOf,
  moverOf,
  notes,
  step,
  tenantWithNotes,
} from './move.support.ts';

/** Attempts of a step that stall until their move has ended, and the next may have begun. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
}, 120_000);
afterAll(() => world?.close());

const logOf = (tenant: TestTenant) =>
  withConnection(world.superuser('tenantry'), async (connection) => {
    const { rows } = await connection.query('select change_id from tenancy.changes where tenant_id = $1', [
      tenant.id,
    ]);
    return rows.length;
  });

it('a late end of a move leaves the log of the next one alone', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 20, 7);
  const first = await begin(world, tenant.slug, 'schema');
  await step(world, first, 'prepare');
  const source = await homeOf(world, tenant);
  await withSide(moverOf(world), { operationId: first }, source, randomUUID(), async (late) => {
    await step(world, first, 'cancel', { failedStep: 'prepare' });
    const second = await begin(world, tenant.slug, 'schema');
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, second, name);
    await world.database(tenant).query(sql`insert into notes (body) values ('acknowledged')`);
    expect(await logOf(tenant)).toBe(1);
    await expect(forgetChanges(late)).rejects.toMatchObject({ code: 'operation_ended' });
    await expect(dropHeldStaging(late)).rejects.toMatchObject({ code: 'operation_ended' });
    // A home that is gone, with the schema of all homes in shared tables.
    await atHome(world, tenant, (connection) =>
      forgetHome(connection, { homeId: randomUUID(), tenant: tenant.id, schema: 'shared' }),
    );
    expect(await logOf(tenant)).toBe(1);
    await step(world, second, 'switchOver');
    await step(world, second, 'complete');
    expect((await notes(world, tenant)).has('acknowledged')).toBe(true);
  });
}, 60_000);
