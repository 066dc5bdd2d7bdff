import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { compareHomes } from '../../../functions/lib/health/reality.ts';
import { startWorld, type World } from '../../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

it('finds no fault with a home that an operation is making, and names it once nobody does', async () => {
  const neighbour = world.tenants.schema.a;
  const { database, databaseId } = neighbour.home;
  const operation = randomUUID();
  const tenant = randomUUID();
  const home = randomUUID();
  await world.asProvisioner('catalog', async (catalog) => {
    const { rows } = await catalog.query<{ cluster: string }>(
      'select cluster_id as cluster from catalog.homes where home_id = $1',
      [neighbour.home.homeId],
    );
    const clusterId = rows[0]!.cluster;
    await catalog.query(
      `insert into catalog.tenants (tenant_id, slug, tier, strategy) values ($1, 'half-made', 'starter', 'schema')`,
      [tenant],
    );
    await catalog.query(
      `insert into catalog.homes (home_id, tenant_id, strategy, cluster_id, database_id, database_name, schema_name, login, state)
       values ($1, $2, 'schema', $3, $4, $5, 'half_made', 'half_made', 'provisioning')`,
      [home, tenant, clusterId, databaseId, database],
    );
    await catalog.query(
      `insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest)
       values ($1, 'provision', $2, jsonb_build_object('homeId', $3::text), '')`,
      [operation, tenant, home],
    );
    await world.asProvisioner(neighbour, async (connection) => {
      const found = async () =>
        (await compareHomes(catalog, connection, { clusterId, database })).map(({ object }) => object);
      expect(await found()).toEqual([]);
      await catalog.query(
        `update catalog.operations set state = 'failed', finished_at = now() where operation_id = $1`,
        [operation],
      );
      expect(await found()).toEqual([`home ${home} of half-made in ${database}`]);
    });
  });
});
