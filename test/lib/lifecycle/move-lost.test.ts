import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { recordCluster } from '../../../functions/lib/catalog/clusters.ts';
import { completeUncompared } from '../../../functions/lib/catalog/moves.ts';
import { findHome } from '../../../functions/lib/catalog/tenants.ts';
import { ConnectFailure } from '../../../functions/lib/database/failure.ts';
import { auditMoves } from '../../../functions/lib/health/upkeep.ts';
import { loginSecretName } from '../../../functions/lib/isolation/credentials.ts';
import { releaseFences } from '../../../functions/lib/lifecycle/move-fence.ts';
import { withSide } from '../../../functions/lib/lifecycle/move-sides.ts';
import { fence } from '../../../functions/lib/move/hold.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import {
  begin,
  homeOf,
  moverOf,
  moveState,
  notes,
  operationState,
  step,
  tenantWithNotes,
  untilSwitched,
  wish,
} from './move.support.ts';

/** Moves whose first home's server is lost once the tenant lives in its new one. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
}, 120_000);
afterAll(() => world?.close());

/** Its server answers no more: nobody listens where the catalog says that it is. */
async function lose({ home }: TestTenant): Promise<void> {
  const clusterId = randomUUID();
  const at = { host: '127.0.0.1', port: 1 };
  await world.plane.secrets.write(
    loginSecretName(clusterId, 'tenancy_provisioner'),
    JSON.stringify({
      engine: 'postgres',
      ...at,
      dbname: 'postgres',
      username: 'tenancy_provisioner',
      password: 'x',
    }),
  );
  await world.asProvisioner('catalog', async (catalog) => {
    const { host: adminHost, port: adminPort } = at;
    await recordCluster(catalog, {
      clusterId,
      kind: 'dedicated',
      region: 'eu-west-1',
      ...at,
      adminHost,
      adminPort,
    });
    await catalog.query('update catalog.homes set cluster_id = $2 where home_id = $1', [
      home.homeId,
      clusterId,
    ]);
  });
}

const uncompared = (operation: string) =>
  world.asProvisioner('catalog', (catalog) => completeUncompared(catalog, operation));
const isKnown = async ({ home }: TestTenant) =>
  (await world.asProvisioner('catalog', (catalog) => findHome(catalog, home.homeId))) !== undefined;

it('is completed without it when the operator says so, and tells what may be left', async () => {
  const tenant = await tenantWithNotes(world, 'database', 10);
  const operation = await begin(world, tenant.slug, 'schema', { windowSeconds: 0 });
  expect(await uncompared(operation)).toBe(false);
  await untilSwitched(world, operation);
  await lose(tenant);
  await wish(world, operation, 'complete');
  await expect(step(world, operation, 'follow')).rejects.toMatchObject({ code: 'unavailable' });
  expect(await uncompared(operation)).toBe(true);
  expect(await step(world, operation, 'follow')).toEqual({ next: 'complete' });
  expect(await step(world, operation, 'complete')).toMatchObject({ more: false });
  expect((await moveState(world, operation)).phase).toBe('completed');
  expect(await operationState(world, operation)).toMatchObject({
    state: 'done',
    result: { notRemoved: expect.stringContaining(`home ${tenant.home.homeId}`) },
  });
  expect(await isKnown(tenant)).toBe(false);
  expect((await notes(world, tenant)).size).toBe(10);
}, 60_000);

it('keeps writers out no longer than calls may still go there', async () => {
  const tenant = await tenantWithNotes(world, 'database', 10);
  const operation = await begin(world, tenant.slug, 'schema');
  await untilSwitched(world, operation);
  // As a mover leaves it that dies right after the catalog has decided.
  const home = await homeOf(world, tenant);
  await withSide(moverOf(world), { operationId: operation }, home, randomUUID(), (side) => fence(side));
  await lose(tenant);
  const look = async (afterMs: number) => {
    const now = Date.now() + afterMs;
    const found = await world.asProvisioner('catalog', (catalog) => releaseFences(world.plane, catalog, now));
    return found.filter(({ slug }) => slug === tenant.slug);
  };
  expect(await look(0)).toEqual([{ slug: tenant.slug, error: expect.any(ConnectFailure) }]);
  const told = await world.asProvisioner('catalog', (catalog) => auditMoves(world, catalog, Date.now()));
  expect(told.find(({ object }) => object === `move of ${tenant.slug}`)?.finding).toMatch(
    /^its home could not be asked .*ECONNREFUSED/,
  );
  expect(await look(61_000)).toEqual([{ slug: tenant.slug }]);
  expect(await look(61_000)).toEqual([]);
}, 60_000);

it('of a move that was given up over it, the next one leaves it be', async () => {
  const tenant = await tenantWithNotes(world, 'database', 10);
  const operation = await begin(world, tenant.slug, 'schema');
  await untilSwitched(world, operation);
  await step(world, operation, 'follow');
  await lose(tenant);
  await expect(step(world, operation, 'complete')).rejects.toMatchObject({ code: 'unavailable' });
  await step(world, operation, 'abandon', { failedStep: 'complete' });
  const next = await begin(world, tenant.slug, 'rls');
  await expect(step(world, next, 'prepare')).rejects.toMatchObject({ code: 'unavailable' });
  await step(world, next, 'cancel', { failedStep: 'prepare' });
  expect(await uncompared(next)).toBe(true);
  const last = await begin(world, tenant.slug, 'rls');
  await untilSwitched(world, last);
  await step(world, last, 'complete');
  expect(await isKnown(tenant)).toBe(false);
  expect((await notes(world, tenant)).size).toBe(10);
}, 60_000);
