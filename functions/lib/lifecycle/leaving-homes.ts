import { instanceName } from '../aws/rds.ts';
import { sharedCluster } from '../catalog/clusters.ts';
import { homesOf, type ReachableHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { loginSecretName } from '../isolation/credentials.ts';
import { isolations } from '../isolation/isolation.ts';
import type { TenantId } from '../tenant/tenant.ts';
import type { ControlPlane } from './control-plane.ts';
import type { MoveInput } from './move.ts';
import { ownDatabase } from './new-place.ts';
import type { Operation } from './operations.ts';

/** What a home has to itself. An instance is known by its cluster's id, which is the home's. */
export const ownOf = ({ strategy, clusterId, homeId }: ReachableHome) =>
  isolations[strategy].place(clusterId === homeId ? 'dedicated' : 'shared-cluster');

/** The name under which RDS keeps the data of a dedicated instance that is gone. */
export const finalSnapshotName = (homeId: string) => `${instanceName(homeId)}-final`;

/** The secrets of a home's logins, and those of an instance's own. */
export const secretNames = (plane: ControlPlane, home: ReachableHome): string[] => {
  const { clusterId, homeId } = home;
  const isInstance = ownOf(home) === 'instance';
  const kind = isInstance ? 'dedicated' : 'shared';
  const secret = isolations[home.strategy].secret(home, { clusterId, kind }, plane.loginsUse);
  // Where logins use IAM there are none.
  const instance =
    isInstance && plane.loginsUse === 'secret'
      ? ['tenancy_provisioner', 'tenancy_app'].map((login) => loginSecretName(homeId, login))
      : [];
  return [...(secret ? [secret.name] : []), ...instance];
};

/** The homes that the catalog knows, those that earlier offboardings knew, and those that a provisioning or a move may have left behind. */
export async function everyHome(catalog: ControlConnection, tenant: TenantId): Promise<ReachableHome[]> {
  const homes = new Map<string, ReachableHome>();
  const { rows } = await catalog.query<Operation<'provision' | 'move' | 'offboard'>>(
    "select kind, input from catalog.operations where tenant_id = $1 and kind in ('provision', 'move', 'offboard') order by started_at",
    [tenant],
  );
  for (const { kind, input } of rows) {
    if (kind === 'offboard') for (const home of input.homes) homes.set(home.homeId, home);
    else homes.set(input.homeId, await plannedHome(catalog, tenant, input));
  }
  for (const home of await homesOf(catalog, tenant)) homes.set(home.homeId, home);
  return [...homes.values()];
}

/** Where a provisioning or a move puts a home, whether or not it came so far. */
export async function plannedHome(
  catalog: ControlConnection,
  tenant: TenantId,
  planned: Pick<MoveInput, 'homeId' | 'strategy' | 'clusterId'> & Partial<Pick<MoveInput, 'placement'>>,
): Promise<ReachableHome> {
  const { homeId, strategy, placement = 'shared-cluster' } = planned;
  const isolation = isolations[strategy];
  const { clusterId, adminHost, adminPort, database, databaseId } = await sharedCluster(
    catalog,
    planned.clusterId,
  );
  const own = isolation.place(placement);
  return {
    homeId,
    tenant,
    strategy,
    ...isolation.name(homeId),
    clusterId: own === 'instance' ? homeId : clusterId,
    database: own === 'shared' ? database : ownDatabase(homeId),
    databaseId,
    epoch: 1,
    adminHost,
    adminPort,
  };
}
