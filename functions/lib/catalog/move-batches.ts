import type { TenantId } from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';

export type BatchState = 'waiting' | 'moving' | 'moved' | 'failed' | 'skipped';

export interface Batch {
  readonly operationId: string;
  readonly concurrency: number;
  readonly stopsOnFailure: boolean;
  readonly isHalted: boolean;
  readonly counts: Readonly<Record<BatchState, number>>;
}

/** A tenant that a batch is about, and what keeps it out. */
export interface BatchTenant {
  readonly tenant: TenantId;
  readonly skipped: string | undefined;
}

export async function recordBatch(
  catalog: Catalog,
  { operationId, concurrency, stopsOnFailure }: Pick<Batch, 'operationId' | 'concurrency' | 'stopsOnFailure'>,
  tenants: readonly BatchTenant[],
): Promise<void> {
  await catalog.query(
    `with batch as (insert into catalog.move_batches (operation_id, concurrency, stops_on_failure) values ($1, $2, $3)
                    on conflict do nothing returning operation_id)
     insert into catalog.move_batch_tenants (operation_id, tenant_id, place, state, reason)
     select b.operation_id, t.tenant, t.place, case when t.reason is null then 'waiting' else 'skipped' end, t.reason
       from batch b, unnest($4::uuid[], $5::text[]) with ordinality t(tenant, reason, place)`,
    [
      operationId,
      concurrency,
      stopsOnFailure,
      tenants.map(({ tenant }) => tenant),
      tenants.map(({ skipped }) => skipped ?? null),
    ],
  );
}

export async function readBatch(catalog: Catalog, operationId: string): Promise<Batch | undefined> {
  const { rows } = await catalog.query(
    `select b.*, (select jsonb_object_agg(c.state, c.n) from (
                    select state, count(*) as n from catalog.move_batch_tenants t where t.operation_id = $1 group by state) c) as counts
       from catalog.move_batches b where operation_id = $1`,
    [operationId],
  );
  const row = rows[0];
  return (
    row && {
      operationId,
      concurrency: row.concurrency,
      stopsOnFailure: row.stops_on_failure,
      isHalted: row.halted_at !== null,
      counts: { waiting: 0, moving: 0, moved: 0, failed: 0, skipped: 0, ...row.counts },
    }
  );
}

/** Takes over what has become of the moves that were begun: one that is switched needs its place no longer. */
export const followMoves = (catalog: Catalog, operationId: string) =>
  catalog.query(
    `update catalog.move_batch_tenants b
        set state = case when m.phase in ('switched', 'completed') then 'moved' else 'failed' end,
            reason = coalesce(o.reason, case m.phase when 'reversed' then 'It was moved back.' end)
       from catalog.operations o join catalog.moves m using (operation_id)
      where b.operation_id = $1 and b.state = 'moving' and o.operation_id = b.move_id and (m.phase not in ('moving', 'cancelled') or o.state <> 'running')`,
    [operationId],
  );

export async function nextWaiting(
  catalog: Catalog,
  operationId: string,
): Promise<{ tenant: TenantId; slug: string } | undefined> {
  const { rows } = await catalog.query<{ tenant: TenantId; slug: string }>(
    `select tenant_id as tenant, t.slug from catalog.move_batch_tenants b join catalog.tenants t using (tenant_id)
      where b.operation_id = $1 and b.state = 'waiting' order by b.place limit 1`,
    [operationId],
  );
  return rows[0];
}

export const recordBatchTenant = (
  catalog: Catalog,
  operationId: string,
  tenant: TenantId,
  { state, move, reason }: { state: BatchState; move?: string; reason?: string },
) =>
  catalog.query(
    `update catalog.move_batch_tenants set state = $3, move_id = $4, reason = $5
      where operation_id = $1 and tenant_id = $2 and state = 'waiting'`,
    [operationId, tenant, state, move ?? null, reason ?? null],
  );

/** Nobody's turn comes any more. */
export const skipWaiting = (catalog: Catalog, operationId: string, reason: string) =>
  catalog.query(
    `update catalog.move_batch_tenants set state = 'skipped', reason = $2 where operation_id = $1 and state = 'waiting'`,
    [operationId, reason],
  );

/** @returns false when no such batch is under way */
export async function haltBatch(catalog: Catalog, operationId: string): Promise<boolean> {
  const { rowCount } = await catalog.query(
    `update catalog.move_batches b set halted_at = coalesce(halted_at, now()) from catalog.operations o
      where b.operation_id = $1 and o.operation_id = b.operation_id and o.state = 'running'`,
    [operationId],
  );
  return rowCount === 1;
}
