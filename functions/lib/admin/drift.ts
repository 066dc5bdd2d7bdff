import { recordBehind } from '../catalog/behind.ts';
import { isMigrated } from '../catalog/migration-plan.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { owningStrategies, sharedHome } from '../isolation/isolation.ts';
import { adminEndpoint } from '../lifecycle/control-plane.ts';
import { type Drift, driftOf } from '../migrations/drift.ts';
import type { MigrationTarget } from '../migrations/script.ts';
import type { Strategy, TenantId } from '../tenant/tenant.ts';
import { type Admin, withCatalog } from './admin.ts';
import { findTenant } from './tenants.ts';

export interface DriftPage {
  /** Homes looked at; the shared tables of a cluster are one. */
  readonly checked: number;
  readonly drifts: readonly (Drift & { /** null: the shared tables. */ readonly tenant: string | null })[];
  /** Where to go on. */
  readonly next: string | null;
}

/** As many as fit well into one answer of the API: each is some ten milliseconds, beside the first of a database. */
const pageSize = 100;

/**
 * ms after which a page begins no other home. The first of a database takes what its files take, and homes of the strategy
 * `database` are each the first of theirs: a hundred would be far beyond the 29 s that an answer may take.
 */
const pageTime = 8_000;

interface PlacedHome {
  readonly key: string;
  readonly slug: string | null;
  /** The version that the catalog takes it for. */
  readonly recorded: string | null;
  readonly target: Omit<MigrationTarget, 'keys'>;
  readonly place: { clusterId: string; host: string; port: number; database: string };
}

/**
 * Compares homes with what their version should be; one tenant's, or a page of all. Changes nothing, unless it `corrects` what the
 * catalog takes homes for.
 * @throws TenantryError `unknown_tenant`
 */
export async function findDrift(
  admin: Admin,
  slug: string | undefined,
  after = '',
  corrects = false,
  time = pageTime,
): Promise<DriftPage> {
  const started = performance.now();
  const isOver = () => performance.now() - started >= time;
  const { home: files } = await admin.release();
  const homes = await withCatalog(admin, async (catalog) =>
    placedHomes(catalog, slug === undefined ? undefined : (await findTenant(catalog, slug)).tenant_id, after),
  );
  const drifts: DriftPage['drifts'][number][] = [];
  // Homes come in the order of their keys, those of a database together: what is looked at is always the beginning.
  let checked = 0;
  for (const [, here] of Map.groupBy(homes, ({ place }) => `${place.clusterId}/${place.database}`)) {
    if (checked > 0 && isOver()) break;
    const before = checked;
    const endpoint = adminEndpoint(admin.plane, here[0]!.place);
    try {
      await withConnection(endpoint, async (connection) => {
        const references = new Map();
        for (const home of here) {
          if (checked > 0 && isOver()) break;
          const target = { ...home.target, keys: admin.plane.keys };
          const found = await driftOf(connection, target, files, references);
          const behind = await behindItsRecord(admin, home, found.version, corrects);
          drifts.push(...[...behind, ...found.drifts].map((drift) => ({ tenant: home.slug, ...drift })));
          checked += 1;
        }
      });
    } catch (error) {
      if (!(error instanceof ConnectFailure)) throw error;
      drifts.push(
        ...here
          .slice(checked - before)
          .map(({ slug }) => ({ tenant: slug, object: 'its database', drift: 'does not answer' })),
      );
      checked = before + here.length;
    }
  }
  const isLast = checked === homes.length && (slug !== undefined || homes.length < pageSize);
  return { checked, drifts, next: isLast ? null : homes[checked - 1]!.key };
}

/** One that was restored to an earlier time: no run would take it along, because the catalog decides whom it does. */
async function behindItsRecord(
  admin: Admin,
  { recorded, target: { home }, place }: PlacedHome,
  version: string | null,
  corrects: boolean,
): Promise<Drift[]> {
  if (recorded === null || (version !== null && version >= recorded)) return [];
  const of = home === sharedHome ? { clusterId: place.clusterId } : { homeId: home.homeId };
  if (corrects) await withCatalog(admin, (catalog) => recordBehind(catalog, of, recorded, version));
  const drift = corrects
    ? `are at ${version ?? 'none'}, and the catalog took them for ${recorded}: \`npm run tenants -- migrate run\` brings the rest`
    : `are at ${version ?? 'none'}, and the catalog takes them for ${recorded}: \`npm run tenants -- migrate drift --correct\` tells it, then \`migrate run\` brings the rest`;
  return [{ object: 'migrations', drift }];
}

async function placedHomes(
  catalog: ControlConnection,
  tenant: TenantId | undefined,
  after: string,
): Promise<PlacedHome[]> {
  const { rows } = await catalog.query(
    `select * from (
       select concat_ws('/', h.cluster_id, h.database_name, h.home_id) as key, t.slug, h.home_id, h.tenant_id, h.strategy, h.schema_name, h.login, h.epoch, h.schema_version,
              h.database_id, h.database_name, h.cluster_id, c.admin_host, c.admin_port
         from catalog.homes h join catalog.tenants t on t.home_id = h.home_id join catalog.clusters c on c.cluster_id = h.cluster_id
        where h.strategy = any ($1) and ${isMigrated} and ($2::uuid is null or t.tenant_id = $2)
       union all
       select concat_ws('/', c.cluster_id, c.database_name, ''), null, null, null, null, null, null, null, c.schema_version,
              c.database_id, c.database_name, c.cluster_id, c.admin_host, c.admin_port
         from catalog.clusters c where c.database_id is not null
          and ($2::uuid is null or exists (select from catalog.homes h join catalog.tenants t on t.home_id = h.home_id
                                            where t.tenant_id = $2 and h.cluster_id = c.cluster_id and not h.strategy = any ($1)))
     ) h where key collate "C" > $3 order by key collate "C" limit $4`,
    [owningStrategies, tenant ?? null, after, pageSize],
  );
  return rows.map((row) => ({
    key: row.key,
    slug: row.slug,
    recorded: row.schema_version,
    target: {
      databaseId: row.database_id,
      home:
        row.home_id === null
          ? sharedHome
          : {
              homeId: row.home_id,
              tenant: row.tenant_id,
              strategy: row.strategy as Strategy,
              schema: row.schema_name,
              login: row.login,
              epoch: Number(row.epoch),
            },
    },
    place: {
      clusterId: row.cluster_id,
      host: row.admin_host,
      port: row.admin_port,
      database: row.database_name,
    },
  }));
}
