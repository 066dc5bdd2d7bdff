import type { Catalog } from './catalog.ts';

/** A home, or a shared cluster's tables, that is behind what is recorded, as after a restoration: the next run takes it along. */
export async function recordBehind(
  catalog: Catalog,
  of: { readonly homeId: string } | { readonly clusterId: string },
  recorded: string,
  version: string | null,
): Promise<void> {
  const [table, key, id] =
    'homeId' in of ? ['homes', 'home_id', of.homeId] : ['clusters', 'cluster_id', of.clusterId];
  await catalog.query(
    `update catalog.${table} set schema_version = $3, schema_digest = null where ${key} = $1 and schema_version = $2`,
    [id, recorded, version],
  );
}
