import { randomUUID } from 'node:crypto';
import { recordCluster } from '../../functions/lib/catalog/clusters.ts';
import { recordSchemaState } from '../../functions/lib/catalog/migration-runs.ts';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { sharedHome } from '../../functions/lib/isolation/isolation.ts';
import { type Place, preparePlace } from '../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../functions/lib/migrations/install.ts';
import { migrateHome } from '../../functions/lib/migrations/migrator.ts';
import { newestState } from '../../functions/lib/migrations/release.ts';
import { startCluster, type TestCluster } from './cluster.ts';
import type { World } from './world.ts';

export interface SharedCluster {
  readonly server: TestCluster;
  readonly place: Place;
  /** In a database of its own in this cluster. */
  ownPlace(): Promise<Place>;
}

/** One more shared cluster of a world, a server of its own: tenants can be moved to it. The caller closes it. */
export async function addSharedCluster({ plane, release, asProvisioner }: World): Promise<SharedCluster> {
  const server = await startCluster();
  const { host, port } = server.server;
  const cluster = {
    kind: 'shared',
    clusterId: randomUUID(),
    region: 'eu-west-1',
    ...{ host, port, adminHost: host, adminPort: port },
  } as const;
  const place = await preparePlace(plane, cluster, tenantsDatabase, server.master);
  await withConnection(place.admin, (connection) =>
    migrateHome(
      connection,
      { home: sharedHome, databaseId: place.databaseId, keys: plane.keys },
      release.home,
    ),
  );
  await asProvisioner('catalog', async (catalog) => {
    await recordCluster(catalog, cluster, place);
    await recordSchemaState(catalog, cluster, newestState(release));
  });
  const ownPlace = () =>
    preparePlace(plane, cluster, `own_${randomUUID().replaceAll('-', '')}`, server.master);
  return { server, place, ownPlace };
}
