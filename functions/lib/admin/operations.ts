import type { ControlConnection } from '../database/connect.ts';
import { countSteps, readSteps } from '../lifecycle/attempts.ts';
import { type Operation, type OperationKind, readOperation } from '../lifecycle/operations.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { endStalled } from './stalled.ts';

export interface OperationView {
  readonly id: string;
  readonly kind: OperationKind;
  /** Its slug. */
  readonly tenant: string | null;
  readonly state: Operation['state'];
  /** The one under way, or the last. */
  readonly step: string | null;
  readonly failedStep: string | null;
  readonly reason: string | null;
  /** What it has done so far and what it found. */
  readonly result: Operation['result'];
  readonly startedAt: string;
  readonly finishedAt: string | null;
  /** When anything last happened. */
  readonly activeAt: string;
  /** What the last operations like it took, moves until their switch; null when there was none, or this one is past it. */
  readonly expectedSeconds: number | null;
}

export interface OperationWithSteps extends OperationView {
  /** Attempts before the ones below, which are the newest. */
  readonly earlierSteps: number;
  readonly steps: readonly {
    readonly step: string;
    readonly attempt: number;
    readonly outcome: 'running' | 'done' | 'failed';
    readonly reason: string | null;
    readonly startedAt: string;
    readonly finishedAt: string | null;
  }[];
}

/** The newest first, those that run before all others; of the product's own canaries only what did not go well. */
export async function listOperations(admin: Admin): Promise<{ operations: OperationView[] }> {
  const look = () => withCatalog(admin, (catalog) => operationViews(catalog, { limit: 50 }));
  const operations = await look();
  return { operations: (await endStalled(admin, operations)) ? await look() : operations };
}

/** @throws TenantryError `unknown_operation` */
export async function showOperation(admin: Admin, operationId: string): Promise<OperationWithSteps> {
  const operation = await withSteps(admin, operationId);
  return (await endStalled(admin, [operation])) ? withSteps(admin, operationId) : operation;
}

async function withSteps(admin: Admin, operationId: string): Promise<OperationWithSteps> {
  return withCatalog(admin, async (catalog) => {
    await readOperation(catalog, operationId);
    const [operation] = await operationViews(catalog, { operationId, limit: 1 });
    const steps = await readSteps(catalog, operationId);
    return {
      ...operation!,
      earlierSteps: (await countSteps(catalog, operationId)) - steps.length,
      steps: steps.map((record, at) => {
        // Steps take turns, but for those of a run, which works in several slots.
        const isOver =
          operation!.state !== 'running' || (operation!.kind !== 'migrate' && at < steps.length - 1);
        const isLost = record.outcome === 'running' && isOver;
        return {
          step: record.step,
          attempt: record.attempt,
          outcome: isLost ? 'failed' : record.outcome,
          reason: isLost ? 'Its process ended before it had an answer.' : (record.reason ?? null),
          startedAt: record.startedAt.toISOString(),
          finishedAt: record.finishedAt?.toISOString() ?? null,
        };
      }),
    };
  });
}

/** The last one of a kind that is about all tenants. */
export async function lastOf(
  catalog: ControlConnection,
  kind: 'migrate' | 'batch',
): Promise<string | undefined> {
  const { rows } = await catalog.query<{ id: string }>(
    'select operation_id as id from catalog.operations where kind = $1 order by started_at desc limit 1',
    [kind],
  );
  return rows[0]?.id;
}

export async function operationViews(
  catalog: ControlConnection,
  of: { operationId?: string; tenant?: TenantId; limit: number },
): Promise<OperationView[]> {
  const { rows } = await catalog.query(
    `select o.*, t.slug, s.step, greatest(o.started_at, o.finished_at, s.started_at, s.finished_at) as active_at, e.seconds
       from catalog.operations o
       left join catalog.tenants t using (tenant_id)
       left join lateral (select * from catalog.operation_steps s where s.operation_id = o.operation_id
                           order by s.started_at desc limit 1) s on true
       left join catalog.moves m on m.operation_id = o.operation_id
       -- The median of the last ten that were like it; of moves until their switch, because the way back takes what it was given.
       left join lateral (select percentile_cont(0.5) within group (order by extract(epoch from p.ended_at - p.started_at)) as seconds
                            from (select p.started_at, coalesce(w.switched_at, p.finished_at) as ended_at
                                    from catalog.operations p left join catalog.moves w using (operation_id)
                                   where p.state = 'done' and p.kind = o.kind and p.input->'strategy' is not distinct from o.input->'strategy'
                                     and p.input->'placement' is not distinct from o.input->'placement'
                                     and p.input->'graceSeconds' is not distinct from o.input->'graceSeconds'
                                     and coalesce(w.phase, 'completed') = 'completed'
                                   order by p.started_at desc limit 10) p) e on o.state = 'running' and coalesce(m.phase, 'moving') = 'moving'
      where ($1::uuid is null or o.operation_id = $1) and ($2::uuid is null or o.tenant_id = $2)
        and ($1 is not null or $2 is not null or o.state <> 'done' or not coalesce(t.is_canary, false))
      order by o.state = 'running' desc, o.started_at desc limit $3`,
    [of.operationId ?? null, of.tenant ?? null, of.limit],
  );
  return rows.map((row) => ({
    id: row.operation_id,
    kind: row.kind,
    tenant: row.slug,
    state: row.state,
    step: row.step,
    failedStep: row.failed_step,
    reason: row.reason,
    result: row.result ?? {},
    startedAt: row.started_at.toISOString(),
    finishedAt: row.finished_at?.toISOString() ?? null,
    activeAt: row.active_at.toISOString(),
    expectedSeconds: row.seconds === null ? null : Math.max(1, Math.round(row.seconds)),
  }));
}
