import type { JWK } from 'jose';
import { createSecrets } from '../aws/secrets.ts';
import { recordCluster } from '../catalog/clusters.ts';
import { type ControlConnection, inTransaction, withConnection } from '../database/connect.ts';
import type { Endpoint } from '../database/types.ts';
import { asRole } from '../isolation/homes.ts';
import { sharedHome } from '../isolation/isolation.ts';
import { tenantsDatabase } from '../migrations/install.ts';
import type { MigrationFile } from '../migrations/migration-file.ts';
import { migrateHomes } from '../migrations/migrator.ts';
import { readRelease } from '../migrations/release.ts';
import type { InstallSettings } from '../settings.ts';
import { adminEndpoint, type ControlPlane, catalogEndpoint, createControlPlane } from './control-plane.ts';
import { ensureKeys, trustedKeys } from './keys.ts';
import { recordMigrated, requireReleaseUnedited } from './migrated.ts';
import { mayConnect, prepareCatalog, preparePlace } from './place.ts';

export interface Installed {
  /** For the authorizer: it verifies the product's own API keys without a database. */
  readonly apiKeyJwks: { readonly keys: readonly JWK[] };
}

/**
 * What a deployment does before its code serves: keys, roles, catalog, and the runtime of the shared database. Safe at
 * every deployment, and after one that died half way. Running code meets a catalog and a runtime that are one version
 * newer than it is. Tenant migrations are not its business, but for the very first: shared tables that nobody uses yet.
 * @param isFirst until one has succeeded; one that failed half way leaves it so
 */
export async function install(
  settings: InstallSettings,
  files: readonly MigrationFile[],
  isFirst = true,
): Promise<Installed> {
  const secrets = createSecrets();
  const { signing } = await ensureKeys(secrets, settings, settings.signingKeyGeneration);
  const plane = await createControlPlane(settings, secrets);
  if (!isFirst) await expectInstalled(plane);
  const { clusterId, host: adminHost, port: adminPort } = settings.catalog;
  const { region, proxy } = settings;
  const cluster = { clusterId, kind: 'shared', region, ...proxy, adminHost, adminPort } as const;
  const master: Endpoint = {
    host: adminHost,
    port: adminPort,
    database: 'postgres',
    ...(await masterLogin(await secrets.read(settings.masterSecret))),
    tls: settings.tls,
  };
  const place = await preparePlace(plane, cluster, tenantsDatabase, master);
  const target = { home: sharedHome, databaseId: place.databaseId, keys: plane.keys };
  const isMigrated = await withConnection(place.admin, async (connection) => {
    if (!(await isNew(connection))) return false;
    // All of it, so that its state may be recorded: an earlier deployment may have made it under another runtime.
    const { outcomes } = await migrateHomes(connection, [target], files, { completesAll: true });
    if (outcomes[0]!.error) throw outcomes[0]!.error;
    return true;
  });
  await prepareCatalog(plane);
  const release = { ...(await readRelease(plane)), home: files };
  // Last: from here on tenants can be made. Together, because shared tables that have tenants are not looked at again.
  await withConnection(catalogEndpoint(plane), (catalog) =>
    inTransaction(catalog, async () => {
      await requireReleaseUnedited(catalog, release);
      await recordCluster(catalog, cluster, place);
      if (isMigrated) await recordMigrated(catalog, place, release);
    }),
  );
  return { apiKeyJwks: { keys: trustedKeys(signing) } };
}

/** An empty server in place of the one with the catalog would be served as if there were no tenant. @throws Error */
async function expectInstalled(plane: ControlPlane): Promise<void> {
  const { clusterId, host, port } = plane.catalog;
  if (await mayConnect(adminEndpoint(plane, { clusterId, host, port, database: 'postgres' }))) return;
  throw new Error(
    `The server ${host} does not let in tenancy_provisioner, which an earlier installation has made: it is another server, and the data is not on it. Has the setting cluster.kind changed? Put it back, or restore a snapshot of the old server (DEPLOYING.md, "Another kind of cluster").`,
  );
}

async function masterLogin(secret: string): Promise<Pick<Endpoint, 'login' | 'password'>> {
  const { username, password } = JSON.parse(secret) as { username: string; password: string };
  return { login: username, password: async () => password };
}

/** No home in the database: the shared tables have no user yet. */
async function isNew(connection: ControlConnection): Promise<boolean> {
  const { rows } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query<{ used: boolean }>('select exists (select from tenancy.homes) as used'),
  );
  return !rows[0]!.used;
}
