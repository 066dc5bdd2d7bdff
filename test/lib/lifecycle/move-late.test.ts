import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { forgetHome } from '../../../functions/lib/isolation/homes.ts';
import { type Mover, moveSteps } from '../../../functions/lib/lifecycle/move.ts';
import { withSide } from '../../../functions/lib/lifecycle/move-sides.ts';
import { operationOf } from '../../../functions/lib/lifecycle/operations.ts';
import { forgetChanges } from '../../../functions/lib/move/clean-up.ts';
import { dropHeldStaging } from '../../../functions/lib/move/staging.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import {
  atHome,
  begin,
  homeOf,
  inventory,
  moverOf,
  notes,
  operationState,
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

/** With secrets that are not found before `until`: an attempt stands still at its start, or once a login has its password, and says so. */
const stalling = (until: Promise<void>, at: 'find' | 'create', stands: () => void): Mover => {
  const mover = moverOf(world);
  const { secrets } = mover.plane;
  const stand = () => {
    stands();
    return until;
  };
  const slow = {
    async find(name: string) {
      if (at === 'find') await stand();
      return secrets.find(name);
    },
    read: secrets.read.bind(secrets),
    async create(name: string, value: string) {
      if (at === 'create') await stand();
      return secrets.create(name, value);
    },
    remove: secrets.remove.bind(secrets),
  };
  return { ...mover, plane: { ...mover.plane, secrets: slow as typeof secrets } };
};

it.each([
  ['schema', 'find'],
  ['schema', 'create'],
  ['database', 'find'],
] as [Strategy, 'find' | 'create'][])(
  'a late prepare towards %s makes nothing, or takes it back (%s)',
  async (to, at) => {
    const tenant = await tenantWithNotes(world, 'rls', 5);
    const before = await inventory(world);
    const operation = await begin(world, tenant.slug, to);
    const { promise: until, resolve: goOn } = Promise.withResolvers<void>();
    const { promise: stood, resolve: stands } = Promise.withResolvers<void>();
    await world.asProvisioner('catalog', async (catalog) => {
      const late = moveSteps.prepare(
        stalling(until, at, stands),
        catalog,
        await operationOf(catalog, operation, 'move'),
      );
      const ended = expect(late).rejects.toMatchObject({ code: 'operation_ended' });
      await stood;
      await step(world, operation, 'cancel', { failedStep: 'prepare' });
      expect((await operationState(world, operation)).state).toBe('failed');
      goOn();
      await ended;
    });
    expect(await inventory(world)).toEqual(before);
  },
  60_000,
);
