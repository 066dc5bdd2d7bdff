import { instanceName } from '../aws/rds.ts';
import { forgetCluster } from '../catalog/clusters.ts';
import { forgetLeftHome, type Move, recordMove } from '../catalog/moves.ts';
import { findHome, presentHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { loginSecretName } from '../isolation/credentials.ts';
import { finalSnapshotName } from './leaving-homes.ts';
import type { MoveOperation } from './move.ts';
import { moveOf } from './move-begin.ts';
import { secretOf } from './move-target.ts';
import { goingOn, readMoveOf } from './move-turn.ts';
import { placeFor } from './new-place.ts';
import { report } from './operations.ts';
import type { Provisioner } from './provision.ts';
import type { Step } from './step.ts';

/** The steps of `stepfunctions/move-tenant.asl.json` in the function that may make and delete instances; safe to repeat. */
export const moveInstanceSteps = {
  /** The identifier is the home's, so that a repetition finds what the first run made. */
  async createTargetInstance({ instances }, catalog, { operationId, tenant, input }) {
    await recordMove(catalog, moveOf(operationId, tenant, input));
    await goingOn(catalog, operationId, 'moving');
    await instances.create(instanceName(input.homeId), tenant);
  },

  /** Roles, runtime and the home's database, with the master's password; after it the mover gets in. @throws TenantryError `instance_pending` until it is there */
  async prepareTargetInstance(provisioner, catalog, { operationId, input }) {
    await goingOn(catalog, operationId, 'moving');
    await placeFor(provisioner, catalog, input);
  },

  /** What the tenant has lived in goes with a final snapshot. @throws TenantryError `instance_pending` until it is gone */
  async removeLeftInstance({ plane, instances }, catalog, operation) {
    const { operationId, tenant } = operation;
    const move = await readMoveOf(catalog, operationId);
    const left = await leftHome(catalog, move);
    if (!leavesInstance(operation, left)) return;
    const name = instanceName(left);
    if ((await instances.status(name, tenant)) !== undefined) {
      const snapshot = move.phase === 'cancelled' ? undefined : finalSnapshotName(left);
      if (snapshot !== undefined) await report(catalog, operationId, { finalSnapshot: snapshot });
      await instances.remove(name, tenant, snapshot);
      throw new TenantryError('instance_pending', `The instance ${name} is being deleted.`);
    }
    const home = await findHome(catalog, left);
    const kept = await presentHome(catalog, tenant);
    const own = secretOf(plane, home ?? { ...kept, homeId: left, strategy: operation.input.strategy });
    if (own !== undefined && own !== secretOf(plane, kept)) await plane.secrets.remove(own);
    for (const login of ['tenancy_provisioner', 'tenancy_app'])
      await plane.secrets.remove(loginSecretName(left, login));
    await forgetLeftHome(catalog, left);
    await forgetCluster(catalog, left);
    await report(catalog, operationId, { removedInstance: name });
  },
} as const satisfies Record<string, Step<Provisioner, MoveOperation>>;

/** Whether this home is an instance that is still to be deleted. */
export const leavesInstance = ({ input, result }: MoveOperation, homeId: string): boolean =>
  input.instances.includes(homeId) && result.removedInstance !== instanceName(homeId);

/** The home that the tenant does not live in, once that is settled. @throws TenantryError `internal` while it is not */
async function leftHome(
  catalog: ControlConnection,
  { tenant, phase, sourceHome, targetHome }: Move,
): Promise<string> {
  const left = phase === 'completed' ? sourceHome : targetHome;
  const { homeId } = await presentHome(catalog, tenant);
  if (!['completed', 'reversed', 'cancelled'].includes(phase) || left === homeId)
    throw new TenantryError('internal', 'It is not settled where the tenant lives: nothing was removed.');
  return left;
}
