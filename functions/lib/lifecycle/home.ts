import { randomUUID } from 'node:crypto';
import { type CatalogHome, recordFirstHome } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { isolations } from '../isolation/isolation.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import type { ControlPlane } from './control-plane.ts';
import { keepLoginSecret, type Place } from './place.ts';

/**
 * A tenant's first home in a place that is ready: recorded in the catalog, with its login and schema, not open yet.
 * Safe to repeat: the home that is there is completed.
 */
export async function makeHome(
  plane: ControlPlane,
  catalog: ControlConnection,
  { tenant, strategy, homeId = randomUUID() }: { tenant: TenantId; strategy: Strategy; homeId?: string },
  place: Place,
): Promise<CatalogHome> {
  const isolation = isolations[strategy];
  const { clusterId, database, databaseId, host, port } = place;
  const { schema, login } = isolation.name(homeId);
  const home = await recordFirstHome(catalog, {
    homeId,
    tenant,
    strategy,
    clusterId,
    database,
    databaseId,
    schema,
    login,
    epoch: 1,
  });
  const secret = isolation.secret(home, place, plane.loginsUse);
  const at = { host, port, dbname: database, username: home.login };
  const password = secret && (await keepLoginSecret(plane, secret, at));
  await withConnection(place.admin, (connection) => isolation.provision(connection, home, password));
  return home;
}
