import { type Instances, instanceName } from '../aws/rds.ts';
import { beginRemoval, buryTenant, closeTenant } from '../catalog/offboarding.ts';
import { homesOf, type ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, inTransaction, withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { awaitWriters, changeHomeState } from '../isolation/homes.ts';
import { isolations } from '../isolation/isolation.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import { droppingLogin } from './drop-login.ts';
import { everyHome, finalSnapshotName, ownOf, secretNames } from './leaving-homes.ts';
import { remains } from './offboard-check.ts';
import {
  beginOperation,
  endOperation,
  type Operation,
  operationOf,
  operationOfKey,
  report,
} from './operations.ts';
import { failureOf, type Step } from './step.ts';

export interface OffboardRequest {
  readonly slug: string;
  /** For so long `resume` undoes it, s. */
  readonly graceSeconds: number;
  /** Where its data goes before it is removed; undefined: nowhere. */
  readonly exportTo: string | undefined;
}

export interface OffboardInput {
  readonly slug: string;
  readonly graceSeconds: number;
  readonly exportTo: string | undefined;
  /** Whatever may hold something of the tenant: the catalog forgets them on the way. */
  readonly homes: readonly ReachableHome[];
}

/** What the steps work with. */
export interface Offboarder {
  readonly plane: ControlPlane;
  readonly instances: Pick<Instances, 'status'>;
  readonly clock: () => number;
}

/** The same, in the function that may delete instances. */
export interface InstanceRemover {
  readonly plane: ControlPlane;
  readonly instances: Pick<Instances, 'status' | 'remove'>;
}

/** How long one run of a step deletes rows, ms: well within its function's time. */
const deletesFor = 5 * 60_000;

/**
 * Begins to offboard a tenant of any status, or answers the operation that this key has begun. What an earlier offboarding
 * has left undone is this one's.
 * @throws TenantryError `idempotency_conflict`, `operation_running`
 */
export async function beginOffboarding(
  catalog: ControlConnection,
  tenant: TenantId,
  request: OffboardRequest,
  idempotencyKey?: string,
): Promise<Operation<'offboard'>> {
  const known = idempotencyKey && (await operationOfKey(catalog, idempotencyKey, 'offboard', request));
  if (known) return known;
  const { slug, graceSeconds, exportTo } = request;
  const input: OffboardInput = { slug, graceSeconds, exportTo, homes: [] };
  const wanted = { kind: 'offboard', tenant, request, input, idempotencyKey } as const;
  return inTransaction(catalog, async () => {
    const { operationId } = await beginOperation(catalog, wanted);
    // From here on nothing else begins on the tenant: what that made would be in no list of homes.
    await catalog.query(
      "update catalog.operations set input = jsonb_set(input, '{homes}', $2) where operation_id = $1 and state = 'running'",
      [operationId, JSON.stringify(await everyHome(catalog, tenant))],
    );
    return operationOf(catalog, operationId, 'offboard');
  });
}

/** @throws RetryableError `unavailable`, `busy` */
async function shut(plane: ControlPlane, home: ReachableHome, { exportTo }: OffboardInput): Promise<void> {
  try {
    await withConnection(endpointOf(plane, home), async (connection) => {
      await changeHomeState(
        connection,
        home.homeId,
        ['open', 'read_only', 'fenced', 'suspended'],
        'suspended',
      );
      await awaitWriters(connection, home.homeId);
    });
  } catch (cause) {
    if (!(cause instanceof ConnectFailure)) throw cause;
    // A server that is away serves nobody. An instance goes without being read, so nothing needs it to be there.
    if (exportTo === undefined && ownOf(home) === 'instance') return;
    throw new RetryableError(
      'unavailable',
      'The tenant’s home can’t be reached. The catalog refuses its calls already; bring its server up (start a stopped instance), then offboard it again. A dedicated instance can also go without being read: offboard it with --no-export.',
      2,
      { cause },
    );
  }
}

const cancelled = () => new TenantryError('operation_cancelled', 'This offboarding has been undone.');

/**
 * The steps of `stepfunctions/offboard-tenant.asl.json`, but `exportTenant` and `removeInstance`, which other functions have
 * the rights for. Each may run twice, in parallel with itself, or die at any line. None opens the tenant again.
 */
export const offboardSteps = {
  /** Closes it: the catalog first, then the home, whose last writers it waits for. */
  async suspend({ plane }, catalog, { operationId, tenant, input }) {
    const closed = await closeTenant(catalog, tenant, operationId);
    if (closed === undefined) throw cancelled();
    const home = (await homesOf(catalog, tenant)).find(({ isInUse }) => isInUse);
    if (closed.noGrace || home === undefined) return closed;
    await shut(plane, home, input);
    await report(catalog, operationId, { graceSeconds: input.graceSeconds });
    return closed;
  },

  /** After the grace period: what follows can't be undone. */
  async beginRemoval(_, catalog, { operationId, tenant }) {
    if (!(await beginRemoval(catalog, tenant, operationId))) throw cancelled();
  },

  /** Rows, or schema, or database, with login. An instance goes whole, by the function that may. */
  async removeHome({ plane, clock }, _, { input }) {
    const until = clock() + deletesFor;
    const isOver = () => clock() >= until;
    for (const home of input.homes) {
      if (ownOf(home) === 'instance') continue;
      const isolation = isolations[home.strategy];
      const rows = { ...home, keys: plane.keys };
      await droppingLogin(plane, home, home.login, () =>
        withConnection(endpointOf(plane, home, isolation.removedFrom(home)), async (connection) => {
          if (!(await isolation.removeRows(connection, rows, isOver)))
            throw new TenantryError('unfinished', 'There are more rows to delete.');
          await isolation.deprovision(connection, home);
        }),
      );
    }
  },

  async removeSecrets({ plane }, _, { input }) {
    for (const name of input.homes.flatMap((home) => secretNames(plane, home)))
      await plane.secrets.remove(name);
  },

  /** API keys, homes and clusters out of the catalog, and the tombstone into it. */
  async bury(_, catalog, { tenant, input }) {
    await buryTenant(
      catalog,
      tenant,
      input.homes.map(({ clusterId }) => clusterId),
    );
  },

  /** Looks at every place where something of the tenant could be. @throws TenantryError `not_removed` that names it */
  async check(offboarder, catalog, { operationId, tenant, input }) {
    const { looked, found } = await remains(offboarder, catalog, tenant, input.homes);
    await report(catalog, operationId, { checked: looked, left: found });
    if (found.length > 0)
      throw new TenantryError(
        'not_removed',
        `Something of the tenant is still there: ${found.join(', ')}. Remove what keeps it, then offboard the tenant again.`,
      );
    await endOperation(catalog, operationId, { state: 'done' });
  },

  /** The tenant stays closed, whatever the step was; another offboarding goes on from there. */
  async recordFailure(_, catalog, { operationId }, failure) {
    await endOperation(catalog, operationId, { state: 'failed', ...failureOf(failure) });
  },
} as const satisfies Record<string, Step<Offboarder, 'offboard'>>;

/** In the function that may delete instances: ends this tenant's, with a final snapshot. @throws TenantryError `instance_pending` until they are gone */
export const instanceSteps = {
  async removeInstance({ instances }, catalog, { operationId, tenant, input }) {
    for (const home of input.homes.filter((home) => ownOf(home) === 'instance')) {
      const name = instanceName(home.homeId);
      if ((await instances.status(name, tenant)) === undefined) continue;
      const snapshot = finalSnapshotName(home.homeId);
      await report(catalog, operationId, { finalSnapshot: snapshot });
      await instances.remove(name, tenant, snapshot);
      throw new TenantryError('instance_pending', `The instance ${name} is being deleted.`);
    }
  },
} as const satisfies Record<string, Step<InstanceRemover, 'offboard'>>;
