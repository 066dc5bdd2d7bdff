import { z } from 'zod';
import { type BatchState, haltBatch, readBatch } from '../catalog/move-batches.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { type BatchRequest, batchTenants, beginBatch, movesAtOnce } from '../lifecycle/move-batch.ts';
import { readRoom } from '../lifecycle/move-begin.ts';
import { tiers } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { destined, moving } from './move.ts';
import { lastOf, type OperationView, operationViews } from './operations.ts';
import { endStalled } from './stalled.ts';

export const batching = moving.extend({
  tier: z.enum(tiers),
  /** So many are before their switch at once. */
  concurrency: z.int().min(1).max(movesAtOnce).default(2),
  /** After one failure no other move is begun. */
  stopOnFailure: z.boolean().default(false),
});
export type BatchingBody = z.output<typeof batching>;

export interface BatchView {
  readonly operation: OperationView;
  readonly tier: string;
  readonly to: string;
  readonly counts: Readonly<Record<BatchState, number>>;
  readonly tenants: readonly {
    readonly tenant: string;
    readonly state: BatchState;
    /** Where its move is. */
    readonly step: string | null;
    readonly reason: string | null;
    readonly pauseMs: number | null;
    readonly rows: number | null;
  }[];
}

export interface BatchPlan {
  readonly tier: string;
  readonly to: string;
  readonly concurrency: number;
  /** What keeps each from being moved; empty: nothing known now. */
  readonly tenants: readonly { readonly tenant: string; readonly blocks: readonly string[] }[];
}

const requestOf = ({ tier, concurrency, stopOnFailure, ...body }: BatchingBody): BatchRequest => ({
  tier,
  concurrency,
  stopOnFailure,
  ...destined(body),
});

/** Who would be moved, and what keeps each from it. Nothing is changed. */
export const planBatch = (admin: Admin, body: BatchingBody): Promise<BatchPlan> =>
  withCatalog(admin, async (catalog) => {
    const request = requestOf(body);
    const { tier, to, concurrency } = request;
    const { blocksOf } = await import('../lifecycle/move-plan.ts');
    const room = await readRoom(catalog);
    const tenants = (await batchTenants(catalog, request)).map((candidate) => ({
      tenant: candidate.slug,
      blocks: blocksOf(candidate, request, room),
    }));
    return { tier, to, concurrency, tenants };
  });

/** @throws TenantryError `move_refused`, `invalid_request`, `idempotency_conflict`, `operation_running` */
export async function moveBatch(
  admin: Admin,
  body: BatchingBody,
  idempotencyKey: string | undefined,
): Promise<BatchView> {
  const { operationId, state } = await withCatalog(admin, (catalog) =>
    beginBatch(catalog, requestOf(body), idempotencyKey),
  ).catch(async (error: unknown) => {
    // One that nobody works on any more is ended, and the caller comes again.
    if (error instanceof TenantryError && error.code === 'operation_running')
      await withCatalog(admin, (catalog) => lastBatch(catalog))
        .then((id) => views(admin, id))
        .then((found) => endStalled(admin, found));
    throw error;
  });
  // Safe to repeat: the execution has the operation's name.
  if (state === 'running')
    await admin.workflows.start(admin.settings.batchMachine, operationId, { operation: operationId });
  return showBatch(admin, operationId);
}

const views = (admin: Admin, operationId: string) =>
  withCatalog(admin, (catalog) => operationViews(catalog, { operationId, limit: 1 }));

/** The last batch, or the one that is named. @throws TenantryError `unknown_operation` */
export const showBatch = (admin: Admin, id?: string): Promise<BatchView> =>
  withCatalog(admin, async (catalog) => {
    const operationId = id ?? (await lastBatch(catalog));
    const [operation] = await operationViews(catalog, { operationId, limit: 1 });
    const batch = await readBatch(catalog, operationId);
    if (operation?.kind !== 'batch' || batch === undefined)
      throw new TenantryError('unknown_operation', 'There is no such batch.');
    const { rows } = await catalog.query(
      `select t.slug, b.state, b.reason, m.pause_ms, s.step, o.input ->> 'tier' as tier, o.input ->> 'to' as to_strategy,
              (select sum(r.value::bigint) from jsonb_each_text(m.result -> 'rows') r)::double precision as moved
         from catalog.move_batch_tenants b join catalog.tenants t using (tenant_id) join catalog.operations o on o.operation_id = b.operation_id
         left join catalog.moves m on m.operation_id = b.move_id
         left join lateral (select step from catalog.operation_steps s where s.operation_id = b.move_id order by s.started_at desc limit 1) s on true
        where b.operation_id = $1 order by b.place`,
      [operationId],
    );
    return {
      operation,
      tier: rows[0]!.tier,
      to: rows[0]!.to_strategy,
      counts: batch.counts,
      tenants: rows.map((row) => ({
        tenant: row.slug,
        state: row.state,
        step: row.state === 'moving' ? row.step : null,
        reason: row.reason,
        pauseMs: row.pause_ms,
        rows: row.moved,
      })),
    };
  });

/** No other move is begun; those that are under way go on. @throws TenantryError `unknown_operation`, `wrong_status` */
export async function stopBatch(admin: Admin): Promise<BatchView> {
  const id = await withCatalog(admin, async (catalog) => {
    const operationId = await lastBatch(catalog);
    if (!(await haltBatch(catalog, operationId)))
      throw new TenantryError('wrong_status', 'No batch of moves is under way.');
    return operationId;
  });
  return showBatch(admin, id);
}

/** @throws TenantryError `unknown_operation` */
async function lastBatch(catalog: ControlConnection): Promise<string> {
  const id = await lastOf(catalog, 'batch');
  if (id === undefined) throw new TenantryError('unknown_operation', 'There has been no batch of moves yet.');
  return id;
}
