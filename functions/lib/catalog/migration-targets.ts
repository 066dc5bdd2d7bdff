import type { Row } from '../database/types.ts';
import type { Catalog } from './catalog.ts';
import { isMigrated, type Planned, plannedTargets, planParameters } from './migration-plan.ts';

/** A target that a worker has taken, with what it needs to reach it. */
export interface LeasedTarget {
  readonly targetId: string;
  readonly kind: 'home' | 'shared';
  readonly version: string;
  readonly row: Row;
}

/**
 * What a target has become that is nobody's to migrate any more; null: it still is one. `m` is its row. By the operation, because
 * a move's own row comes after it. By the tenant's key: only homes have an index on the other's.
 */
const passedOver = `case when m.kind = 'home' then case
  when not exists (select from catalog.homes h join catalog.tenants t on t.tenant_id = h.tenant_id and t.home_id = h.home_id
                    where h.home_id = m.target_id and ${isMigrated}) then 'gone'
  when exists (select from catalog.homes h join catalog.operations o on o.tenant_id = h.tenant_id
                where h.home_id = m.target_id and o.kind = 'move' and o.state = 'running') then 'moving' end end`;

const whyPassedOver = `case ${passedOver} when 'moving' then 'It is being moved: npm run tenants -- operations' end`;

/** What it takes to reach a target, and where it is; `t` is a row of migration_targets. */
const reached = `t.target_id, t.kind, t.version, h.tenant_id, h.strategy, h.schema_name, h.login, h.epoch,
            case t.kind when 'home' then h.schema_version else c.schema_version end as schema_version,
            case t.kind when 'home' then h.schema_digest else c.schema_digest end as schema_digest, coalesce(h.database_id, c.database_id) as database_id, coalesce(h.database_name, c.database_name) as database_name,
            c.cluster_id, c.kind as cluster_kind, c.admin_host, c.admin_port`;
const places = `left join catalog.homes h on t.kind = 'home' and h.home_id = t.target_id
       join catalog.clusters c on c.cluster_id = coalesce(h.cluster_id, t.target_id)`;

const leased = (row: Row): LeasedTarget => ({
  targetId: row.target_id,
  kind: row.kind,
  version: row.version,
  row,
});

/** Of each strategy, the one that is furthest behind; on a server of many's where there is one. */
const sampled = (targets: string, condition: string) =>
  `select distinct on (h.strategy) ${reached} from ${targets} t ${places} where ${condition}
    order by h.strategy, c.kind = 'dedicated', schema_version nulls first, t.target_id`;

/** Of each strategy that has something to do in a run, one target. */
export async function sampleTargets(catalog: Catalog, operationId: string): Promise<LeasedTarget[]> {
  const { rows } = await catalog.query(
    sampled('catalog.migration_targets', "t.operation_id = $1 and t.state = 'pending'"),
    [operationId],
  );
  return rows.map(leased);
}

/** The same of a run that would be begun now. */
export async function samplePlanned(catalog: Catalog, plan: Planned): Promise<LeasedTarget[]> {
  const { rows } = await catalog.query(
    sampled(`(${plannedTargets})`, 't.pinned is null and t.moving is null'),
    planParameters(plan),
  );
  return rows.map(leased);
}

/**
 * Up to `size` targets of one database, taken by one statement: no other worker has them. None of a run that has ended, is
 * halted, or has broken more homes than it may.
 */
export async function leaseTargets(
  catalog: Catalog,
  {
    operationId,
    ring,
    slot,
    lease,
    size,
  }: { operationId: string; ring: number; slot: number; lease: string; size: number },
): Promise<LeasedTarget[]> {
  // What this slot had taken when its worker died is this slot's again.
  const isOpen = `m.operation_id = $1 and m.ring = $2 and (m.state = 'pending' or m.state = 'leased' and m.slot = $3) and (${passedOver}) is null`;
  const { rows } = await catalog.query(
    `with run as (
       select from catalog.migration_runs r join catalog.operations o using (operation_id)
        where r.operation_id = $1 and o.state = 'running' and r.halted_at is null and r.tolerated >= (
          select count(*) from catalog.migration_targets q where q.operation_id = $1 and q.state = 'quarantined')
     ),
     -- Of a target that no other worker is just taking: several that look at once go to several databases.
     first as materialized (
       select m.place from catalog.migration_targets m where ${isOpen} and exists (select from run)
        order by m.place, m.target_id limit 1 for update skip locked
     ),
     -- Materialized: a plan that ran it twice would take more than the limit.
     chosen as materialized (
       select m.target_id from catalog.migration_targets m where ${isOpen} and m.place = (select place from first)
        order by m.target_id limit $5 for update skip locked
     ),
     -- By the whole key: of a run that has just begun the planner expects one target.
     taken as (
       update catalog.migration_targets m set state = 'leased', slot = $3, lease = $4, started_at = coalesce(started_at, now())
        where m.operation_id = $1 and m.target_id = any (array(select target_id from chosen))
       returning m.*
     )
     select ${reached} from taken t ${places} order by t.target_id`,
    [operationId, ring, slot, lease, size],
  );
  return rows.map(leased);
}

/** Homes whose tenants are leaving, have left or are being moved: a run must not wait for them. */
export const passOver = (catalog: Catalog, operationId: string) =>
  catalog.query(
    `update catalog.migration_targets m
        set state = ${passedOver}, reason = ${whyPassedOver}, lease = null, slot = null, finished_at = now()
      where m.operation_id = $1 and m.state in ('pending', 'leased') and (${passedOver}) is not null`,
    [operationId],
  );

/** Gives back what was taken and not touched. */
export const releaseTargets = (catalog: Catalog, operationId: string, lease: string) =>
  catalog.query(
    `update catalog.migration_targets set state = 'pending', slot = null, lease = null where operation_id = $1 and lease = $2 and state = 'leased'`,
    [operationId, lease],
  );

export interface TargetOutcome {
  readonly targetId: string;
  /** pending: its worker had no time for it, or not for all of it. */
  readonly state: 'done' | 'quarantined' | 'pending';
  readonly applied: readonly string[];
  readonly reason?: string | undefined;
}

/** Done, it has all up to the target's version, and what it had beyond that, which the release may lack. */
const versionAfter = (of: 'h' | 'c') =>
  `case when e.state = 'done' then greatest(${of}.schema_version collate "C", e.version)
        else coalesce(replace(e.applied[cardinality(e.applied)], '.sql', ''), ${of}.schema_version) end`;

/** What became of a batch, where it is still the worker's own. What failed on a home that is nobody's any more is no failure. */
export async function recordOutcomes(
  catalog: Catalog,
  operationId: string,
  lease: string,
  outcomes: readonly TargetOutcome[],
): Promise<void> {
  await catalog.query(
    `with outcome as (select * from jsonb_to_recordset($3) o(target_id uuid, state text, applied text[], reason text)),
     ended as (
       update catalog.migration_targets m
          set state = case o.state when 'quarantined' then coalesce(${passedOver}, o.state) else o.state end,
              reason = case o.state when 'quarantined' then coalesce(${whyPassedOver}, o.reason) else m.reason end,
              applied = m.applied || o.applied, finished_at = case when o.state <> 'pending' then now() end, lease = null, slot = null
         from outcome o where m.operation_id = $1 and m.target_id = o.target_id and m.lease = $2 and m.state = 'leased'
       returning m.*
     ),
     homes as (
       update catalog.homes h
          set schema_version = ${versionAfter('h')},
              schema_digest = case when e.state = 'done' then e.digest end
         from ended e where e.kind = 'home' and h.home_id = e.target_id and (e.state <> 'pending' or e.applied <> '{}')
     )
     update catalog.clusters c
        set schema_version = ${versionAfter('c')},
            schema_digest = case when e.state = 'done' then e.digest end
       from ended e where e.kind = 'shared' and c.cluster_id = e.target_id and (e.state <> 'pending' or e.applied <> '{}')`,
    [
      operationId,
      lease,
      JSON.stringify(
        outcomes.map(({ targetId, state, applied, reason = null }) => ({
          target_id: targetId,
          state,
          applied,
          reason,
        })),
      ),
    ],
  );
}
