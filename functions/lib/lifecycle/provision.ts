import { randomUUID } from 'node:crypto';
import { type Instances, instanceName } from '../aws/rds.ts';
import {
  activateTenant,
  changeTenantStatus,
  findHome,
  homesOf,
  type NewTenant,
  type ReachableHome,
  recordTenant,
} from '../catalog/tenants.ts';
import { answersOf, type ControlConnection, inTransaction, withConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { changeHomeState } from '../isolation/homes.ts';
import { isolations } from '../isolation/isolation.ts';
import { migrateHome } from '../migrations/migrator.ts';
import type { Release } from '../migrations/release.ts';
import type { Placement, TenantId } from '../tenant/tenant.ts';
import { takeBack } from './compensate.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import { makeHome } from './home.ts';
import { recordMigrated, requireReleaseUnedited } from './migrated.ts';
import { placeFor } from './new-place.ts';
import { beginOperation, type Operation, operationOfKey } from './operations.ts';
import { tryPath } from './probe.ts';
import type { Step } from './step.ts';

export interface ProvisionRequest extends NewTenant {
  readonly placement?: Placement;
}

export interface ProvisionInput {
  readonly homeId: string;
  readonly slug: string;
  readonly tier: NewTenant['tier'];
  readonly strategy: NewTenant['strategy'];
  readonly placement: Placement;
}

/** What the steps work with. */
export interface Provisioner {
  readonly plane: ControlPlane;
  readonly instances: Instances;
  readonly region: string;
  readonly release: Release;
  /** A real tool call through the tenant's data path, before it is opened. @throws when it does not hold */
  probe(tenant: TenantId): Promise<void>;
}

/**
 * Begins to provision a tenant, or answers the operation that this key or slug has begun. A tenant that could not be
 * provisioned before becomes what is asked for now.
 * @throws TenantryError `slug_invalid`, `slug_taken`, `wrong_strategy`, `idempotency_conflict`, `operation_running`
 */
export async function beginProvisioning(
  catalog: ControlConnection,
  request: ProvisionRequest,
  idempotencyKey?: string,
): Promise<Operation<'provision'>> {
  const known = idempotencyKey && (await operationOfKey(catalog, idempotencyKey, 'provision', request));
  if (known) return unlessGone(catalog, known);
  const { slug, tier, strategy, placement = 'dedicated' } = request;
  const input: ProvisionInput = { homeId: randomUUID(), slug, tier, strategy, placement };
  // What the tenant is recorded as goes with the operation that makes it so: another one that runs undoes both.
  return inTransaction(catalog, async () => {
    const tenant = await recordTenant(catalog, request);
    await requireNew(catalog, tenant, request);
    return beginOperation(catalog, {
      kind: 'provision',
      tenant,
      request,
      input,
      idempotencyKey,
      whileTenantIs: ['provisioning', 'failed'],
    });
  }).catch((error) => {
    if (error instanceof TenantryError && error.code === 'wrong_status')
      throw new TenantryError('slug_taken', `There is a tenant ${slug} already: it has just been made.`);
    throw error;
  });
}

/** Provisionings of a tenant ($1) that could not take back what they had made, which no later one has done for them. */
const abandoned = `select o.input from catalog.operations o
  where o.tenant_id = $1 and o.kind = 'provision' and o.state = 'failed'
    and exists (select from catalog.operation_steps s where s.operation_id = o.operation_id and s.step = 'abandon')
    and not exists (select from catalog.operations l join catalog.operation_steps s using (operation_id)
                     where l.tenant_id = o.tenant_id and l.kind = 'provision' and l.started_at > o.started_at
                       and s.step = 'reserve' and s.outcome = 'done')`;

/** @throws TenantryError `slug_taken`; `wrong_strategy` while there is something to take back that only the other strategy's way can */
async function requireNew(
  catalog: ControlConnection,
  tenant: TenantId,
  { slug, strategy }: ProvisionRequest,
): Promise<void> {
  const { rows } = await catalog.query(
    `select t.status, l.strategy as left from catalog.tenants t
       left join (select strategy from catalog.homes where tenant_id = $1
                  union all select input ->> 'strategy' from (${abandoned}) a) l on l.strategy <> $2
      where t.tenant_id = $1`,
    [tenant, strategy],
  );
  const { status, left } = rows[0]!;
  if (!['provisioning', 'failed'].includes(status))
    throw new TenantryError('slug_taken', `There is a tenant ${slug} already: it is ${status}.`);
  if (left !== null)
    throw new TenantryError(
      'wrong_strategy',
      `What was made for ${slug} as ${left} could not be taken back yet. Create it as ${left} again, which does that, and move it then; or offboard it.`,
    );
}

/** What an old key has made and is gone stays gone. @throws TenantryError `slug_taken` */
async function unlessGone(
  catalog: ControlConnection,
  operation: Operation<'provision'>,
): Promise<Operation<'provision'>> {
  const { rows } = await catalog.query(
    "select slug from catalog.tenants where tenant_id = $1 and status = 'offboarded'",
    [operation.tenant],
  );
  if (rows[0] !== undefined)
    throw new TenantryError(
      'slug_taken',
      `The tenant ${rows[0].slug} that this key has created was offboarded: its slug stays taken. Choose another one, with a new key.`,
    );
  return operation;
}

/** The steps of `stepfunctions/provision-tenant.asl.json`. Each may run twice, in parallel with itself, or die at any line. */
export const provisionSteps = {
  /**
   * Takes the tenant (back) into provisioning, and back what an earlier one could not take back: a tenant has one first home.
   * @throws TenantryError `instance_pending` while an instance can't be deleted yet
   */
  async reserve(provisioner, catalog, { tenant, input }) {
    const [, homes, earlier] = await answersOf([
      changeTenantStatus(catalog, tenant, ['failed'], 'provisioning'),
      homesOf(catalog, tenant),
      catalog.query<{ input: ProvisionInput }>(abandoned, [tenant]),
    ]);
    for (const { homeId, strategy, clusterId, isInUse } of homes) {
      if (isInUse || homeId === input.homeId) continue;
      const placement = clusterId === homeId ? 'dedicated' : 'shared-cluster';
      await takeBack(provisioner, catalog, tenant, { homeId, strategy, placement });
    }
    // One that failed before its home was recorded: an instance may be all there is of it.
    for (const { input: left } of earlier.rows)
      if (!homes.some(({ homeId }) => homeId === left.homeId))
        await takeBack(provisioner, catalog, tenant, left);
  },

  /** The identifier is the home's, so that a repetition finds what the first run made. */
  async createInstance({ instances }, _, { tenant, input }) {
    await instances.create(instanceName(input.homeId), tenant);
  },

  /** @throws TenantryError `instance_pending` until it is there */
  async awaitInstance({ instances }, _, { input }) {
    await instances.ready(instanceName(input.homeId));
  },

  async createHome(provisioner, catalog, { tenant, input }) {
    const place = await placeFor(provisioner, catalog, input);
    await makeHome(provisioner.plane, catalog, { tenant, ...input }, place);
  },

  async migrate({ plane, release }, catalog, { input }) {
    if (!isolations[input.strategy].ownsTables) return;
    const [home] = await answersOf([builtHome(catalog, input), requireReleaseUnedited(catalog, release)]);
    const target = { home, databaseId: home.databaseId, keys: plane.keys };
    await withConnection(endpointOf(plane, home), (connection) =>
      migrateHome(connection, target, release.home),
    );
    await recordMigrated(catalog, home, release);
  },

  /** @throws RetryableError `unavailable` until a call through the data path holds */
  async verify({ probe }, _, { tenant }) {
    await tryPath(probe, tenant);
  },

  async activate({ plane }, catalog, { operationId, tenant, input }) {
    const home = await builtHome(catalog, input);
    await withConnection(endpointOf(plane, home), (connection) =>
      changeHomeState(connection, home.homeId, ['provisioning'], 'open'),
    );
    await activateTenant(catalog, tenant, home.homeId, operationId);
  },
} as const satisfies Record<string, Step<Provisioner, 'provision'>>;

async function builtHome(catalog: ControlConnection, { homeId }: ProvisionInput): Promise<ReachableHome> {
  const home = await findHome(catalog, homeId);
  if (home === undefined)
    throw new TenantryError('internal', 'The home of this operation is not there: run createHome first.');
  return home;
}
