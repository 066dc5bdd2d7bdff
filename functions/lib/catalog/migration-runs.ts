import type { TenantId } from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';

export interface MigrationRun {
  readonly operationId: string;
  readonly version: string;
  readonly digest: string;
  readonly tolerated: number;
  readonly isHalted: boolean;
}

export async function recordRun(
  catalog: Catalog,
  run: Pick<MigrationRun, 'operationId' | 'version' | 'digest' | 'tolerated'>,
): Promise<void> {
  await catalog.query(
    `insert into catalog.migration_runs (operation_id, version, digest, tolerated) values ($1, $2, $3, $4) on conflict do nothing`,
    [run.operationId, run.version, run.digest, run.tolerated],
  );
}

export async function readRun(catalog: Catalog, operationId: string): Promise<MigrationRun | undefined> {
  const { rows } = await catalog.query('select * from catalog.migration_runs where operation_id = $1', [
    operationId,
  ]);
  const row = rows[0];
  return (
    row && {
      operationId,
      version: row.version,
      digest: row.digest,
      tolerated: row.tolerated,
      isHalted: row.halted_at !== null,
    }
  );
}

/** Workers stop after the batch they are at. @returns false when no such run is under way */
export async function haltRun(catalog: Catalog, operationId: string): Promise<boolean> {
  const { rowCount } = await catalog.query(
    `update catalog.migration_runs r set halted_at = coalesce(halted_at, now()) from catalog.operations o
      where r.operation_id = $1 and o.operation_id = r.operation_id and o.state = 'running'`,
    [operationId],
  );
  return rowCount === 1;
}

/** Files that some home has got already, with the checksums they had then. */
export async function knownFiles(catalog: Catalog): Promise<ReadonlyMap<string, string>> {
  const { rows } = await catalog.query<{ name: string; checksum: string }>(
    'select name, checksum from catalog.migration_files',
  );
  return new Map(rows.map(({ name, checksum }) => [name, checksum]));
}

export async function recordFiles(
  catalog: Catalog,
  files: readonly { name: string; checksum: string }[],
): Promise<void> {
  if (files.length === 0) return;
  await catalog.query(
    'insert into catalog.migration_files (name, checksum) select * from unnest($1::text[], $2::text[]) on conflict do nothing',
    [files.map(({ name }) => name), files.map(({ checksum }) => checksum)],
  );
}

/** A home, or a shared cluster's tables, that was brought to a state outside a run. */
export async function recordSchemaState(
  catalog: Catalog,
  of: { readonly homeId: string } | { readonly clusterId: string },
  { version, digest }: { version: string; digest: string },
): Promise<void> {
  await ('homeId' in of
    ? catalog.query('update catalog.homes set schema_version = $2, schema_digest = $3 where home_id = $1', [
        of.homeId,
        version,
        digest,
      ])
    : catalog.query(
        'update catalog.clusters set schema_version = $2, schema_digest = $3 where cluster_id = $1',
        [of.clusterId, version, digest],
      ));
}

export type TargetState = 'pending' | 'leased' | 'done' | 'quarantined' | 'pinned' | 'gone' | 'moving';

export interface RingCount {
  readonly ring: number;
  readonly counts: Readonly<Record<TargetState, number>>;
}

/** How many targets of each ring are in each state. */
export async function countTargets(catalog: Catalog, operationId: string): Promise<RingCount[]> {
  const { rows } = await catalog.query(
    `select ring, count(*) filter (where state = 'pending')::integer as pending, count(*) filter (where state = 'leased')::integer as leased,
            count(*) filter (where state = 'done')::integer as done, count(*) filter (where state = 'quarantined')::integer as quarantined,
            count(*) filter (where state = 'pinned')::integer as pinned, count(*) filter (where state = 'gone')::integer as gone,
            count(*) filter (where state = 'moving')::integer as moving
       from catalog.migration_targets where operation_id = $1 group by ring order by ring`,
    [operationId],
  );
  return rows.map(({ ring, ...counts }) => ({ ring, counts: counts as RingCount['counts'] }));
}

/** Over all rings: what a run tolerates so many of. */
export async function countQuarantined(catalog: Catalog, operationId: string): Promise<number> {
  const { rows } = await catalog.query<{ broken: number }>(
    "select count(*)::integer as broken from catalog.migration_targets where operation_id = $1 and state = 'quarantined'",
    [operationId],
  );
  return rows[0]!.broken;
}

/** The first ring with something left to do: how much, in how many databases, and what slots of workers that are gone still have. */
export async function openRing(
  catalog: Catalog,
  operationId: string,
): Promise<{ ring: number; open: number; places: number; held: readonly number[] } | undefined> {
  const { rows } = await catalog.query<{ ring: number; open: number; places: number; held: number[] }>(
    `select ring, count(*)::integer as open, count(distinct place)::integer as places, array_remove(array_agg(distinct slot), null) as held
       from catalog.migration_targets where operation_id = $1 and state in ('pending', 'leased') group by ring order by ring limit 1`,
    [operationId],
  );
  return rows[0];
}

export interface NamedTarget {
  readonly slug: string | null;
  readonly ring: number;
  readonly state: TargetState;
  readonly reason: string;
}

/** Those that an operator has to know by name. */
export async function namedTargets(
  catalog: Catalog,
  operationId: string,
  limit: number,
): Promise<NamedTarget[]> {
  const { rows } = await catalog.query<NamedTarget>(
    `select t.slug, m.ring, m.state, m.reason from catalog.migration_targets m
       left join catalog.homes h on m.kind = 'home' and h.home_id = m.target_id left join catalog.tenants t on t.tenant_id = h.tenant_id
      where m.operation_id = $1 and m.reason is not null order by m.state desc, m.ring, t.slug limit $2`,
    [operationId, limit],
  );
  return rows;
}

/** Active tenants whose homes a ring has just changed: the gate tries some of them. */
export async function tenantsToTry(
  catalog: Catalog,
  operationId: string,
  ring: number,
  limit: number,
): Promise<{ tenant: TenantId; slug: string }[]> {
  const { rows } = await catalog.query<{ tenant: TenantId; slug: string }>(
    `with changed as (select kind, target_id from catalog.migration_targets where operation_id = $1 and ring = $2 and state = 'done'),
     home as (
       select h.home_id, h.tenant_id from changed c join catalog.homes h on h.home_id = c.target_id where c.kind = 'home' and h.state = 'open'
       union all
       select h.home_id, h.tenant_id from changed c join catalog.homes h on h.cluster_id = c.target_id
        where c.kind = 'shared' and h.schema_name = 'shared' and h.state = 'open'
     )
     select t.tenant_id as tenant, t.slug from home join catalog.tenants t on t.tenant_id = home.tenant_id and t.home_id = home.home_id and t.status = 'active'
      order by random() limit $3`,
    [operationId, ring, limit],
  );
  return rows;
}

/** Why the last run that came to a target (a home, or a shared cluster) left it out; undefined when it did not. */
export async function whyLeftOut(catalog: Catalog, targetId: string): Promise<string | undefined> {
  const { rows } = await catalog.query<{ state: TargetState; reason: string }>(
    `select m.state, m.reason
       from (select operation_id, started_at from catalog.operations where kind = 'migrate' order by started_at desc limit 20) r
       join catalog.migration_targets m using (operation_id)
      where m.target_id = $1 and m.state in ('done', 'quarantined') order by r.started_at desc limit 1`,
    [targetId],
  );
  return rows[0]?.state === 'quarantined' ? rows[0].reason : undefined;
}
