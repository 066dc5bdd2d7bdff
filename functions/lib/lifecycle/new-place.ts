import { instanceName } from '../aws/rds.ts';
import {
  type Cluster,
  findCluster,
  recordCluster,
  type SharedDatabase,
  sharedCluster,
} from '../catalog/clusters.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import type { Endpoint } from '../database/types.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import { createDatabase } from '../migrations/install.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import { type Place, preparePlace, runtimeIn } from './place.ts';
import type { Provisioner, ProvisionInput } from './provision.ts';

export const ownDatabase = (homeId: string) => `home_${homeId.replaceAll('-', '')}`;

/** Where the home shall be: made ready to take it, when it is a database or an instance of its own. */
export async function placeFor(
  provisioner: Pick<Provisioner, 'plane' | 'instances' | 'region'>,
  catalog: ControlConnection,
  input: Pick<ProvisionInput, 'homeId' | 'strategy' | 'placement'>,
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
  return sharedPlace(plane, await sharedCluster(catalog), input.homeId, own);
}

/** The instance that `placeFor` has made ready, without its master's password. @throws TenantryError `internal` when it has not */
export async function instancePlace(
  plane: ControlPlane,
  catalog: ControlConnection,
  homeId: string,
): Promise<Place> {
  const cluster = await findCluster(catalog, homeId);
  if (cluster === undefined) throw new TenantryError('internal', 'The instance of this home is not ready.');
  const { clusterId, kind, host, port } = cluster;
  const database = ownDatabase(homeId);
  const admin = endpointOf(plane, { ...cluster, database });
  const databaseId = await runtimeIn(plane, admin);
  return { clusterId, kind, host, port, database, databaseId, admin };
}

/** In a shared cluster: its database, or one of the home's own. */
export async function sharedPlace(
  plane: ControlPlane,
  shared: Cluster & SharedDatabase,
  homeId: string,
  own: 'shared' | 'database',
): Promise<Place> {
  const { clusterId, host, port } = shared;
  const admin = (database: string) => endpointOf(plane, shared, database);
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
  const databaseId = await runtimeIn(plane, admin(database));
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
