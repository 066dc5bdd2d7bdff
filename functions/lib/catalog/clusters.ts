import type { Row } from '../database/types.ts';
import { TenantryError } from '../errors.ts';
import type { Strategy } from '../tenant/tenant.ts';
import type { Catalog } from './catalog.ts';

/** A PostgreSQL server that the product knows. */
export interface Cluster {
  readonly clusterId: string;
  readonly kind: 'shared' | 'dedicated';
  readonly region: string;
  /** Where calls go: RDS Proxy for a shared cluster. */
  readonly host: string;
  readonly port: number;
  /** Where the control plane goes: the server itself. */
  readonly adminHost: string;
  readonly adminPort: number;
}

/** The database of a shared cluster that takes new homes. */
export interface SharedDatabase {
  readonly database: string;
  readonly databaseId: string;
}

export async function recordCluster(
  catalog: Catalog,
  cluster: Cluster,
  shared?: SharedDatabase,
): Promise<void> {
  await catalog.query(
    `insert into catalog.clusters (cluster_id, kind, region, host, port, admin_host, admin_port, database_name, database_id)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     on conflict (cluster_id) do update set host = excluded.host, port = excluded.port,
       admin_host = excluded.admin_host, admin_port = excluded.admin_port,
       database_name = excluded.database_name, database_id = excluded.database_id`,
    [
      cluster.clusterId,
      cluster.kind,
      cluster.region,
      cluster.host,
      cluster.port,
      cluster.adminHost,
      cluster.adminPort,
      shared?.database ?? null,
      shared?.databaseId ?? null,
    ],
  );
}

/** Every shared cluster that takes homes; the first is the one that new homes are made in. */
export async function sharedClusters(catalog: Catalog): Promise<(Cluster & SharedDatabase)[]> {
  const { rows } = await catalog.query(
    `select * from catalog.clusters where kind = 'shared' and database_id is not null order by created_at, cluster_id`,
  );
  return rows.map((row) => ({
    ...clusterOf(row),
    database: row.database_name,
    databaseId: row.database_id,
  }));
}

/** The shared cluster that new homes are made in, or the one of this id. @throws TenantryError `internal` when it is not recorded */
export async function sharedCluster(catalog: Catalog, clusterId?: string): Promise<Cluster & SharedDatabase> {
  const found = (await sharedClusters(catalog)).find(
    (cluster) => clusterId === undefined || cluster.clusterId === clusterId,
  );
  if (found === undefined)
    throw new TenantryError('internal', 'The catalog knows no such shared cluster: deploy again.');
  return found;
}

export async function findCluster(catalog: Catalog, clusterId: string): Promise<Cluster | undefined> {
  const { rows } = await catalog.query('select * from catalog.clusters where cluster_id = $1', [clusterId]);
  return rows[0] && clusterOf(rows[0]);
}

const clusterOf = (row: Row): Cluster => ({
  clusterId: row.cluster_id,
  kind: row.kind,
  region: row.region,
  host: row.host,
  port: row.port,
  adminHost: row.admin_host,
  adminPort: row.admin_port,
});

/** Homes of these strategies in each cluster, whatever their state. */
export async function countHomes(catalog: Catalog, of: readonly Strategy[]): Promise<Map<string, number>> {
  const { rows } = await catalog.query<{ cluster: string; homes: number }>(
    'select cluster_id as cluster, count(*)::integer as homes from catalog.homes where strategy = any ($1) group by 1',
    [[...of]],
  );
  return new Map(rows.map(({ cluster, homes }) => [cluster, homes]));
}

export async function forgetCluster(catalog: Catalog, clusterId: string): Promise<void> {
  await catalog.query('delete from catalog.clusters where cluster_id = $1', [clusterId]);
}
