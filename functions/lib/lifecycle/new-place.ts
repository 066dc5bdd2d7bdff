import { instanceName } from '../aws/rds.ts';
import { type Cluster, recordCluster, sharedCluster } from '../catalog/clusters.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import type { Endpoint } from '../database/types.ts';
import { isolations } from '../isolation/isolation.ts';
import { createDatabase, installRuntime } from '../migrations/install.ts';
import { adminEndpoint, type ControlPlane } from './control-plane.ts';
import { type Place, preparePlace } from './place.ts';
import type { Provisioner, ProvisionInput } from './provision.ts';

export const ownDatabase = (homeId: string) => `home_${homeId.replaceAll('-', '')}`;

/** Where the home shall be: made ready to take it, when it is a database or an instance of its own. */
export async function placeFor(
  provisioner: Provisioner,
  catalog: ControlConnection,
  input: ProvisionInput,
): Promise<Place> {
  const { plane, instances, region } = provisioner;
  const own = isolations[input.strategy].place(input.placement);
  if (own === 'instance') {
    const { host, port, masterSecretArn, masterUsername } = await instances.ready(instanceName(input.homeId));
    const cluster: Cluster = {
      clusterId: input.homeId,
      kind: 'dedicated',
      region,
      host,
      port,
      adminHost: host,
      adminPort: port,
    };
    await recordCluster(catalog, cluster);
    return preparePlace(
      plane,
      cluster,
      ownDatabase(input.homeId),
      await masterEndpoint(plane, masterSecretArn, masterUsername, cluster),
    );
  }
  return sharedPlace(plane, catalog, input.homeId, own);
}

/** In the shared cluster: its database, or one of the home's own. */
export async function sharedPlace(
  plane: ControlPlane,
  catalog: ControlConnection,
  homeId: string,
  own: 'shared' | 'database',
): Promise<Place> {
  const shared = await sharedCluster(catalog);
  const { clusterId, host, port, adminHost, adminPort } = shared;
  const admin = (database: string) =>
    adminEndpoint(plane, { clusterId, host: adminHost, port: adminPort, database });
  const place = { clusterId, kind: 'shared', host, port } as const;
  if (own === 'shared')
    return {
      ...place,
      database: shared.database,
      databaseId: shared.databaseId,
      admin: admin(shared.database),
    };
  const database = ownDatabase(homeId);
  await withConnection(admin('postgres'), (connection) => createDatabase(connection, database));
  const databaseId = await withConnection(admin(database), (connection) =>
    installRuntime(connection, plane.keys, plane.extensions),
  );
  return { ...place, database, databaseId, admin: admin(database) };
}

async function masterEndpoint(
  plane: ControlPlane,
  secretArn: string,
  login: string,
  at: Cluster,
): Promise<Endpoint> {
  const { password } = JSON.parse(await plane.secrets.read(secretArn)) as { password: string };
  return {
    host: at.adminHost,
    port: at.adminPort,
    database: 'postgres',
    login,
    tls: plane.tls,
    password: async () => password,
  };
}
