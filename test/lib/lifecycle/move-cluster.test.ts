import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { remains } from '../../../functions/lib/lifecycle/offboard-check.ts';
import type { Place } from '../../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../../functions/lib/migrations/install.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { endpoint, type TestCluster } from '../../support/cluster.ts';
import { addSharedCluster } from '../../support/shared-cluster.ts';
import { startWorld, type World } from '../../support/world.ts';
import {
  begin,
  homeOf,
  notes,
  runMove,
  startWriters,
  tenantWithNotes,
  type Writers,
} from './move.support.ts';

/** Two shared clusters, each a server of its own. */
let world: World;
let second: TestCluster;
let place: Place;
const running: Writers[] = [];
beforeAll(async () => {
  world = await startWorld();
  ({ server: second, place } = await addSharedCluster(world));
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((writers) => writers.stop()));
});
afterAll(async () => {
  await world?.close();
  await second?.close();
});

/** What a server has of a home, by its names. */
const traces = (at: Place, homeId: string) =>
  withConnection(at.admin, async (connection) => {
    await connection.query('begin; set local role tenancy_keeper');
    const { rows } = await connection.query(
      `select rolname::text as name from pg_roles where rolname like '%' || $1 union all select nspname from pg_namespace where nspname like '%' || $1
       union all select datname from pg_database where datname like '%' || $1 union all select home_id::text from tenancy.homes where replace(home_id::text, '-', '') = $1`,
      [homeId.replaceAll('-', '')],
    );
    await connection.query('rollback');
    return rows.map(({ name }) => name as string);
  });

describe.each([
  ['rls', 'rls'],
  ['rls', 'schema'],
  ['schema', 'schema'],
  ['schema', 'rls'],
  ['schema', 'database'],
  ['database', 'database'],
] as [Strategy, Strategy][])('from %s in one cluster to %s in another, and back', (from, to) => {
  it('loses no write, answers none with an error, and leaves nothing behind', async () => {
    const tenant = await tenantWithNotes(world, from, 50);
    const writers = startWriters(world, tenant, 2);
    running.push(writers);
    const there = await begin(world, tenant.slug, to, { cluster: place.clusterId, windowSeconds: 1 });
    expect((await runMove(world, there)).status).toBe('SUCCEEDED');
    const home = await homeOf(world, tenant);
    expect([home.strategy, home.clusterId]).toEqual([to, place.clusterId]);
    expect(await traces(world.shared, tenant.home.homeId)).toEqual([]);
    expect((await traces(place, home.homeId)).length).toBeGreaterThan(0);

    const back = await begin(world, tenant.slug, from, {
      cluster: world.plane.catalog.clusterId,
      windowSeconds: 1,
    });
    expect((await runMove(world, back)).status).toBe('SUCCEEDED');
    await writers.stop();
    expect(writers.errors).toEqual([]);
    expect((await homeOf(world, tenant)).clusterId).toBe(world.plane.catalog.clusterId);
    expect(await traces(place, home.homeId)).toEqual([]);
    const found = await notes(world, tenant);
    expect(found.size).toBe(50 + writers.acknowledged.size);
    for (const key of writers.acknowledged) expect(found.get(key)).toBe(2);
  });
});

it('without a cluster named, a tenant stays in the one that it is in', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 50);
  await runMove(
    world,
    await begin(world, tenant.slug, 'rls', { cluster: place.clusterId, windowSeconds: 1 }),
  );
  await runMove(world, await begin(world, tenant.slug, 'schema', { windowSeconds: 1 }));
  expect(await homeOf(world, tenant)).toMatchObject({ strategy: 'schema', clusterId: place.clusterId });
});

it('refuses a cluster that is not there, the same place, and a cluster without room', async () => {
  const tenant = await tenantWithNotes(world, 'schema', 50);
  const refused = (more: object, message: string, to: Strategy = 'schema') =>
    expect(begin(world, tenant.slug, to, more)).rejects.toMatchObject({
      code: 'move_refused',
      message: expect.stringContaining(message),
    });
  const unknown = randomUUID();
  await refused(
    { cluster: unknown },
    `There is no shared cluster ${unknown}. There are: ${world.plane.catalog.clusterId} (`,
  );
  await refused({}, 'by schema in this cluster already. Name another cluster to move it there.');
  await refused({ cluster: world.plane.catalog.clusterId }, 'by schema in this cluster already');
  await refused(
    { cluster: place.clusterId, placement: 'dedicated' },
    'An instance of its own is in no cluster',
    'database',
  );
  await world.asProvisioner('catalog', (catalog) =>
    catalog.query(
      `insert into catalog.homes (home_id, tenant_id, cluster_id, strategy, database_name, database_id, schema_name, login, state)
       select gen_random_uuid(), $1, $2, 'schema', 'd', gen_random_uuid(), 's', 'l', 'moved' from generate_series(1, 2000)`,
      [world.tenants.rls.a.id, place.clusterId],
    ),
  );
  await refused({ cluster: place.clusterId }, 'and room for 2000. Name another cluster');
});

it('an offboarding looks for rows in every shared cluster', async () => {
  const { id: tenant } = await world.addTenant('rls');
  const { host, port, superuserPassword } = second.server;
  const superuser = endpoint({ host, port, database: tenantsDatabase, login: 'postgres' }, superuserPassword);
  await withConnection(superuser, (connection) =>
    connection.query("insert into shared.notes (tenant_id, body) values ($1, 'left by a move')", [tenant]),
  );
  const instances = { status: async () => undefined };
  const { found } = await world.asProvisioner('catalog', (catalog) =>
    remains({ plane: world.plane, instances }, catalog, tenant, []),
  );
  expect(found).toContain('rows in shared.notes');
});
