import { activateTenant, type NewTenant, recordTenant } from '../../functions/lib/catalog/tenants.ts';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { changeHomeState } from '../../functions/lib/isolation/homes.ts';
import { isolations } from '../../functions/lib/isolation/isolation.ts';
import { type ControlPlane, catalogEndpoint } from '../../functions/lib/lifecycle/control-plane.ts';
import { makeHome } from '../../functions/lib/lifecycle/home.ts';
import { recordMigrated, requireReleaseUnedited } from '../../functions/lib/lifecycle/migrated.ts';
import type { Place } from '../../functions/lib/lifecycle/place.ts';
import { migrateHome } from '../../functions/lib/migrations/migrator.ts';
import type { Release } from '../../functions/lib/migrations/release.ts';
import type { TenantId } from '../../functions/lib/tenant/tenant.ts';

/**
 * Makes a tenant and its first home, and opens it: what the state machine does on AWS, in one call, for a cloud that is
 * only starting. Every step is safe to repeat: after a crash or a failure the same call continues. A tenant on shared tables
 * is three statements; their migrations have run before.
 */
export async function onboard(
  plane: ControlPlane,
  tenant: NewTenant,
  place: Place,
  release: Release,
): Promise<TenantId> {
  return withConnection(catalogEndpoint(plane), async (catalog) => {
    if (isolations[tenant.strategy].ownsTables) await requireReleaseUnedited(catalog, release);
    const id = await recordTenant(catalog, tenant);
    const home = await makeHome(plane, catalog, { tenant: id, strategy: tenant.strategy }, place);
    await withConnection(place.admin, async (connection) => {
      if (isolations[home.strategy].ownsTables)
        await migrateHome(connection, { home, databaseId: home.databaseId, keys: plane.keys }, release.home);
      // A home that was suspended meanwhile is not opened again by a repeated onboarding.
      await changeHomeState(connection, home.homeId, ['provisioning'], 'open');
    });
    if (isolations[home.strategy].ownsTables) await recordMigrated(catalog, home, release);
    await activateTenant(catalog, id, home.homeId);
    return id;
  });
}
