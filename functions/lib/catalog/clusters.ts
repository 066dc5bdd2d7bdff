import type { Queryable } from '../database/types.ts';
import { TenantryError } from '../errors.ts';

type Catalog = Pick<Queryable, 'query'>;

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

/** The shared cluster that new homes are made in. @throws TenantryError `internal` when none is recorded */
export async function sharedCluster(catalog: Catalog): Promise<Cluster & SharedDatabase> {
  const { rows } = await catalog.query(
    `select * from catalog.clusters where kind = 'shared' and database_id is not null order by created_at limit 1`,
  );
  const row = rows[0];
  if (row === undefined)
    throw new TenantryError('internal', 'The catalog knows no shared cluster: deploy again.');
  return {
    clusterId: row.cluster_id,
    kind: 'shared',
    region: row.region,
    host: row.host,
    port: row.port,
    adminHost: row.admin_host,
    adminPort: row.admin_port,
    database: row.database_name,
    databaseId: row.database_id,
  };
}

export async function forgetCluster(catalog: Catalog, clusterId: string): Promise<void> {
  await catalog.query('delete from catalog.clusters where cluster_id = $1', [clusterId]);
}
