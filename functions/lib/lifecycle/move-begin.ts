import { randomUUID } from 'node:crypto';
import { recordMove } from '../catalog/moves.ts';
import { presentHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import type { MoveInput } from './move.ts';
import { beginOperation, endOperation, type Operation } from './operations.ts';

export interface MoveRequest {
  readonly slug: string;
  readonly to: Strategy;
  /** How long the way back stays open, s; until `complete` at the latest. */
  readonly windowSeconds: number;
}

/**
 * Begins to move a tenant, or answers the move that this key has begun.
 * @throws TenantryError `unknown_tenant`, `wrong_status`, `move_refused`, `idempotency_conflict`; `operation_running`:
 *   another operation is changing this tenant, or a migration run is under way
 */
export async function beginMove(
  catalog: ControlConnection,
  request: MoveRequest,
  idempotencyKey?: string,
): Promise<{ operation: Operation; isNew: boolean }> {
  const { slug, to, windowSeconds } = request;
  const { rows } = await catalog.query(
    'select tenant_id, status, is_canary from catalog.tenants where slug = $1',
    [slug],
  );
  if (rows[0] === undefined) throw new TenantryError('unknown_tenant', `There is no tenant ${slug}.`);
  if (rows[0].status !== 'active')
    throw new TenantryError(
      'wrong_status',
      `Only an active tenant can be moved: ${slug} is ${rows[0].status}.`,
    );
  if (rows[0].is_canary)
    throw new TenantryError('move_refused', `${slug} is the product's own: it watches its strategy.`);
  const tenant: TenantId = rows[0].tenant_id;
  const source = await presentHome(catalog, tenant);
  const input: MoveInput = {
    homeId: randomUUID(),
    sourceHome: source.homeId,
    slug,
    strategy: to,
    windowSeconds,
  };
  const wanted = {
    kind: 'move',
    tenant,
    request: { ...request },
    input: { ...input },
    idempotencyKey,
  } as const;
  const begun = await beginOperation(catalog, wanted);
  if (begun.isNew && to === source.strategy && to !== 'database') {
    const reason = `${slug} is kept apart by ${to} already.`;
    await endOperation(catalog, begun.operation.operationId, { state: 'failed', step: 'begin', reason });
    throw new TenantryError('move_refused', reason);
  }
  // With it, so that it can be cancelled before its first step.
  await recordMove(
    catalog,
    moveOf(begun.operation.operationId, tenant, begun.operation.input as unknown as MoveInput),
  );
  return begun;
}

/** As the catalog records it. */
export const moveOf = (
  operationId: string,
  tenant: TenantId,
  { sourceHome, homeId, windowSeconds }: MoveInput,
) => ({
  operationId,
  tenant,
  sourceHome,
  targetHome: homeId,
  windowSeconds,
});
