import type { Secrets } from '../../functions/lib/aws/secrets.ts';
import { type Cluster, recordCluster } from '../../functions/lib/catalog/clusters.ts';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { KeptConnections } from '../../functions/lib/database/kept.ts';
import type { Endpoint } from '../../functions/lib/database/types.ts';
import { TenantryError } from '../../functions/lib/errors.ts';
import { parseMasterKeys } from '../../functions/lib/isolation/context.ts';
import { createCredentials } from '../../functions/lib/isolation/credentials.ts';
import { sharedHome } from '../../functions/lib/isolation/isolation.ts';
import { type ControlPlane, catalogEndpoint } from '../../functions/lib/lifecycle/control-plane.ts';
import { recordMigrated } from '../../functions/lib/lifecycle/migrated.ts';
import { type Place, prepareCatalog, preparePlace } from '../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../functions/lib/migrations/install.ts';
import { migrateHome } from '../../functions/lib/migrations/migrator.ts';
import type { Release } from '../../functions/lib/migrations/release.ts';
import type { Instance } from './emulator/rds-state.ts';
import type { SecretStore } from './emulator/secret-store.ts';
import type { AwsEmulator } from './emulator/server.ts';
import type { StateFile } from './emulator/state-file.ts';
import { Refused } from './refused.ts';
import { type CloudState, clusterIdOf } from './state.ts';

export const region = 'eu-west-1';
export const contextKeySecret = 'tenancy/context-key';
export const signingKeySecret = 'tenancy/api-key-signing';
export const canaryKeysSecret = 'tenancy/canary-keys';
const master = 'tenantry_master';

/** The emulator's store in the form that the control plane uses; functions reach the same secrets over HTTP. */
export function secretsOf(store: SecretStore): Secrets {
  const find = async (name: string) => {
    const secret = store.find(name);
    return secret && store.value(secret).string;
  };
  const write = async (name: string, value: string) => {
    const secret = store.find(name);
    if (secret) await store.put(secret, { SecretString: value });
    else await store.create({ name, region, SecretString: value });
  };
  return {
    find,
    async read(name) {
      const value = await find(name);
      if (value === undefined) throw new TenantryError('internal', `The secret ${name} does not exist.`);
      return value;
    },
    write,
    create: write,
    async remove(name) {
      const secret = store.find(name);
      if (secret) await store.remove(secret);
    },
    async isThere(name) {
      const secret = store.find(name);
      return secret !== undefined && secret.deleteAt === undefined;
    },
    list: async (prefix, limit) =>
      store
        .all()
        .map(({ name }) => name)
        .filter((name) => name.startsWith(prefix))
        .slice(0, limit),
  };
}

/** The instance, with its endpoint, created as RDS would when it is not there yet. It may still be on its way up. */
export async function ensureInstance({ instances }: AwsEmulator, identifier: string): Promise<Instance> {
  const known = instances!.all().find((instance) => instance.identifier === identifier);
  if (known?.status === 'stopped') return instances!.start(identifier);
  return (
    known ??
    instances!.create({
      identifier,
      region,
      masterUsername: master,
      tags: [],
      deletionProtection: true,
      shown: { DBInstanceClass: 'db.t4g.micro', AllocatedStorage: 20, EngineVersion: '17' },
    })
  );
}

/** @throws Error when it did not come up */
export async function available({ instances }: AwsEmulator, { identifier }: Instance): Promise<void> {
  const { status } = await instances!.settled(identifier);
  if (status !== 'available') throw new Refused(`PostgreSQL of ${identifier} did not come up: see above.`);
}

export function createPlane(
  state: StateFile<CloudState>,
  secrets: Secrets,
  contextKey: string,
  shared: Instance,
  extensions: readonly string[],
): ControlPlane {
  return {
    catalog: { clusterId: clusterIdOf(state, shared.identifier), host: '127.0.0.1', port: shared.port },
    secrets,
    credentials: createCredentials('secret', region, secrets),
    keys: parseMasterKeys(contextKey),
    loginsUse: 'secret',
    tls: 'off',
    extensions,
    kept: new KeptConnections(),
  };
}

/** The shared cluster: roles, catalog, runtime, and the tenant migrations of its shared tables. */
export async function prepareShared(
  plane: ControlPlane,
  emulator: AwsEmulator,
  shared: Instance,
  release: Release,
): Promise<Place> {
  const cluster = clusterOf(shared, plane.catalog.clusterId, 'shared');
  const place = await preparePlace(plane, cluster, tenantsDatabase, masterOf(emulator, shared));
  const catalog = async () => {
    await prepareCatalog(plane);
    await withConnection(catalogEndpoint(plane), (connection) => recordCluster(connection, cluster, place));
  };
  await migrateShared(plane, place, release, catalog());
  return place;
}

/**
 * Brings the shared tables to the latest migrations. When they refuse one after a tenant was served from them, that is told
 * and they stay as they are, as with a run: else nobody could start what it takes to mend it.
 */
export async function migrateShared(
  plane: ControlPlane,
  place: Place,
  release: Release,
  catalogReady: Promise<unknown>,
): Promise<void> {
  const target = { home: sharedHome, databaseId: place.databaseId, keys: plane.keys };
  const [migrated, ready] = await Promise.allSettled([
    withConnection(place.admin, (connection) => migrateHome(connection, target, release.home)),
    catalogReady,
  ]);
  if (ready.status === 'rejected') throw ready.reason;
  await withConnection(catalogEndpoint(plane), async (catalog) => {
    if (migrated.status === 'fulfilled') return recordMigrated(catalog, place, release);
    const error: unknown = migrated.reason;
    if (!(error instanceof TenantryError && error.code === 'migration_refused')) throw error;
    const served = await catalog.query(
      "select from catalog.homes where strategy = 'rls' and database_id = $1 and state <> 'provisioning' limit 1",
      [place.databaseId],
    );
    if (served.rowCount === 0) throw error;
    console.error(`The shared tables stay as they are. ${error.message}`);
  });
}

/** A tenant's own instance; the catalog has to be there to record it. */
export async function prepareDedicated(
  plane: ControlPlane,
  emulator: AwsEmulator,
  instance: Instance,
  clusterId: string,
  catalogReady: Promise<unknown>,
): Promise<Place> {
  const cluster = clusterOf(instance, clusterId, 'dedicated');
  const place = await preparePlace(plane, cluster, tenantsDatabase, masterOf(emulator, instance));
  await catalogReady;
  await withConnection(catalogEndpoint(plane), (connection) => recordCluster(connection, cluster));
  return place;
}

function clusterOf(instance: Instance, clusterId: string, kind: Cluster['kind']): Cluster {
  const host = '127.0.0.1';
  const { port } = instance;
  return { clusterId, kind, region, host, port, adminHost: host, adminPort: port };
}

/** With the password that RDS manages: used to make the provisioner and for nothing else. */
function masterOf({ secrets }: AwsEmulator, instance: Instance): Endpoint {
  const password = async () =>
    JSON.parse(secrets.value(secrets.live(instance.secretArn!)).string!).password as string;
  return {
    host: '127.0.0.1',
    port: instance.port,
    database: 'postgres',
    login: master,
    password,
    tls: 'off',
  };
}
