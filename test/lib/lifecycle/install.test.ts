import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createSecrets } from '../../../functions/lib/aws/secrets.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { catalogDatabase } from '../../../functions/lib/isolation/catalog-reader.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { catalogEndpoint, createControlPlane } from '../../../functions/lib/lifecycle/control-plane.ts';
import { install } from '../../../functions/lib/lifecycle/install.ts';
import { preparePlace } from '../../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../../functions/lib/migrations/install.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { homeMigrations, newestState, readRelease } from '../../../functions/lib/migrations/release.ts';
import { type InstallSettings, readInstallSettings } from '../../../functions/lib/settings.ts';
import { type AwsEmulator, startAwsEmulator } from '../../../infra/local/emulator/server.ts';
import { onboard } from '../../../infra/local/onboard.ts';
import { startCluster, type TestCluster } from '../../support/cluster.ts';
import { noteMigration } from '../../support/world.ts';

let server: TestCluster;
let emulator: AwsEmulator;
let settings: InstallSettings;

beforeAll(async () => {
  [server, emulator] = await Promise.all([startCluster(), startAwsEmulator()]);
  Object.assign(process.env, {
    AWS_ENDPOINT_URL: emulator.url,
    AWS_REGION: 'eu-west-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  });
  const { host, port } = server.server;
  settings = readInstallSettings({
    CATALOG_HOST: host,
    CATALOG_PORT: String(port),
    CATALOG_CLUSTER_ID: randomUUID(),
    PROXY_HOST: host,
    PROXY_PORT: String(port),
    MASTER_SECRET: 'rds-master',
    CREDENTIALS: 'secret',
    DATABASE_TLS: 'off',
    AWS_REGION: 'eu-west-1',
  });
  await createSecrets().write('rds-master', JSON.stringify({ username: 'master', password: 'master' }));
});
afterAll(async () => {
  await emulator?.close();
  await server?.close();
});

it('refuses an empty server once an installation has succeeded, and takes it as often as none has', async () => {
  const files = await homeMigrations();
  // As a deployment logs in; the others' passwords are made with the logins.
  await expect(install({ ...settings, credentials: 'iam' }, files, false)).rejects.toThrow(
    /another server[\s\S]*cluster\.kind/,
  );
  // Keys are there from the first attempt on: they say nothing.
  const faulty = parseMigration('9001-faulty.sql', 'create table no_key (x text)');
  await expect(install(settings, [...files, faulty])).rejects.toThrow();
  await install(settings, files);
  await install(settings, files, false);
});

it('records what the shared tables have, until tenants live there: then only a run changes them', async () => {
  const files = await homeMigrations();
  await install(settings, files);
  const plane = await createControlPlane(settings);
  const release = await readRelease(plane);
  const stateOf = (home: typeof files) => newestState({ ...release, home });
  const recorded = () =>
    withConnection(catalogEndpoint(plane), async (catalog) => {
      const { rows } = await catalog.query(
        'select schema_version as version, schema_digest as digest from catalog.clusters',
        [],
      );
      return rows;
    });
  expect(await recorded()).toEqual([stateOf(files)]);

  const later = [...files, noteMigration];
  await install(settings, later);
  expect(await recorded()).toEqual([stateOf(later)]);

  const { clusterId, host, port } = settings.catalog;
  const at = { clusterId, kind: 'shared', region: 'eu-west-1', host, port } as const;
  const cluster = { ...at, adminHost: host, adminPort: port };
  const place = await preparePlace(plane, cluster, tenantsDatabase, server.master);
  const tenant = { slug: 'acme', tier: 'starter', strategy: 'rls' } as const;
  await onboard(plane, tenant, place, { ...release, home: later });
  await install(settings, [...later, parseMigration('9001-more.sql', 'create table more ()')]);
  expect(await recorded()).toEqual([stateOf(later)]);
  // A deployment that brings an edited file ends here: new homes would be other ones.
  const edited = parseMigration(noteMigration.name, `${noteMigration.sql} -- edited`);
  await expect(install(settings, [...files, edited])).rejects.toThrow(/was edited after it was applied/);
});

it('lets the login of RDS Proxy itself into its databases, and nobody else of everybody', async () => {
  const { host, port, superuserPassword } = server.server;
  const superuser = {
    ...{ host, port, database: 'postgres', login: 'postgres', tls: 'off' as const },
    password: async () => superuserPassword,
  };
  await withConnection(superuser, (connection) => connection.query('create role rdsproxyadmin login'));
  await install(settings, await homeMigrations());
  const { rows } = await withConnection(superuser, (connection) =>
    connection.query(
      `select has_database_privilege('rdsproxyadmin', datname, 'connect') as proxy,
              exists (select from aclexplode(datacl) where grantee = 0) as everybody
         from pg_database where datname in ($1, $2)`,
      [tenantsDatabase, catalogDatabase],
    ),
  );
  const entered = { proxy: true, everybody: false };
  expect(rows).toEqual([entered, entered]);
});

it('says what to do with databases of before the first release', async () => {
  const files = await homeMigrations();
  await install(settings, files);
  const plane = await createControlPlane(settings);
  await withConnection(catalogEndpoint(plane), (catalog) =>
    asRole(catalog, 'tenancy_keeper', () =>
      catalog.query("update catalog._migrations set name = concat('old-', name)"),
    ),
  );
  await expect(install(settings, files)).rejects.toThrow(
    /catalog\/0001-tenants\.sql makes what is there already.*npm start -- --fresh/,
  );
});
