import { instanceName } from '../aws/rds.ts';
import { forgetCluster } from '../catalog/clusters.ts';
import { forgetLeftHome, type Move, movesThatLeft, recordMove } from '../catalog/moves.ts';
import { findHome, presentHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { loginSecretName } from '../isolation/credentials.ts';
import { finalSnapshotName } from './leaving-homes.ts';
import { moveOf } from './move-begin.ts';
import { leavesInstance } from './move-end.ts';
import { unlessEnded } from './move-late.ts';
import { secretOf } from './move-target.ts';
import { goingOn, readMoveOf } from './move-turn.ts';
import { placeFor } from './new-place.ts';
import { type Operation, operationOf, report } from './operations.ts';
import type { Provisioner } from './provision.ts';
import type { Step } from './step.ts';

/** The steps of `stepfunctions/move-tenant.asl.json` in the function that may make and delete instances; safe to repeat. */
export const moveInstanceSteps = {
  /** The identifier is the home's, so that a repetition finds what the first run made. */
  async createTargetInstance(provisioner, catalog, operation) {
    const { operationId, tenant, input } = operation;
    await recordMove(catalog, moveOf(operation));
    await goingOn(catalog, operationId, 'moving');
    await unlessOver(provisioner, catalog, operation, () =>
      provisioner.instances.create(instanceName(input.homeId), tenant),
    );
  },

  /** Roles, runtime and the home's database, with the master's password; after it the mover gets in. @throws TenantryError `instance_pending` until it is there */
  async prepareTargetInstance(provisioner, catalog, operation) {
    await goingOn(catalog, operation.operationId, 'moving');
    await unlessOver(provisioner, catalog, operation, () => placeFor(provisioner, catalog, operation.input));
  },

  /** What the tenant has lived in goes with a final snapshot. @throws TenantryError `instance_pending` until it is gone */
  async removeLeftInstance(provisioner, catalog, operation) {
    const move = await readMoveOf(catalog, operation.operationId);
    await removeInstance(provisioner, catalog, operation, move, await leftHome(catalog, move));
  },

  /** The same for earlier moves of the tenant, which were given up: one that somebody else has deleted meanwhile is gone. */
  async removeEarlierInstances(provisioner, catalog, { operationId, tenant }) {
    await goingOn(catalog, operationId, 'moving');
    for (const id of await movesThatLeft(catalog, tenant)) {
      const earlier = await readMoveOf(catalog, id);
      const { homeId } = await presentHome(catalog, tenant);
      const left = earlier.sourceHome === homeId ? earlier.targetHome : earlier.sourceHome;
      await removeInstance(provisioner, catalog, await operationOf(catalog, id, 'move'), earlier, left);
    }
  },
} as const satisfies Record<string, Step<Provisioner, 'move'>>;

/** Whatever is made too late goes again, without a snapshot: nobody has lived there. */
const unlessOver = (
  provisioner: Provisioner,
  catalog: ControlConnection,
  operation: Operation<'move'>,
  make: () => Promise<unknown>,
): Promise<unknown> =>
  unlessEnded(
    provisioner.plane,
    catalog,
    operation.operationId,
    (goOn) => goOn().then(make),
    async (fresh) => {
      const move = await readMoveOf(fresh, operation.operationId);
      await removeInstance(provisioner, fresh, operation, move, move.targetHome);
    },
  );

/** Nothing, when this home is no instance of the move, or was removed before. @throws TenantryError `instance_pending` until it is gone */
async function removeInstance(
  { plane, instances }: Provisioner,
  catalog: ControlConnection,
  operation: Operation<'move'>,
  { phase }: Move,
  left: string,
): Promise<void> {
  if (!leavesInstance(operation, left)) return;
  const { operationId, tenant } = operation;
  const name = instanceName(left);
  if ((await instances.status(name, tenant)) !== undefined) {
    const hasLivedThere = phase !== 'moving' && phase !== 'cancelled';
    const snapshot = hasLivedThere ? finalSnapshotName(left) : undefined;
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
}

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
