import { randomUUID } from 'node:crypto';
import {
  activateTenant,
  type CatalogHome,
  type NewTenant,
  recordFirstHome,
  recordTenant,
} from '../catalog/tenants.ts';
import { withConnection } from '../database/connect.ts';
import { changeHomeState } from '../isolation/homes.ts';
import { isolations } from '../isolation/isolation.ts';
import type { MigrationFile } from '../migrations/migration-file.ts';
import { migrateHome } from '../migrations/migrator.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type ControlPlane, catalogEndpoint } from './control-plane.ts';
import { keepLoginSecret, type Place } from './place.ts';

/**
 * Makes a tenant and its first home, and opens it. Every step is safe to repeat: after a crash or a failure the same
 * call continues. A tenant on shared tables is three statements; their migrations have run before.
 */
export async function onboard(
  plane: ControlPlane,
  tenant: NewTenant,
  place: Place,
  files: readonly MigrationFile[],
): Promise<TenantId> {
  return withConnection(catalogEndpoint(plane), async (catalog) => {
    const id = await recordTenant(catalog, tenant);
    const homeId = randomUUID();
    const { clusterId, database, databaseId } = place;
    const { schema, login } = isolations[tenant.strategy].name(homeId);
    const home = await recordFirstHome(catalog, {
      homeId,
      tenant: id,
      strategy: tenant.strategy,
      clusterId,
      database,
      databaseId,
      schema,
      login,
      epoch: 1,
    });
    await buildHome(plane, home, place, files);
    await activateTenant(catalog, id, home.homeId);
    return id;
  });
}

async function buildHome(
  plane: ControlPlane,
  home: CatalogHome,
  place: Place,
  files: readonly MigrationFile[],
): Promise<void> {
  const isolation = isolations[home.strategy];
  const password = await homePassword(plane, home, place);
  await withConnection(place.admin, async (connection) => {
    await isolation.provision(connection, home, password);
    if (isolation.ownsTables)
      await migrateHome(connection, { home, databaseId: home.databaseId, keys: plane.keys }, files);
    // A home that was suspended meanwhile is not opened again by a repeated onboarding.
    await changeHomeState(connection, home.homeId, ['provisioning'], 'open');
  });
}

async function homePassword(
  plane: ControlPlane,
  home: CatalogHome,
  place: Place,
): Promise<string | undefined> {
  const secret = isolations[home.strategy].secret(home, place, plane.loginsUse);
  if (secret === undefined) return undefined;
  const { host, port } = place;
  return keepLoginSecret(plane, secret, { host, port, dbname: home.database, username: home.login });
}
