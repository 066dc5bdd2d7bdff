import { instanceName } from '../aws/rds.ts';
import { forgetCluster, sharedCluster } from '../catalog/clusters.ts';
import { changeTenantStatus, forgetFirstHome, homesOf } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { loginSecretName } from '../isolation/credentials.ts';
import { isolations } from '../isolation/isolation.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { endpointOf } from './control-plane.ts';
import { droppingLogin } from './drop-login.ts';
import { ownDatabase } from './new-place.ts';
import { endOperation } from './operations.ts';
import type { Provisioner, ProvisionInput } from './provision.ts';
import { failureOf, type Step } from './step.ts';

/**
 * Takes back what this operation made, and nothing else. The tenant stays, `failed`, and can be provisioned again. A home
 * that the tenant lives in is not touched: then the operation had done its work before it could say so.
 */
export const compensate: Step<Provisioner, 'provision'> = async (
  provisioner,
  catalog,
  { operationId, tenant, input },
  failure,
) => {
  const homes = await homesOf(catalog, tenant);
  if (homes.some(({ homeId, isInUse }) => isInUse && homeId === input.homeId))
    return endOperation(catalog, operationId, { state: 'done' });
  await takeBack(provisioner, catalog, tenant, input);
  await changeTenantStatus(catalog, tenant, ['provisioning'], 'failed');
  await endOperation(catalog, operationId, { state: 'failed', ...failureOf(failure) });
};

/**
 * Removes what was made for a home that never opened: everything carries the home's id, an instance this tenant's tag.
 * Safe to repeat. @throws TenantryError `instance_pending` while an instance can't be deleted yet
 */
export async function takeBack(
  { plane, instances }: Pick<Provisioner, 'plane' | 'instances'>,
  catalog: ControlConnection,
  tenant: TenantId,
  { homeId, strategy, placement }: Pick<ProvisionInput, 'homeId' | 'strategy' | 'placement'>,
): Promise<void> {
  const isolation = isolations[strategy];
  const named = { homeId, tenant, strategy, ...isolation.name(homeId), epoch: 1 };
  const own = isolation.place(placement);
  if (own === 'instance') {
    await instances.remove(instanceName(homeId), tenant);
    for (const login of ['tenancy_provisioner', 'tenancy_app'])
      await plane.secrets.remove(loginSecretName(homeId, login));
  } else {
    // By the names that follow from the home's id: a step may have died before it recorded what it made.
    const shared = await sharedCluster(catalog);
    const home = { ...named, database: own === 'database' ? ownDatabase(homeId) : shared.database };
    await droppingLogin(plane, shared, home.login, () =>
      withConnection(endpointOf(plane, shared, isolation.removedFrom(home)), (connection) =>
        isolation.deprovision(connection, home),
      ),
    );
  }
  const secret = isolation.secret(
    named,
    { clusterId: plane.catalog.clusterId, kind: 'shared' },
    plane.loginsUse,
  );
  if (secret) await plane.secrets.remove(secret.name);
  await forgetFirstHome(catalog, homeId);
  if (own === 'instance') await forgetCluster(catalog, homeId);
}

/** Compensation itself failed, again and again: the operation says so, and the next provisioning takes back what is left. */
export const abandon: Step<Provisioner, 'provision'> = async (
  _,
  catalog,
  { operationId, tenant },
  failure,
) => {
  const { step, reason } = failureOf(failure);
  await changeTenantStatus(catalog, tenant, ['provisioning'], 'failed');
  const both = `${reason} (What had been made could not be taken back yet: creating the tenant again begins with that, offboarding it does it too.)`;
  await endOperation(catalog, operationId, { state: 'failed', step, reason: both });
};
