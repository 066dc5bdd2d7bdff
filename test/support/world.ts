import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Principal } from '../../functions/lib/auth/principal.ts';
import { createSecrets, type Secrets } from '../../functions/lib/aws/secrets.ts';
import { recordCluster } from '../../functions/lib/catalog/clusters.ts';
import { recordSchemaState } from '../../functions/lib/catalog/migration-runs.ts';
import { type CatalogHome, presentHome } from '../../functions/lib/catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../../functions/lib/database/connect.ts';
import { KeptConnections } from '../../functions/lib/database/kept.ts';
import type { CallLimits, Endpoint, Mode } from '../../functions/lib/database/types.ts';
import { type Access, createAccess } from '../../functions/lib/isolation/access.ts';
import { type ContextClaims, parseMasterKeys, signContext } from '../../functions/lib/isolation/context.ts';
import {
  createCredentials,
  loginSecretName,
  tenantSecretName,
} from '../../functions/lib/isolation/credentials.ts';
import { sharedHome } from '../../functions/lib/isolation/isolation.ts';
import { type ControlPlane, catalogEndpoint } from '../../functions/lib/lifecycle/control-plane.ts';
import { type Place, prepareCatalog, preparePlace } from '../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../functions/lib/migrations/install.ts';
import { type MigrationFile, parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import { migrateHome } from '../../functions/lib/migrations/migrator.ts';
import {
  homeMigrations,
  newestState,
  type Release,
  readRelease,
} from '../../functions/lib/migrations/release.ts';
import { type McpSettings, readMcpSettings } from '../../functions/lib/settings.ts';
import { type Strategy, strategies, type TenantId } from '../../functions/lib/tenant/tenant.ts';
import { type AwsEmulator, startAwsEmulator } from '../../infra/local/emulator/server.ts';
import { onboard } from '../../infra/local/onboard.ts';
import { readSettings } from '../../infra/settings.ts';
import { type BegunWorld, begunWorld } from './begun-world.ts';
import { endpoint, quick, startCluster, type TestCluster, testBase } from './cluster.ts';

export { strategies };
export const modes = ['one', 'four'] as const;

/** The product's own table for tests: it does not depend on the example domain. */
export const noteMigration = parseMigration(
  '9000-notes.sql',
  `create table notes (
     tenant_id uuid not null,
     note_id uuid not null default gen_random_uuid(),
     body text not null,
     amount bigint not null default 0,
     parent_id uuid,
     primary key (tenant_id, note_id),
     unique (tenant_id, body),
     foreign key (tenant_id, parent_id) references notes (tenant_id, note_id) on delete cascade
   );`,
);

/** An adopting team may have a table of that name, and tests of its own alone. */
const makesNotes = ({ sql }: MigrationFile) =>
  /\bcreate\s+table\s+(if\s+not\s+exists\s+)?"?notes"?[\s(]/i.test(sql);

/** What the deployment's settings name. */
const { extensions } = readSettings(
  JSON.parse(readFileSync(new URL('../../cdk.json', import.meta.url), 'utf8')).context.tenantry,
);

export interface TestTenant {
  readonly id: TenantId;
  readonly slug: string;
  readonly strategy: Strategy;
  readonly home: CatalogHome;
  readonly place: Place;
  /** As the authorizer would hand it over. */
  readonly principal: Principal;
}

export interface World {
  readonly cluster: TestCluster;
  readonly emulator: AwsEmulator;
  readonly plane: ControlPlane;
  readonly secrets: Secrets;
  readonly settings: McpSettings;
  readonly shared: Place;
  /** As a deployment's. */
  readonly release: Release;
  /** Two tenants of each strategy: `a` attacks, `b` must not notice. */
  readonly tenants: Readonly<Record<Strategy, { readonly a: TestTenant; readonly b: TestTenant }>>;
  addTenant(strategy: Strategy, slug?: string): Promise<TestTenant>;
  access(settings?: Partial<McpSettings>): Access;
  /** What a call of this tenant gets; closed with the world. */
  database(
    tenant: TestTenant,
    limits?: Partial<CallLimits>,
    settings?: Partial<McpSettings>,
  ): ReturnType<Access['database']>;
  /** A signed context for the tenant's home, altered at will. */
  context(tenant: TestTenant, claims?: Partial<ContextClaims>, now?: number): string;
  /** A raw connection with the login that the tenant's tools use: what an SQL injection has. */
  asLogin<T>(tenant: TestTenant, work: (connection: ControlConnection) => Promise<T>): Promise<T>;
  /** A raw connection as tenancy_provisioner in the tenant's database, or in the catalog's. */
  asProvisioner<T>(
    where: TestTenant | 'catalog',
    work: (connection: ControlConnection) => Promise<T>,
  ): Promise<T>;
  /** As nobody may: past every wall. */
  superuser(database: string): Endpoint;
  close(): Promise<void>;
}

export function limits(mode: Mode = 'w', more: Partial<CallLimits> = {}): CallLimits {
  return {
    mode,
    deadline: Date.now() + 60_000,
    signal: new AbortController().signal,
    maxRows: 1_000,
    maxBytes: 1_000_000,
    roundTrips: 'one',
    ...more,
  };
}

interface WorldOptions {
  readonly migrations?: readonly MigrationFile[];
  readonly extensions?: readonly string[];
  readonly parameters?: Record<string, string>;
  readonly rds?: boolean;
}

/** The whole product below its protocol, on real PostgreSQL: catalog, shared database, two tenants of each strategy. */
export async function startWorld(options: WorldOptions = {}): Promise<World> {
  // Its files would take the place of one that such a world has got.
  const begun = options.migrations?.some(makesNotes)
    ? undefined
    : await begunWorld(process.env.TENANTRY_RUN, () => makeWorld({}));
  return makeWorld(options, begun);
}

/** Every step of it is safe to repeat: what was begun is completed, with this world's addresses and files. */
async function makeWorld(options: WorldOptions, begun?: BegunWorld): Promise<World> {
  const [cluster, emulator] = await Promise.all([
    startCluster(options.parameters, begun?.data),
    startAwsEmulator(options.rds ? { rds: { postgresBase: testBase(), parameters: quick } } : {}),
  ]);
  Object.assign(process.env, {
    AWS_ENDPOINT_URL: emulator.url,
    AWS_REGION: 'eu-west-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  });
  const secrets = createSecrets();
  for (const [name, value] of begun?.secrets ?? [])
    await emulator.secrets.create({ name, region: 'eu-west-1', SecretString: value });
  const keySecret =
    (await secrets.find('tenancy/context-key')) ??
    JSON.stringify({ current: 'k1', keys: { k1: randomBytes(32).toString('base64') } });
  await secrets.write('tenancy/context-key', keySecret);
  const clusterId = begun?.clusterId ?? randomUUID();
  const { host, port } = cluster.server;
  const plane: ControlPlane = {
    catalog: { clusterId, host, port },
    secrets,
    credentials: createCredentials('secret', 'eu-west-1', secrets),
    keys: parseMasterKeys(keySecret),
    loginsUse: 'secret',
    tls: 'off',
    extensions: options.extensions ?? extensions,
    // As many as the environments have that one test stands for.
    kept: new KeptConnections(8),
  };
  const at = { kind: 'shared', region: 'eu-west-1', host, port, adminHost: host, adminPort: port } as const;
  const shared = await preparePlace(plane, { ...at, clusterId }, tenantsDatabase, cluster.master);
  await prepareCatalog(plane);
  const asProvisioner: World['asProvisioner'] = (where, work) =>
    withConnection(where === 'catalog' ? catalogEndpoint(plane) : where.place.admin, work);
  await asProvisioner('catalog', (catalog) => recordCluster(catalog, { ...at, clusterId }, shared));

  const [own, more] = [await homeMigrations(), options.migrations ?? []];
  const files = [...own, ...([...own, ...more].some(makesNotes) ? [] : [noteMigration]), ...more];
  const release: Release = { ...(await readRelease(plane)), home: files };
  await withConnection(shared.admin, (connection) =>
    migrateHome(connection, { home: sharedHome, databaseId: shared.databaseId, keys: plane.keys }, files),
  );
  await asProvisioner('catalog', (catalog) => recordSchemaState(catalog, shared, newestState(release)));

  const settings = readMcpSettings({
    PUBLIC_URL: 'http://127.0.0.1:8080/mcp',
    CATALOG_HOST: host,
    CATALOG_PORT: String(port),
    CREDENTIALS: 'secret',
    DATABASE_TLS: 'off',
    AWS_REGION: 'eu-west-1',
    MAX_CONNECTIONS: '10',
  });
  const opened: Access[] = [];
  const access: World['access'] = (change = {}) => {
    const made = createAccess({ settings: { ...settings, ...change }, secrets: createSecrets() });
    opened.push(made);
    return made;
  };
  let common: Access | undefined;

  async function addTenant(
    strategy: Strategy,
    slug = `${strategy}-${randomUUID().slice(0, 8)}`.replace(/-(\d)/, '-x$1'),
  ): Promise<TestTenant> {
    // A database of its own, in the same cluster: the wall is the same, and the neighbours are nearer.
    const place =
      strategy === 'database'
        ? await preparePlace(
            plane,
            { ...at, clusterId },
            `own_${createHash('md5').update(slug).digest('hex')}`,
            cluster.master,
          )
        : shared;
    const id = await onboard(plane, { slug, tier: 'pro', strategy }, place, release);
    const home = await asProvisioner('catalog', (catalog) => presentHome(catalog, id));
    const principal = {
      tenant: id,
      principal: `agent-of-${slug}`,
      scopes: '',
      auth: 'oidc:http://127.0.0.1/issuer',
    };
    return { id, slug, strategy, home, place, principal };
  }

  const pair = async (strategy: Strategy) => ({
    a: await addTenant(strategy, `${strategy}-a`),
    b: await addTenant(strategy, `${strategy}-b`),
  });
  const tenants = { rls: await pair('rls'), schema: await pair('schema'), database: await pair('database') };

  return {
    cluster,
    emulator,
    plane,
    secrets,
    settings,
    shared,
    release,
    tenants,
    addTenant,
    access,
    database(tenant, change = {}, settingsChange) {
      common ??= access();
      const with_ = settingsChange ? access(settingsChange) : common;
      return with_.database(tenant.principal, routeOf(tenant), limits(change.mode, change));
    },
    context: (tenant, claims = {}, now = Date.now()) =>
      signContext(
        plane.keys,
        {
          databaseId: tenant.home.databaseId,
          tenant: tenant.id,
          epoch: tenant.home.epoch,
          mode: 'w',
          purpose: 'call',
          statementMs: 5_000,
          ...claims,
        },
        now,
      ),
    asLogin: async (tenant, work) => withConnection(await loginEndpoint(secrets, tenant), work),
    asProvisioner,
    superuser(database) {
      const { host, port, superuserPassword } = cluster.server;
      const password = async () => superuserPassword;
      return { host, port, database, login: 'postgres', tls: 'off', password };
    },
    async close() {
      await Promise.all(opened.map((made) => made.pools.close()));
      await emulator.close();
      await cluster.close();
    },
  };
}

export const routeOf = (tenant: TestTenant) => ({
  tenant: tenant.id,
  slug: tenant.slug,
  status: 'active' as const,
  strategy: tenant.strategy,
  epoch: tenant.home.epoch,
  schemaVersion: null,
  homeId: tenant.home.homeId,
  databaseId: tenant.home.databaseId,
  database: tenant.home.database,
  schema: tenant.home.schema,
  login: tenant.home.login,
  clusterId: tenant.home.clusterId,
  host: tenant.place.host,
  port: tenant.place.port,
});

async function loginEndpoint(secrets: Secrets, { strategy, id, home, place }: TestTenant): Promise<Endpoint> {
  const name = strategy === 'database' ? tenantSecretName(id) : loginSecretName(home.clusterId, home.login);
  const { password } = JSON.parse(await secrets.read(name)) as { password: string };
  return endpoint(
    { host: place.host, port: place.port, database: home.database, login: home.login },
    password,
  );
}
