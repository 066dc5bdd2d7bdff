import { reopenTenant } from '../catalog/offboarding.ts';
import { presentHome, type ReachableHome, suspendTenant } from '../catalog/tenants.ts';
import { withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { TenantryError } from '../errors.ts';
import { changeHomeState } from '../isolation/homes.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type ControlPlane, catalogEndpoint, endpointOf } from './control-plane.ts';

/**
 * Refuses the tenant's calls from the next one on: the home itself refuses them, whatever a warm environment remembers.
 * Running calls end within their `statement_timeout`.
 * @returns `pending` when the home could not be reached: the catalog refuses already, environments follow within 30 s;
 *   repeat it to be sure
 * @throws TenantryError `wrong_status`
 */
export async function suspend(plane: ControlPlane, tenant: TenantId): Promise<'done' | 'pending'> {
  await withConnection(catalogEndpoint(plane), async (catalog) => {
    // The catalog first: a crash between the two leaves a tenant that new environments already refuse.
    if (!(await suspendTenant(catalog, tenant)))
      throw new TenantryError('wrong_status', 'Only a tenant that is active can become suspended.');
  });
  return tellHome(plane, tenant);
}

/**
 * Undoes `suspend`, and an offboarding in its grace period.
 * @throws TenantryError `wrong_status`; RetryableError `busy` while a step of the offboarding is at work
 */
export async function resume(plane: ControlPlane, tenant: TenantId): Promise<'done' | 'pending'> {
  await withConnection(catalogEndpoint(plane), async (catalog) => {
    if (!(await reopenTenant(catalog, tenant)))
      throw new TenantryError(
        'wrong_status',
        'Only a tenant that is suspended, or being offboarded and still in its grace period, can become active.',
      );
  });
  return tellHome(plane, tenant);
}

/**
 * Tells the tenant's home what the catalog says of it now, in turn with others that do: of a suspension and a resumption at
 * once the later one counts, in the home too.
 * @returns `pending` when the home could not be reached
 */
export const tellHome = (plane: ControlPlane, tenant: TenantId): Promise<'done' | 'pending'> =>
  withConnection(catalogEndpoint(plane), async (catalog) => {
    const lock = "hashtext('tenancy.status'), hashtext($1)";
    await catalog.query(`select pg_advisory_lock(${lock})`, [tenant]);
    const { rows } = await catalog.query('select status from catalog.tenants where tenant_id = $1', [tenant]);
    const to = rows[0]?.status === 'active' ? 'open' : 'suspended';
    const told = await changeHome(plane, await presentHome(catalog, tenant), to);
    await catalog.query(`select pg_advisory_unlock(${lock})`, [tenant]);
    return told;
  });

async function changeHome(
  plane: ControlPlane,
  home: ReachableHome,
  to: 'open' | 'suspended',
): Promise<'done' | 'pending'> {
  try {
    return (await withConnection(endpointOf(plane, home), (connection) =>
      changeHomeState(connection, home.homeId, ['open', 'suspended'], to),
    ))
      ? 'done'
      : 'pending';
  } catch (error) {
    if (error instanceof ConnectFailure) return 'pending';
    throw error;
  }
}
