import { randomUUID } from 'node:crypto';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { registerHome } from '../isolation/homes.ts';
import { isolations } from '../isolation/isolation.ts';
import { slug as slugForm, type TenantId, type TenantStatus } from '../tenant/tenant.ts';
import { compensate } from './compensate.ts';
import { adminEndpoint, type ControlPlane } from './control-plane.ts';
import { requestDigest } from './operations.ts';
import { type Provisioner, type ProvisionInput, type ProvisionRequest, provisionSteps } from './provision.ts';
import { runStep } from './step.ts';

export interface SharedProvision {
  readonly tenant: TenantId;
  readonly status: TenantStatus;
  readonly createdAt: Date;
  readonly home: { readonly id: string; readonly schema: string };
  readonly cluster: {
    readonly id: string;
    readonly host: string;
    readonly port: number;
    readonly database: string;
  };
  readonly schemaVersion: string | null;
  readonly operation: { readonly id: string; readonly startedAt: Date; readonly finishedAt: Date };
}

/**
 * A new tenant on shared tables in three round trips: catalog, home, catalog. Nobody is let in before the last, and what
 * dies between two of them is the operation's steps' to end.
 * @returns undefined when it is not new, or its home could not be opened: go the way of the steps, which says what is the matter
 */
export async function provisionShared(
  plane: ControlPlane,
  catalog: ControlConnection,
  request: ProvisionRequest,
  idempotencyKey: string | undefined,
): Promise<SharedProvision | undefined> {
  const { slug, tier, strategy, issuer, externalId, placement = 'dedicated' } = request;
  if (!slugForm.safeParse(slug).success) return undefined;
  const [homeId, operationId] = [randomUUID(), randomUUID()];
  const { schema, login } = isolations[strategy].name(homeId);
  const input: ProvisionInput = { homeId, slug, tier, strategy, placement };
  const { rows } = await catalog.query(
    'select * from catalog.begin_shared($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)',
    [
      slug,
      tier,
      issuer ?? null,
      externalId ?? null,
      homeId,
      schema,
      login,
      operationId,
      JSON.stringify(input),
      idempotencyKey ?? null,
      requestDigest('provision', request),
    ],
  );
  const begun = rows[0];
  if (begun === undefined) return undefined;
  const tenant = begun.tenant_id as TenantId;
  const admin = adminEndpoint(plane, {
    clusterId: begun.cluster_id,
    host: begun.admin_host,
    port: begun.admin_port,
    database: begun.database_name,
  });
  const home = { homeId, tenant, strategy, schema, login, epoch: 1 };
  const isOpen = await withConnection(admin, (connection) => registerHome(connection, home, 'open')).then(
    () => true,
    () => false,
  );
  if (!isOpen) return undefined;
  const ended = await catalog.query('select * from catalog.end_shared($1, $2, $3)', [
    tenant,
    homeId,
    operationId,
  ]);
  const { status, started_at: startedAt, finished_at: finishedAt } = ended.rows[0]!;
  return {
    tenant,
    status,
    createdAt: begun.created_at,
    home: { id: homeId, schema },
    cluster: { id: begun.cluster_id, host: begun.host, port: begun.port, database: begun.database_name },
    schemaVersion: begun.schema_version,
    operation: { id: operationId, startedAt, finishedAt },
  };
}

const unused = () => {
  throw new TenantryError(
    'internal',
    'A tenant on shared tables has no instance and no migrations of its own.',
  );
};

/** The state machine's steps that a tenant on shared tables needs, without the machine: each is a few statements. */
export async function provisionInSteps(
  { plane, region }: Pick<Provisioner, 'plane' | 'region'>,
  operation: string,
): Promise<void> {
  const instances = { create: unused, ready: unused, remove: unused, status: unused };
  const provisioner: Provisioner = {
    plane,
    instances,
    region,
    release: { runtime: [], home: [], extensions: [], keys: [] },
    probe: unused,
  };
  const run = (step: string, input = {}) =>
    runStep(provisioner, { operation, step, input }, ['provision'], { ...provisionSteps, compensate });
  for (const step of ['reserve', 'createHome', 'activate']) {
    try {
      await run(step);
    } catch (error) {
      const { name, message } = error as Error;
      const failure = { Error: name, Cause: JSON.stringify({ errorMessage: message }) };
      // When even that fails the operation stays as it is, and the next call goes on with it.
      await run('compensate', { failedStep: step, failure }).catch(() => {
        throw error;
      });
      return;
    }
  }
}
