import type { ControlConnection } from '../database/connect.ts';
import { releaseFences } from '../lifecycle/move-fence.ts';
import { silentMinutes } from '../lifecycle/operations.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { canarySlugs } from './canaries.ts';
import { finding, type HealthFinding } from './findings.ts';
import { reasonOf, type Watch } from './watch.ts';

const shown = 20;

/** Operations that failed for good, and such that nobody works on any more; not imports whose files were refused. */
export async function auditOperations(
  catalog: ControlConnection,
): Promise<{ failed: number; findings: HealthFinding[] }> {
  const { rows } = await catalog.query<{
    id: string;
    kind: string;
    slug: string | null;
    state: string;
    step: string | null;
    reason: string | null;
    strategy: Strategy | null;
  }>(
    `select o.operation_id as id, o.kind, t.slug, t.strategy, o.state, o.failed_step as step, o.reason
       from (select distinct on (kind, tenant_id) * from catalog.operations order by kind, tenant_id, started_at desc) o
       left join catalog.tenants t using (tenant_id)
      -- An offboarding may fail when its tenant is gone already, at its own check; of one that is served again it is over.
      where case o.kind when 'offboard' then o.state = 'running' or t.status <> 'active' else coalesce(t.status, '') <> 'offboarded' end and (o.state = 'failed' and o.result -> 'refused' is null
             or o.state = 'running'
             -- A paused move has no execution. An offboarding waits for its grace period first.
             and not exists (select from catalog.moves m where m.operation_id = o.operation_id and m.paused_at is not null)
             and o.started_at < now() - make_interval(mins => $1, secs => coalesce((o.input ->> 'graceSeconds')::float8, 0))
             and not exists (select from catalog.operation_steps s where s.operation_id = o.operation_id
                                and greatest(s.started_at, s.finished_at) > now() - make_interval(mins => $1)))
      order by o.started_at desc`,
    [silentMinutes],
  );
  const findings = rows.slice(0, shown).map(({ id, kind, slug, state, step, reason, strategy }) => {
    const text =
      state === 'failed'
        ? `failed at ${step}: ${reason}`
        : `is running, but nothing has happened for ${silentMinutes} minutes`;
    const saysWhy = slug !== null && kind !== 'export' && kind !== 'import';
    const run = `npm run tenants -- ${saysWhy ? `why ${slug}` : `operations ${id}`}`;
    return finding('operations', strategy ? [strategy] : [], `${kind} ${slug ?? id}`, text, run);
  });
  return { failed: rows.filter(({ state }) => state === 'failed').length, findings };
}

/** Tenants whose writers a move keeps out while nobody works on it: they are let in again here and now. */
export async function auditMoves(
  { plane }: Pick<Watch, 'plane'>,
  catalog: ControlConnection,
  now: number,
): Promise<HealthFinding[]> {
  const released = await releaseFences(plane, catalog, now);
  return released.map(({ slug, error }) =>
    finding(
      'operations',
      [],
      `move of ${slug}`,
      error === undefined
        ? 'kept its writers out while nobody worked on it: they were let in again'
        : `its home could not be asked whether it keeps writers out: ${reasonOf(error)}`,
      `npm run tenants -- why ${slug}`,
    ),
  );
}

/** Tenants whose entries in the catalog contradict each other: nothing that goes on leaves them so. */
export async function auditTenants(catalog: ControlConnection): Promise<HealthFinding[]> {
  const { rows } = await catalog.query<{
    check: 'homes' | 'canaries';
    slug: string;
    strategy: Strategy;
    text: string;
    isolation: boolean;
  }>(
    `select 'homes' as check, t.slug, t.strategy, case when h.state is null then format('is %s and has no home', t.status) else format('is %s, its home %s', t.status, h.state) end as text, false as isolation
       from catalog.tenants t left join catalog.homes h on h.home_id = t.home_id
      where not exists (select from catalog.operations o where o.tenant_id = t.tenant_id and o.state = 'running')
        and case t.status when 'active' then coalesce(h.state, '') not in ('open', 'read_only', 'fenced')
                          when 'suspended' then coalesce(h.state, '') <> 'suspended' else false end
     union all
     select 'homes', t.slug, t.strategy, format('is %s, its home %s', t.strategy, h.strategy), false
       from catalog.tenants t join catalog.homes h on h.home_id = t.home_id
      where t.strategy <> h.strategy and not exists (select from catalog.operations o where o.tenant_id = t.tenant_id and o.state = 'running')
     union all
     -- Shared tables apart, a schema and a login are one home's.
     select 'homes', t.slug, t.strategy, format('has its home in schema %s of %s with another tenant', h.schema_name, h.database_name), true
       from catalog.homes h join catalog.tenants t using (tenant_id)
      where h.strategy <> 'rls' and h.state <> 'moved' and exists (
              select from catalog.homes o where o.cluster_id = h.cluster_id and o.database_name = h.database_name and o.home_id <> h.home_id
                 and o.state <> 'moved' and o.tenant_id <> h.tenant_id and (o.schema_name = h.schema_name or o.login = h.login))
     union all
     select 'canaries', t.slug, t.strategy, 'is marked as a canary and is none: lists leave it out', false
       from catalog.tenants t where t.is_canary and t.slug <> all ($1) and t.status <> 'offboarded'
      order by isolation desc limit 100`,
    [canarySlugs],
  );
  return rows.map(({ check, slug, strategy, text, isolation }) =>
    finding(
      check,
      [strategy],
      `tenant ${slug}`,
      text,
      check === 'homes' ? `npm run tenants -- why ${slug}` : 'set its is_canary in catalog.tenants to false',
      isolation ? 'isolation' : 'none',
    ),
  );
}

/** Homes that a migration has left as they were, and that none has changed since. */
export async function auditQuarantine(
  catalog: ControlConnection,
): Promise<{ quarantined: number; findings: HealthFinding[] }> {
  const { rows } = await catalog.query<{
    target: string;
    slug: string | null;
    strategy: Strategy;
    reason: string | null;
  }>(
    // By way of the runs: each has few that are quarantined, and an index to find them.
    `select distinct q.target_id as target, t.slug, coalesce(t.strategy, 'rls') as strategy, q.reason
       from catalog.migration_runs r
       join catalog.migration_targets q on q.operation_id = r.operation_id and q.state = 'quarantined'
       left join catalog.homes h on h.home_id = q.target_id
       left join catalog.tenants t on t.tenant_id = h.tenant_id
      where (h.home_id is not null or q.kind = 'shared') and not exists (
              select from catalog.migration_runs l join catalog.migration_targets d on d.operation_id = l.operation_id and d.target_id = q.target_id
               where d.state in ('done', 'quarantined') and d.finished_at > q.finished_at)
      order by 1`,
  );
  const findings = rows.slice(0, shown).map(({ target, slug, strategy, reason }) => {
    const object = slug === null ? `the shared tables of cluster ${target}` : `home ${target} of ${slug}`;
    const text = `left out by a migration, serves on with its old tables: ${reason}`;
    return finding('quarantined', [strategy], object, text, 'npm run tenants -- migrate status');
  });
  return { quarantined: rows.length, findings };
}
