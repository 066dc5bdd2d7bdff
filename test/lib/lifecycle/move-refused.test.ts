import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findHome } from '../../../functions/lib/catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../../../functions/lib/database/connect.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { catalogEndpoint } from '../../../functions/lib/lifecycle/control-plane.ts';
import { beginMigration } from '../../../functions/lib/lifecycle/migrate.ts';
import { moveSteps } from '../../../functions/lib/lifecycle/move.ts';
import { beginMove } from '../../../functions/lib/lifecycle/move-begin.ts';
import { withSides } from '../../../functions/lib/lifecycle/move-sides.ts';
import { endOperation } from '../../../functions/lib/lifecycle/operations.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { resume, suspend } from '../../../functions/lib/lifecycle/suspend.ts';
import { requireFew, tooMany } from '../../../functions/lib/move/limits.ts';
import { unfence } from '../../../functions/lib/move/switch.ts';
import { startWorld, type World } from '../../support/world.ts';
import {
  admitted,
  begin,
  homeOf,
  moverOf,
  moveState,
  notes,
  step,
  tenantWithNotes,
  untilSwitched,
  wish,
} from './move.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const suspended = { code: 'wrong_status', message: expect.stringContaining('The tenant is suspended') };
const upToLanding = ['prepare', 'capture', 'copy', 'land'] as const;

describe('what does not go together', () => {
  it('two moves of a tenant; a move while a migration runs', async () => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    const other = await tenantWithNotes(world, 'schema', 5);
    const refused = { code: 'operation_running' };
    const both = await Promise.allSettled([
      begin(world, tenant.slug, 'rls'),
      begin(world, tenant.slug, 'database'),
    ]);
    const operation = both.find(({ status }) => status === 'fulfilled') as PromiseFulfilledResult<string>;
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({ reason: refused });
    const migration = () =>
      world.asProvisioner('catalog', (catalog) =>
        beginMigration(catalog, world.release, { canaries: [], percent: 10, tolerated: 0 }),
      );
    await step(world, operation.value, 'cancel', { failedStep: 'begin' });
    const { operationId } = await migration();
    await expect(begin(world, other.slug, 'rls')).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('migration'),
    });
    await world.asProvisioner('catalog', (catalog) =>
      endOperation(catalog, operationId, { state: 'failed', step: 'plan', reason: 'planned' }),
    );
  });

  it('nothing is begun by one that dies before it has recorded the move', async () => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    const request = { slug: tenant.slug, to: 'rls', placement: 'shared-cluster', windowSeconds: 60 } as const;
    const dying = withConnection({ ...catalogEndpoint(world.plane), kept: undefined }, (catalog) =>
      beginMove(
        {
          query: async (text: string, values?: unknown[]) => {
            if (!text.startsWith('insert into catalog.moves')) return catalog.query(text, values);
            return catalog.query('select pg_terminate_backend(pg_backend_pid())');
          },
        } as ControlConnection,
        request,
        'dies-once',
      ),
    );
    await expect(dying).rejects.toThrow();
    const { operationId } = await world.asProvisioner('catalog', (catalog) =>
      beginMove(catalog, request, 'dies-once'),
    );
    expect((await moveState(world, operationId)).phase).toBe('moving');
    await step(world, operationId, 'cancel', { failedStep: 'prepare' });
  });

  it('a tenant that is not active, one that is where it shall go, one that nobody knows', async () => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    await expect(begin(world, tenant.slug, 'schema')).rejects.toMatchObject({ code: 'move_refused' });
    await expect(begin(world, 'nobody-here', 'schema')).rejects.toMatchObject({ code: 'unknown_tenant' });
    await suspend(world.plane, tenant.id);
    await expect(begin(world, tenant.slug, 'rls')).rejects.toMatchObject({ code: 'wrong_status' });
  });

  it('a tenant that is suspended on the way stays where it is, and suspended', async () => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    const operation = await begin(world, tenant.slug, 'rls');
    for (const name of upToLanding) await step(world, operation, name);
    await suspend(world.plane, tenant.id);
    await expect(step(world, operation, 'switchOver')).rejects.toMatchObject(suspended);
    await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    expect(await admitted(world, tenant)).toMatchObject([
      { home_id: tenant.home.homeId, state: 'suspended', capturing: false },
    ]);
    await resume(world.plane, tenant.id);
    expect((await notes(world, tenant)).size).toBe(5);
  });

  it('a tenant that is suspended while both homes are compared stays so, in every moment of it', async () => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    const operation = await begin(world, tenant.slug, 'rls');
    for (const name of upToLanding) await step(world, operation, name);
    const mover = { ...moverOf(world), probe: async () => void (await suspend(world.plane, tenant.id)) };
    const event = { operation, step: 'switchOver', input: {} };
    await expect(runStep(mover, event, ['move'], moveSteps)).rejects.toMatchObject(suspended);
    const state = async () =>
      (await admitted(world, tenant)).find(({ home_id }) => home_id === tenant.home.homeId)!.state;
    expect(await state()).toBe('suspended');
    const { targetHome } = await moveState(world, operation);
    const target = (await world.asProvisioner('catalog', (catalog) => findHome(catalog, targetHome)))!;
    const source = await homeOf(world, tenant);
    // It was asked before the suspension whether the tenant is active.
    await withSides(mover, { operationId: operation }, { source, target }, (sides) => unfence(sides, 'open'));
    expect(await state()).toBe('suspended');
    await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    await resume(world.plane, tenant.id);
    expect((await notes(world, tenant)).size).toBe(5);
  });

  it('the way back waits for a suspended tenant', async () => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    const operation = await begin(world, tenant.slug, 'rls');
    await untilSwitched(world, operation);
    await suspend(world.plane, tenant.id);
    await wish(world, operation, 'reverse');
    await expect(step(world, operation, 'reverse')).rejects.toMatchObject({ code: 'busy' });
    expect((await moveState(world, operation)).wanted).toBe('reverse');
    await resume(world.plane, tenant.id);
    await step(world, operation, 'reverse');
    await step(world, operation, 'complete');
    expect((await homeOf(world, tenant)).homeId).toBe(tenant.home.homeId);
  });

  it.each(['rls', 'database'] as const)(
    'a home in which a migration is in flight does not go to %s before it has ended',
    async (to) => {
      const tenant = await tenantWithNotes(world, 'schema', 5);
      const { schema } = tenant.home;
      const note = (at: string) =>
        world.asProvisioner(tenant, (connection) =>
          asRole(connection, 'tenancy_owner', () =>
            connection.query(`update ${schema}._migrations set applied_at = '${at}' where name like '9000%'`),
          ),
        );
      await note('infinity');
      const operation = await begin(world, tenant.slug, to);
      await expect(step(world, operation, 'prepare')).rejects.toMatchObject({ code: 'move_refused' });
      await note('now');
      await step(world, operation, 'prepare');
      await step(world, operation, 'cancel', { failedStep: 'prepare' });
    },
  );

  it('a tenant of more rows than one piece of work can have is refused before it is copied', async () => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    const operation = await begin(world, tenant.slug, 'rls');
    await step(world, operation, 'prepare');
    const { targetHome } = await moveState(world, operation);
    const source = await homeOf(world, tenant);
    const target = (await world.asProvisioner('catalog', (catalog) => findHome(catalog, targetHome)))!;
    await withSides(moverOf(world), { operationId: operation }, { source, target }, async (sides) => {
      await requireFew(sides.source, sides.tables, 'rls', 5);
      await expect(requireFew(sides.source, sides.tables, 'rls', 4)).rejects.toMatchObject({
        code: 'move_refused',
        message: expect.stringContaining('more than 4 rows'),
      });
    });
    expect(tooMany(5_000_001, 'rls')).toContain('5,000,000');
    expect(tooMany(5_000_001, 'schema')).toBeUndefined();
    await step(world, operation, 'cancel', { failedStep: 'prepare' });
  });

  it('the operator cancels it between two steps', async () => {
    const tenant = await tenantWithNotes(world, 'rls', 5);
    const operation = await begin(world, tenant.slug, 'schema');
    await step(world, operation, 'prepare');
    expect(await wish(world, operation, 'cancel')).toBe(true);
    await expect(step(world, operation, 'capture')).rejects.toMatchObject({
      code: 'move_cancelled',
      name: 'MoveCancelled',
    });
  });
});

it('rows of another tenant in a home of its own end the move', async () => {
  const tenant = await tenantWithNotes(world, 'schema', 5);
  const { schema } = tenant.home;
  await world.asProvisioner(tenant, (connection) =>
    asRole(connection, 'tenancy_owner', () =>
      connection.query(
        `alter table ${schema}.notes drop constraint tenancy_home;
         insert into ${schema}.notes (tenant_id, body) values ('${world.tenants.rls.a.id}', 'planted')`,
      ),
    ),
  );
  const operation = await begin(world, tenant.slug, 'rls');
  for (const name of upToLanding) await step(world, operation, name);
  await expect(step(world, operation, 'switchOver')).rejects.toMatchObject({ code: 'move_refused' });
  await step(world, operation, 'cancel', { failedStep: 'switchOver' });
  expect((await notes(world, world.tenants.rls.a)).has('planted')).toBe(false);
});
