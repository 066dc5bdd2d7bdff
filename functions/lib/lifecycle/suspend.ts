import { presentHome, setTenantStatus } from '../catalog/tenants.ts';
import { withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { TenantryError } from '../errors.ts';
import { changeHomeState } from '../isolation/homes.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { adminEndpoint, type ControlPlane, catalogEndpoint } from './control-plane.ts';

/**
 * Refuses the tenant's calls from the next one on: the home itself refuses them, whatever a warm environment remembers.
 * Running calls end within their `statement_timeout`.
 * @returns `pending` when the home could not be reached: the catalog refuses already, environments follow within 30 s;
 *   repeat it to be sure
 * @throws TenantryError `wrong_status`
 */
export const suspend = (plane: ControlPlane, tenant: TenantId): Promise<'done' | 'pending'> =>
  change(plane, tenant, ['active', 'suspended'], 'suspended', ['open', 'suspended'], 'suspended');

/** Undoes `suspend`. @throws TenantryError `wrong_status` */
export const resume = (plane: ControlPlane, tenant: TenantId): Promise<'done' | 'pending'> =>
  change(plane, tenant, ['suspended', 'active'], 'active', ['suspended', 'open'], 'open');

async function change(
  plane: ControlPlane,
  tenant: TenantId,
  from: readonly ('active' | 'suspended')[],
  to: 'active' | 'suspended',
  homeFrom: readonly ('open' | 'suspended')[],
  homeTo: 'open' | 'suspended',
): Promise<'done' | 'pending'> {
  const home = await withConnection(catalogEndpoint(plane), async (catalog) => {
    // The catalog first: a crash between the two leaves a tenant that new environments already refuse.
    if (!(await setTenantStatus(catalog, tenant, from, to, homeTo)))
      throw new TenantryError('wrong_status', `Only a tenant that is ${from.join(' or ')} can become ${to}.`);
    return presentHome(catalog, tenant);
  });
  const { clusterId, adminHost, adminPort, database, homeId } = home;
  const admin = adminEndpoint(plane, { clusterId, host: adminHost, port: adminPort, database });
  try {
    return (await withConnection(admin, (connection) =>
      changeHomeState(connection, homeId, homeFrom, homeTo),
    ))
      ? 'done'
      : 'pending';
  } catch (error) {
    if (error instanceof ConnectFailure) return 'pending';
    throw error;
  }
}
