import type { TenantId, TenantStatus, Tier } from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';
import { type ReachableHome, reachable } from './tenants.ts';

/** A tenant that may be moved, and all that the catalog knows to be in its way. */
export interface MoveCandidate {
  readonly tenant: TenantId;
  readonly slug: string;
  readonly status: TenantStatus;
  readonly isCanary: boolean;
  readonly home: ReachableHome | undefined;
  readonly pin: { readonly version: string; readonly until: Date } | undefined;
  /** The kind of the operation that is changing it. */
  readonly running: string | undefined;
  readonly isMigrating: boolean;
  /** Its home is at another schema version than the shared tables of the cluster to go to. */
  readonly differs: boolean;
}

/**
 * One tenant, or all of a tier that have a home and are none of the product's own: one statement, however many they are.
 * @param cluster the shared cluster to go to; undefined: the one that each is in, from an instance of its own the first one
 */
export async function moveCandidates(
  catalog: Catalog,
  of: { readonly slug: string } | { readonly tier: Tier },
  cluster: string | undefined,
): Promise<MoveCandidate[]> {
  const [which, value] =
    'slug' in of
      ? ['t.slug = $2', of.slug]
      : [
          "t.tier = $2 and not t.is_canary and t.status in ('active', 'suspended') and t.home_id is not null",
          of.tier,
        ];
  const { rows } = await catalog.query(
    `with shared as (select *, row_number() over (order by created_at, cluster_id) as place from catalog.clusters
                      where kind = 'shared' and database_id is not null),
          migrating as (select exists (select from catalog.operations where kind = 'migrate' and state = 'running') as is_migrating)
     select h.*, l.admin_host, l.admin_port, t.tenant_id as tenant, t.slug, t.status, t.is_canary, p.version as pin, p.until,
            o.kind as running, m.is_migrating, h.schema_digest is distinct from c.schema_digest as differs
       from catalog.tenants t cross join migrating m
       left join catalog.homes h on h.home_id = t.home_id
       left join catalog.clusters l on l.cluster_id = h.cluster_id
       left join shared c on c.cluster_id = coalesce($1, (select s.cluster_id from shared s where s.cluster_id = h.cluster_id),
                                                         (select s.cluster_id from shared s where s.place = 1))
       left join catalog.migration_pins p on p.tenant_id = t.tenant_id and p.until > now()
       left join catalog.operations o on o.tenant_id = t.tenant_id and o.state = 'running'
      where ${which} order by t.slug`,
    [cluster ?? null, value],
  );
  return rows.map((row) => ({
    tenant: row.tenant,
    slug: row.slug,
    status: row.status,
    isCanary: row.is_canary,
    home: row.home_id === null ? undefined : reachable(row),
    pin: row.pin === null ? undefined : { version: row.pin, until: row.until },
    running: row.running ?? undefined,
    isMigrating: row.is_migrating,
    differs: row.differs,
  }));
}
