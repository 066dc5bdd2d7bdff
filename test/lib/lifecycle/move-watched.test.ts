import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { switchHome } from '../../../functions/lib/catalog/moves.ts';
import { buryTenant, closeTenant } from '../../../functions/lib/catalog/offboarding.ts';
import { findHome } from '../../../functions/lib/catalog/tenants.ts';
import { openConnection, withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { auditDatabase } from '../../../functions/lib/health/audit-database.ts';
import { homesIn } from '../../../functions/lib/health/picture.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { endpointOf } from '../../../functions/lib/lifecycle/control-plane.ts';
import { releaseFences } from '../../../functions/lib/lifecycle/move-fence.ts';
import { withSides } from '../../../functions/lib/lifecycle/move-sides.ts';
import { beginOffboarding } from '../../../functions/lib/lifecycle/offboard.ts';
import { operationLock } from '../../../functions/lib/lifecycle/step.ts';
import { fence } from '../../../functions/lib/move/hold.ts';
import { switchOver } from '../../../functions/lib/move/switch.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { limits, startWorld, type TestTenant, type World } from '../../support/world.ts';
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

/** What is looked at beside the copying: whether the next home answers, whether both are the same after the switch, and whether writers wait for nobody. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const ways: [Strategy, Strategy][] = [
  ['rls', 'schema'],
  ['schema', 'rls'],
  ['schema', 'database'],
];

/** A write through the data path, as one of the tenant's agents makes it. */
async function write(tenant: TestTenant, body: string): Promise<void> {
  const access = world.access();
  const route = await access.resolve(tenant.principal);
  await access.database(tenant.principal, route, limits('w')).query(sql`
    insert into notes (body) values (${body}) on conflict (tenant_id, body) do update set amount = notes.amount + 1`);
  await access.pools.close();
}

/** As nobody may: past the data path, so that it leaves no trace in what is carried over. */
async function mutate(tenant: TestTenant, body: string): Promise<string> {
  const { database, schema } = await homeOf(world, tenant);
  return withConnection(world.superuser(database), async (connection) => {
    const { rows } = await connection.query(
      `update ${schema}.notes set amount = 8 where body = $1 and tenant_id = $2 returning note_id`,
      [body, tenant.id],
    );
    return rows[0]!.note_id;
  });
}

describe.each(ways)('from %s to %s', (from, to) => {
  it('a row changed in the new home is named, and nothing completes by itself until it is the same again', async () => {
    const tenant = await tenantWithNotes(world, from, 50, 7);
    const operation = await begin(world, tenant.slug, to, { windowSeconds: 0 });
    await untilSwitched(world, operation);
    const changed = await mutate(tenant, 'first 17');
    await wish(world, operation, 'complete');
    await expect(step(world, operation, 'follow')).rejects.toMatchObject({ code: 'move_differs' });
    // Uttered before the difference was known: it is asked for again, or not.
    expect(await moveState(world, operation)).toMatchObject({
      phase: 'switched',
      wanted: undefined,
      comparedAt: undefined,
      differs: expect.stringContaining(changed),
    });
    await expect(step(world, operation, 'follow')).rejects.toMatchObject({ code: 'move_differs' });
    await write(tenant, 'first 17');
    expect(await step(world, operation, 'follow')).toEqual({ next: 'complete' });
    expect(await moveState(world, operation)).toMatchObject({
      comparedAt: expect.any(Date),
      differs: undefined,
    });
    await step(world, operation, 'complete');
    expect((await notes(world, tenant)).get('first 17')).toBe(9);
  });

  it('completes with a difference when the operator knows of it', async () => {
    const tenant = await tenantWithNotes(world, from, 50, 7);
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation);
    await mutate(tenant, 'first 17');
    await expect(step(world, operation, 'follow')).rejects.toMatchObject({ code: 'move_differs' });
    await wish(world, operation, 'complete');
    expect(await step(world, operation, 'follow')).toEqual({ next: 'complete' });
    await step(world, operation, 'complete');
    expect((await homeOf(world, tenant)).strategy).toBe(to);
    // Keys are the tenant's: they go with it.
    expect((await moveState(world, operation)).differs).toBeDefined();
    await world.asProvisioner('catalog', (catalog) => buryTenant(catalog, tenant.id, []));
    expect((await moveState(world, operation)).differs).toBeUndefined();
  });

  it('nobody takes the rights of the login that the way back leads to for a hole', async () => {
    const tenant = await tenantWithNotes(world, from, 50, 7);
    const left = await homeOf(world, tenant);
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation);
    const homes = await world.asProvisioner('catalog', (catalog) =>
      homesIn(catalog, left.clusterId, left.database),
    );
    const found = await withConnection(endpointOf(world.plane, left), (connection) =>
      auditDatabase(connection, homes),
    );
    expect(found.filter(({ login }) => login === left.login)).toEqual([]);
  });

  it('does not switch to a home that answers nothing', async () => {
    const tenant = await tenantWithNotes(world, from, 50, 7);
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
    const { targetHome } = await moveState(world, operation);
    const target = (await world.asProvisioner('catalog', (catalog) => findHome(catalog, targetHome)))!;
    const { adminHost: host, adminPort: port, database } = target;
    // Its rows are all there, and nobody gets in.
    const { connection, close } = await openConnection({ ...tenant.place.admin, host, port, database });
    await asRole(connection, 'tenancy_keeper', () =>
      connection.query("update tenancy.homes set login = 'tenancy_owner' where home_id = $1", [targetHome]),
    );
    await close();
    await expect(step(world, operation, 'switchOver')).rejects.toThrow();
    await write(tenant, 'still here');
    expect((await homeOf(world, tenant)).homeId).toBe(tenant.home.homeId);
    await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    expect(await admitted(world, tenant)).toMatchObject([{ home_id: tenant.home.homeId, state: 'open' }]);
    expect((await notes(world, tenant)).size).toBe(51);
  });

  it.each(['the next attempt', 'the watch'])(
    'no write is acknowledged that a call by the old route would miss, when the mover dies behind the decision: %s',
    async (who) => {
      const tenant = await tenantWithNotes(world, from, 50, 7);
      const warm = world.access();
      const stale = await warm.resolve(tenant.principal);
      const seen = async (body: string) => {
        const db = warm.database(tenant.principal, await warm.resolve(tenant.principal), limits('r'));
        const { rows } = await db.query<{ n: number }>(
          sql`select count(*)::int as n from notes where body = ${body}`,
        );
        return rows[0]!.n;
      };
      const operation = await begin(world, tenant.slug, to);
      for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
      const move = await moveState(world, operation);
      await world.asProvisioner('catalog', async (catalog) => {
        const [source, target] = await Promise.all(
          [move.sourceHome, move.targetHome].map(async (id) => (await findHome(catalog, id))!),
        );
        await expect(
          withSides(moverOf(world), move, { source: source!, target: target! }, (sides) =>
            switchOver(sides, source!.epoch + 1, async () => {
              const ids = { from: source!.homeId, to: target!.homeId, epoch: source!.epoch + 1 };
              expect(await switchHome(catalog, move, { from: 'moving', to: 'switched' }, ids)).toBe(true);
              throw new Error('dies');
            }),
          ),
        ).rejects.toThrow('dies');
      });
      expect(await seen('first 17')).toBe(1);
      await expect(write(tenant, 'acknowledged')).rejects.toMatchObject({ code: 'busy' });
      expect(await seen('acknowledged')).toBe(0);
      expect(await warm.resolve(tenant.principal)).toEqual(stale);
      if (who === 'the watch')
        await world.asProvisioner('catalog', (catalog) => releaseFences(world.plane, catalog));
      else await step(world, operation, 'switchOver');
      await write(tenant, 'acknowledged');
      expect(await seen('acknowledged')).toBe(1);
      await step(world, operation, 'switchOver');
      await step(world, operation, 'complete');
      expect((await notes(world, tenant)).get('acknowledged')).toBe(0);
      await warm.pools.close();
    },
  );

  it('a fence whose mover has died is taken down by the next look, and the move goes on afterwards', async () => {
    const tenant = await tenantWithNotes(world, from, 50, 7);
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
    const source = await homeOf(world, tenant);
    const { targetHome } = await moveState(world, operation);
    const target = (await world.asProvisioner('catalog', (catalog) => findHome(catalog, targetHome)))!;
    const keepOut = () =>
      withSides(moverOf(world), { operationId: operation }, { source, target }, (sides) =>
        fence(sides.source),
      );
    const look = () => world.asProvisioner('catalog', (catalog) => releaseFences(world.plane, catalog));
    const mine = (found: readonly { slug: string }[]) => found.filter(({ slug }) => slug === tenant.slug);

    await keepOut();
    await expect(write(tenant, 'too early')).rejects.toMatchObject({ code: 'busy' });
    // As long as a step may be at work, it is not disturbed.
    await world.asProvisioner('catalog', async (catalog) => {
      const lock = operationLock(operation);
      await catalog.query(`select pg_advisory_lock(${lock.sql})`, lock.values);
      expect(mine(await look())).toEqual([]);
      expect(await admitted(world, tenant)).toContainEqual(expect.objectContaining({ state: 'fenced' }));
    });
    expect(mine(await look())).toEqual([{ slug: tenant.slug }]);
    expect(mine(await look())).toEqual([]);
    await write(tenant, 'captured');
    await step(world, operation, 'switchOver');
    await step(world, operation, 'complete');
    expect((await notes(world, tenant)).get('captured')).toBe(0);
    expect((await homeOf(world, tenant)).strategy).toBe(to);
  });

  /** A tenant whose writers are kept out, by a move that was given up. */
  async function leftFenced() {
    const tenant = await tenantWithNotes(world, from, 50, 7);
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
    const source = await homeOf(world, tenant);
    const { targetHome } = await moveState(world, operation);
    const target = (await world.asProvisioner('catalog', (catalog) => findHome(catalog, targetHome)))!;
    await withSides(moverOf(world), { operationId: operation }, { source, target }, (sides) =>
      fence(sides.source),
    );
    await step(world, operation, 'abandon', { failedStep: 'switchOver' });
    return { tenant, homeId: source.homeId };
  }

  it('a fence that a move has left when it was given up is taken down by the next look', async () => {
    const { tenant, homeId } = await leftFenced();
    await world.asProvisioner('catalog', (catalog) => releaseFences(world.plane, catalog));
    await write(tenant, 'served again');
    expect(await admitted(world, tenant)).toContainEqual(
      expect.objectContaining({ home_id: homeId, state: 'open', capturing: false, busy: false }),
    );
  });

  it('the look opens no home of a tenant that is being offboarded', async () => {
    const { tenant, homeId } = await leftFenced();
    await world.asProvisioner('catalog', async (catalog) => {
      const request = { slug: tenant.slug, graceSeconds: 60, exportTo: undefined };
      const { operationId } = await beginOffboarding(catalog, tenant.id, request);
      await closeTenant(catalog, tenant.id, operationId);
      await releaseFences(world.plane, catalog);
    });
    expect(await admitted(world, tenant)).toContainEqual(
      expect.objectContaining({ home_id: homeId, state: 'suspended', capturing: false }),
    );
  });

  it('a home whose move was given up is left alone by the look, and can be moved again', async () => {
    const tenant = await tenantWithNotes(world, from, 50, 7);
    const given = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture'] as const) await step(world, given, name);
    await step(world, given, 'abandon', { failedStep: 'copy' });
    const found = await world.asProvisioner('catalog', (catalog) => releaseFences(world.plane, catalog));
    // Nobody was kept out.
    expect(found.filter(({ slug }) => slug === tenant.slug)).toEqual([]);
    expect(await admitted(world, tenant)).toContainEqual(
      expect.objectContaining({ home_id: tenant.home.homeId, state: 'open', capturing: false, busy: false }),
    );
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation);
    await step(world, operation, 'follow');
    await wish(world, operation, 'complete');
    await step(world, operation, 'complete');
    expect((await notes(world, tenant)).size).toBe(50);
  });
});
