import { z } from 'zod';
import { identifier } from '../auth/claims.ts';
import type { ControlConnection } from '../database/connect.ts';
import type { Row } from '../database/types.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import type { Operation } from '../lifecycle/operations.ts';
import { beginProvisioning, type ProvisionRequest } from '../lifecycle/provision.ts';
import { provisionInSteps, provisionShared } from '../lifecycle/provision-shared.ts';
import { placements, strategies, tiers } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { type OperationView, type OperationWithSteps, showOperation } from './operations.ts';
import { afterStalled, runningInstead, showTenant, type TenantView } from './tenants.ts';

export const newTenant = z.strictObject({
  slug: z.string(),
  tier: z.enum(tiers),
  strategy: z.enum(strategies).optional(),
  placement: z.enum(placements).optional(),
  externalId: z
    .string()
    .max(200)
    // As a token's claim has to be: what no token can say would be nobody's.
    .refine((id) => identifier(id) !== undefined, 'must be one line of text')
    .optional(),
  issuer: z.url().optional(),
});
export type NewTenantBody = z.output<typeof newTenant>;

/**
 * Creates a tenant, or continues what an earlier call has begun. One on shared tables is there when this returns; the
 * others are provisioned by the state machine, which the operation follows.
 * @throws TenantryError `slug_invalid`, `slug_taken`, `name_taken`, `wrong_strategy`, `idempotency_conflict`, `operation_running`, `invalid_request`
 */
export async function createTenant(
  admin: Admin,
  body: NewTenantBody,
  idempotencyKey: string | undefined,
): Promise<{ tenant: TenantView; operation: OperationView }> {
  const request = completed(admin, body);
  const made = await provisionAtOnce(admin, request, idempotencyKey);
  if (made) return made;
  const operation = await afterStalled(admin, request.slug, () =>
    withCatalog(admin, (catalog) => begin(catalog, request, idempotencyKey)),
  );
  if (operation.state === 'running') await advance(admin, operation);
  return {
    tenant: await showTenant(admin, request.slug),
    operation: await showOperation(admin, operation.operationId),
  };
}

/** A new tenant that needs no tables of its own: its answer is put together from what was just written. */
async function provisionAtOnce(admin: Admin, request: ProvisionRequest, idempotencyKey: string | undefined) {
  const { slug, tier, strategy, issuer, externalId } = request;
  if (isolations[strategy].ownsTables) return undefined;
  const made = await withCatalog(admin, (catalog) =>
    provisionShared(admin.plane, catalog, request, idempotencyKey),
  );
  if (made === undefined) return undefined;
  const { cluster, home, status, schemaVersion } = made;
  const [startedAt, finishedAt] = [made.operation.startedAt, made.operation.finishedAt].map((at) =>
    at.toISOString(),
  ) as [string, string];
  const operation: OperationView = {
    id: made.operation.id,
    kind: 'provision',
    tenant: slug,
    state: 'done',
    step: 'activate',
    failedStep: null,
    reason: null,
    result: {},
    startedAt,
    finishedAt,
    activeAt: finishedAt,
    expectedSeconds: null,
  };
  const steps: OperationWithSteps['steps'] = [
    { step: 'createHome', attempt: 1, outcome: 'done', reason: null, startedAt, finishedAt },
    { step: 'activate', attempt: 1, outcome: 'done', reason: null, startedAt: finishedAt, finishedAt },
  ];
  const tenant: TenantView = {
    id: made.tenant,
    slug,
    tier,
    strategy,
    status,
    createdAt: made.createdAt.toISOString(),
    issuer: issuer ?? null,
    externalId: externalId ?? null,
    removalBegunAt: null,
    graceEndsAt: null,
    schemaVersion,
    operation,
    home: {
      id: home.id,
      cluster: { id: cluster.id, kind: 'shared' },
      host: cluster.host,
      port: cluster.port,
      database: cluster.database,
      schema: home.schema,
      state: 'open',
      epoch: 1,
    },
  };
  return { tenant, operation: { ...operation, earlierSteps: 0, steps } };
}

/** The request with every default in it: what an idempotency key is compared by. */
function completed({ settings }: Admin, body: NewTenantBody): ProvisionRequest {
  const { slug, tier, placement, externalId } = body;
  const strategy = body.strategy ?? settings.tiers[tier];
  if (placement !== undefined && isolations[strategy].place(placement) === 'shared')
    throw invalid(`A placement is for the strategy database; this tenant's is ${strategy}.`);
  const issuer = body.issuer ?? (externalId === undefined ? undefined : onlyIssuer(settings.issuers));
  if (issuer !== undefined && !settings.issuers.includes(issuer))
    throw invalid(
      `No tokens of this issuer are accepted here. Known: ${settings.issuers.join(', ') || 'none'}.`,
    );
  return {
    slug,
    tier,
    strategy,
    ...(placement && { placement }),
    ...(issuer && { issuer }),
    ...(externalId && { externalId }),
  };
}

function onlyIssuer(issuers: readonly string[]): string {
  if (issuers.length === 1) return issuers[0]!;
  throw invalid('An external id is one issuer’s: say which with `issuer`.');
}

async function begin(
  catalog: ControlConnection,
  request: ProvisionRequest,
  idempotencyKey: string | undefined,
): Promise<Operation<'provision'>> {
  try {
    return await beginProvisioning(catalog, request, idempotencyKey);
  } catch (error) {
    if ((error as { constraint?: string }).constraint === 'tenants_issuer_external_id_key')
      throw new TenantryError('name_taken', 'This external id of this issuer belongs to another tenant.', {
        cause: error,
      });
    const known = await runningInstead(catalog, request.slug, error);
    if (known?.kind !== 'provision') throw error;
    const differing = await differences(catalog, known, request);
    if (differing.length > 0)
      throw new TenantryError(
        'operation_running',
        `The tenant ${request.slug} is being created with another ${differing.join(', ')}. Wait until that has ended: \`npm run tenants -- operations\`.`,
        { cause: error },
      );
    // The same request again, of a caller that died or was impatient: it goes on with what runs.
    if (idempotencyKey) throw error;
    return known;
  }
}

/** In what this request is not the one that is being carried out. */
async function differences(
  catalog: ControlConnection,
  { tenant, input }: Operation<'provision'>,
  { tier, strategy, issuer, externalId, placement = 'dedicated' }: ProvisionRequest,
): Promise<string[]> {
  const { rows } = await catalog.query(
    'select tier, strategy, issuer, external_id from catalog.tenants where tenant_id = $1',
    [tenant],
  );
  const made: Row = { ...rows[0], placement: input.placement };
  const asked = { tier, strategy, issuer, external_id: externalId, placement };
  return Object.entries(asked)
    .filter(([field, value]) => made[field] !== (value ?? null))
    .map(([field]) => field.replace('_', ' '));
}

/** Safe to repeat: the execution has the operation's name, and every step may run twice. */
async function advance(
  { plane, workflows, settings }: Admin,
  { operationId, input }: Operation<'provision'>,
): Promise<void> {
  const { strategy, placement } = input;
  if (!isolations[strategy].ownsTables)
    return provisionInSteps({ plane, region: settings.region }, operationId);
  const isDedicated = isolations[strategy].place(placement) === 'instance';
  await workflows.start(settings.provisionMachine, operationId, {
    operation: operationId,
    input: { placement: isDedicated ? 'dedicated' : 'shared' },
  });
}

const invalid = (message: string) => new TenantryError('invalid_request', message);
