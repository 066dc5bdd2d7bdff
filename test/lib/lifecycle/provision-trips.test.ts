import { expect, it } from 'vitest';
import { KeptConnections } from '../../../functions/lib/database/kept.ts';
import { startWorld } from '../../support/world.ts';
import { startProxy } from '../database/support/proxy.ts';
import { lifecycleOf, stepsOf } from './support.ts';

it('a tenant with a schema of its own takes few round trips to its database and to the catalog', async () => {
  const world = await startWorld();
  const proxy = await startProxy(world.cluster.server.port);
  try {
    const { catalog } = world.plane;
    await world.asProvisioner('catalog', (connection) =>
      connection.query('update catalog.clusters set admin_port = $2 where cluster_id = $1', [
        catalog.clusterId,
        proxy.port,
      ]),
    );
    const kept = new KeptConnections();
    const plane = { ...world.plane, kept, catalog: { ...catalog, port: proxy.port } };
    const lifecycle = lifecycleOf({ ...world, plane });
    // The second finds its connections open. What each tenant is tried through goes another way.
    for (const _ of ['first', 'second']) {
      const { operation } = await lifecycle.begin('schema', 'dedicated');
      proxy.reset();
      for (const step of stepsOf('schema', 'dedicated')) await lifecycle.run(operation, step);
    }
    expect(proxy.roundTrips).toBeLessThanOrEqual(32);
  } finally {
    await proxy.close();
    await world.close();
  }
});
