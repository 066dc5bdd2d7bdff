import { randomUUID } from 'node:crypto';
import { recordMove } from '../catalog/moves.ts';
import { presentHome, type ReachableHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { isolations } from '../isolation/isolation.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import type { MoveInput } from './move.ts';
import { beginOperation, type Operation, operationOfKey } from './operations.ts';

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
  const known = idempotencyKey && (await operationOfKey(catalog, idempotencyKey, 'move', { ...request }));
  if (known) return { operation: known, isNew: false };
  const { slug, to, windowSeconds } = request;
  const source = await requireMovable(catalog, slug, to);
  const { tenant } = source;
  const input: MoveInput = {
    homeId: randomUUID(),
    sourceHome: source.homeId,
    from: source.strategy,
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
  // With it, so that it can be cancelled before its first step.
  await recordMove(
    catalog,
    moveOf(begun.operation.operationId, tenant, begun.operation.input as unknown as MoveInput),
  );
  return begun;
}

/** Its present home. @throws TenantryError `unknown_tenant`, `wrong_status`, `move_refused` */
export async function requireMovable(
  catalog: ControlConnection,
  slug: string,
  to: Strategy,
): Promise<ReachableHome> {
  const { rows } = await catalog.query(
    `select t.tenant_id, t.status, t.is_canary, c.kind from catalog.tenants t
       left join catalog.homes h on h.home_id = t.home_id left join catalog.clusters c using (cluster_id) where t.slug = $1`,
    [slug],
  );
  const row = rows[0];
  if (row === undefined) throw new TenantryError('unknown_tenant', `There is no tenant ${slug}.`);
  if (row.status !== 'active')
    throw new TenantryError('wrong_status', `Only an active tenant can be moved: ${slug} is ${row.status}.`);
  if (row.is_canary)
    throw new TenantryError('move_refused', `${slug} is the product's own: it watches its strategy.`);
  if (row.kind !== 'shared')
    throw new TenantryError(
      'move_refused',
      `${slug} lives on an instance of its own: moves go from and to the shared cluster only.`,
    );
  const source = await presentHome(catalog, row.tenant_id as TenantId);
  if (to === source.strategy && isolations[to].place('shared-cluster') !== 'database')
    throw new TenantryError('move_refused', `${slug} is kept apart by ${to} already.`);
  return source;
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
