import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newSigningKey } from '../../../functions/lib/auth/api-key.ts';
import { recordCluster } from '../../../functions/lib/catalog/clusters.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { runCanary } from '../../../functions/lib/health/run.ts';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { loginSecretName, tenantSecretName } from '../../../functions/lib/isolation/credentials.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { catalogEndpoint } from '../../../functions/lib/lifecycle/control-plane.ts';
import { beginOffboarding, offboardSteps } from '../../../functions/lib/lifecycle/offboard.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { suspend } from '../../../functions/lib/lifecycle/suspend.ts';
import type { TenantId } from '../../../functions/lib/tenant/tenant.ts';
import { connectionFacts } from '../../../infra/budget.ts';
import { readSettings } from '../../../infra/settings.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { runOnce, signingKeySecret, startWatching, told } from './support.ts';

let world: World;
let watch: Watch;
beforeAll(async () => {
  world = await startWorld({ rds: true });
  watch = await startWatching(world, true);
});
afterAll(() => world?.close());

const inCatalog = <T>(text: string, values?: unknown[]) =>
  world.asProvisioner('catalog', (catalog) => catalog.query<T>(text, values));

const unused = () => Promise.reject(new Error('A canary has no instance.'));

/** What is wrong after `wreck`; green again after `mend`. */
async function sabotaged(wreck: () => Promise<unknown>, mend: () => Promise<unknown>) {
  await wreck();
  const run = await runOnce(watch).finally(mend);
  expect(told(await runOnce(watch))).toEqual([]);
  return { state: run.state, text: told(run).join('\n') };
}

describe('a healthy system', () => {
  it('is green in every check, with two canaries of each strategy in use', async () => {
    const run = await runOnce(watch);
    expect(told(run)).toEqual([]);
    expect([run.state, run.report.strategies]).toEqual(['ok', strategies]);
    expect(Object.values(run.report.checks)).not.toContain('red');
    const { rows } = await inCatalog(
      'select slug, status from catalog.tenants where is_canary order by slug',
    );
    const slugs = ['database', 'rls', 'schema'].flatMap((name) => [`canary-${name}-a`, `canary-${name}-b`]);
    expect(rows).toEqual(slugs.map((slug) => ({ slug, status: 'active' })));
  });

  it('stays green while tenants come, are suspended and resumed', async () => {
    let busy = true;
    const coming = (async () => {
      while (busy) {
        const tenant = await world.addTenant('rls');
        await suspend(world.plane, tenant.id);
      }
    })();
    for (let round = 0; round < 3; round += 1) expect(told(await runOnce(watch))).toEqual([]);
    busy = false;
    await coming;
  });

  it('is watched by one run at a time', async () => {
    await withConnection(catalogEndpoint(world.plane), async (other) => {
      await other.query(`select pg_advisory_lock(hashtext('tenancy.canary'), 0)`);
      expect(await runCanary(watch)).toBeUndefined();
    });
    expect(await runCanary(watch)).toBeDefined();
  });

  it('needs no table of the adopting team’s', async () => {
    const { rows } = await inCatalog<{ text: string }>(
      `select report::text as text from catalog.health_runs order by run_id desc limit 1`,
    );
    expect(rows[0]!.text).not.toMatch(/items|stock|notes/);
  });
});

describe('what is not in a database', () => {
  it('a canary that was taken away is made again', async () => {
    await inCatalog(
      `update catalog.tenants set slug = 'taken-away', is_canary = false where slug = 'canary-rls-a'`,
    );
    await runOnce(watch);
    expect(told(await runOnce(watch))).toEqual([]);
    const { rows } = await inCatalog(`select status from catalog.tenants where slug = 'canary-rls-a'`);
    expect(rows).toEqual([{ status: 'active' }]);
  });

  it.each(strategies)('a canary of %s that was offboarded is made again under its slug', async (strategy) => {
    const slug = `canary-${strategy}-a`;
    const remedy = async () => (await runOnce(watch)).report.findings.map(({ remedy }) => remedy);
    const idOf = async () =>
      (
        await inCatalog<{ id: TenantId }>('select tenant_id as id from catalog.tenants where slug = $1', [
          slug,
        ])
      ).rows[0]!.id;
    const gone = await idOf();
    await suspend(world.plane, gone);
    expect(await remedy()).toEqual([`npm run tenants -- resume ${slug}`]);
    const request = { slug, graceSeconds: 0, exportTo: undefined };
    const { operationId } = await world.asProvisioner('catalog', (catalog) =>
      beginOffboarding(catalog, gone, request),
    );
    const offboarder = { plane: world.plane, instances: { status: unused }, clock: Date.now };
    const step = (name: keyof typeof offboardSteps) =>
      runStep(offboarder, { operation: operationId, step: name, input: {} }, ['offboard'], offboardSteps);
    await step('suspend');
    expect(await remedy()).toEqual([`npm run tenants -- why ${slug}`]);
    for (const name of ['beginRemoval', 'removeHome', 'removeSecrets', 'bury', 'check'] as const)
      await step(name);
    await runOnce(watch);
    expect(told(await runOnce(watch))).toEqual([]);
    expect(await idOf()).not.toBe(gone);
  });

  it('a canary that can’t be made is said, and not begun again every minute', async () => {
    await inCatalog(
      `update catalog.tenants set slug = 'taken-too', is_canary = false where slug = 'canary-rls-b'`,
    );
    const failing: Watch = {
      ...watch,
      provision: async (operation) => {
        await inCatalog(
          `update catalog.operations set state = 'failed', failed_step = 'migrate', reason = 'planned', finished_at = now() where operation_id = $1`,
          [operation],
        );
      },
    };
    await runOnce(failing);
    // Nobody tries that wall meanwhile: in the third run it is in doubt.
    for (const state of ['degraded', 'broken']) {
      const run = await runOnce(failing);
      expect(told(run)).toContain('canaries: canary-rls-b could not be made: planned');
      expect(run.state).toBe(state);
    }
    const { rows } = await inCatalog(
      `select count(*)::int as n from catalog.operations join catalog.tenants using (tenant_id) where slug = 'canary-rls-b'`,
    );
    expect(rows).toEqual([{ n: 1 }]);
    await inCatalog(
      `update catalog.operations set started_at = now() - interval '16 minutes' where reason = 'planned'`,
    );
    await runOnce(watch);
    expect(told(await runOnce(watch))).toEqual([]);
  });

  it('a tenant whose secret is gone, and a secret that nobody needs', async () => {
    const { a } = world.tenants.database;
    const name = tenantSecretName(a.id);
    const kept = await world.secrets.read(name, true);
    const gone = await sabotaged(
      () => world.secrets.remove(name),
      () => world.secrets.write(name, kept),
    );
    expect(gone.text).toContain(`secrets: secret ${name} of database-a is not there`);
    const stray = loginSecretName(a.home.clusterId, `t_${'0'.repeat(32)}`);
    const orphan = await sabotaged(
      () => world.secrets.write(stray, '{}'),
      () => world.secrets.remove(stray),
    );
    expect([orphan.state, orphan.text]).toEqual([
      'degraded',
      `orphans: secret ${stray} is there, but no home needs it`,
    ]);
  });

  it('no tenant whose secret is newer than the list of them, and none that is gone and still listed', async () => {
    const { a } = world.tenants.database;
    const stray = loginSecretName(a.home.clusterId, `t_${'1'.repeat(32)}`);
    // AWS’s list may be five minutes old.
    const list: Watch['secrets']['list'] = async (prefix, limit) => {
      const now = await world.secrets.list(prefix, limit);
      const then = now.filter((name) => name !== tenantSecretName(a.id));
      return stray.startsWith(prefix) ? [...then, stray] : then;
    };
    const late = { ...watch, secrets: { ...world.secrets, list } };
    expect(told(await runOnce(late))).toEqual([]);
  });

  it('the signing keys’ secret that is gone, or that is another', async () => {
    const name = 'tenancy/context-key';
    const kept = await world.secrets.read(name, true);
    const mend = () => world.secrets.write(name, kept);
    const gone = await sabotaged(() => world.secrets.remove(name), mend);
    expect(gone.state).toBe('down');
    expect(gone.text).toContain(`signing_keys: secret ${name} can't be used`);
    const another = JSON.stringify({ current: 'k1', keys: { k1: Buffer.alloc(32, 7).toString('base64') } });
    const altered = await sabotaged(() => world.secrets.write(name, another), mend);
    expect(altered.text).toContain(
      'signing_keys: signing key k1 of database tenantry is not the one we sign with',
    );
    expect(altered.text).toContain('unknown_keys: signing key k1 of database tenantry is accepted');
  });

  it('the secret of the pair that signs API keys: gone, garbled, or of two pairs', async () => {
    const kept = await world.secrets.read(signingKeySecret, true);
    const mend = () => world.secrets.write(signingKeySecret, kept);
    const gone = await sabotaged(() => world.secrets.remove(signingKeySecret), mend);
    expect([gone.state, gone.text]).toEqual([
      'degraded',
      `signing_keys: secret ${signingKeySecret} is not there: no API key can be made`,
    ]);
    const other = { ...JSON.parse(kept), private: (await newSigningKey()).privateKey };
    for (const text of [kept.slice(0, 100), '{}', JSON.stringify(other)]) {
      const garbled = await sabotaged(() => world.secrets.write(signingKeySecret, text), mend);
      expect([garbled.state, garbled.text]).toEqual([
        'degraded',
        `signing_keys: secret ${signingKeySecret} holds no pair that signs and verifies: no API key can be made`,
      ]);
    }
  });

  it('a session that keeps an advisory lock', async () => {
    const { a } = world.tenants.rls;
    await world.asLogin(a, async (connection) => {
      await connection.query('select pg_advisory_lock(1)');
      const { report, state } = await runOnce(watch);
      expect(report.sessionLocks).toBe(1);
      expect([state, report.findings.map(({ check, strategies }) => [check, strategies])]).toEqual([
        'degraded',
        [['session_locks', ['rls']]],
      ]);
    });
    expect((await runOnce(watch)).report.sessionLocks).toBe(0);
  });

  it('a server with other connections than the budget counts', async () => {
    const facts = connectionFacts(readSettings({}));
    const { rows } = await inCatalog<{ max: number }>(
      "select current_setting('max_connections')::int as max",
    );
    const { max } = rows[0]!;
    const counting = (maxConnections: number) =>
      runOnce({ ...watch, connectionFacts: { ...facts, shared: { ...facts.shared, maxConnections } } });
    const run = await counting(max + 1);
    expect(run.state).toBe('degraded');
    expect(told(run)).toEqual([
      `server: max_connections of ${world.cluster.server.host} is ${max}, where the connection budget counts ${max + 1}`,
    ]);
    expect(run.report.findings[0]!.remedy).toMatch(/^reboot the server.* cluster\.maxConnections /);
    expect(told(await counting(max))).toEqual([]);
  });

  it('an offboarding in its grace period is no trouble, and its home is watched on', async () => {
    const tenant = await world.addTenant('schema');
    const operation = randomUUID();
    const asHome = (text: string, role: 'tenancy_keeper' | 'tenancy_owner') =>
      world.asProvisioner(tenant, (connection) => asRole(connection, role, () => connection.query(text)));
    await suspend(world.plane, tenant.id);
    await inCatalog(`update catalog.tenants set status = 'offboarding' where tenant_id = $1`, [tenant.id]);
    const begun = (days: number) =>
      inCatalog(
        `insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest, started_at)
         values ($1, 'offboard', $2, '{"graceSeconds": 2592000}', '', now() - make_interval(days => $3))
         on conflict (operation_id) do update set started_at = excluded.started_at`,
        [operation, tenant.id, days],
      );
    await begun(29);
    expect(told(await runOnce(watch))).toEqual([]);
    await asHome(`grant select on ${tenant.home.schema}.notes to public`, 'tenancy_owner');
    expect(told(await runOnce(watch)).join()).toContain(
      `${tenant.home.schema}.notes SELECT is granted to PUBLIC`,
    );
    await asHome(`revoke select on ${tenant.home.schema}.notes from public`, 'tenancy_owner');
    await begun(31);
    expect(told(await runOnce(watch))).toEqual([
      expect.stringContaining(`operations: offboard ${tenant.slug} is running, but nothing has happened`),
    ]);
    await inCatalog(
      `update catalog.operations set state = 'cancelled', finished_at = now() where operation_id = $1`,
      [operation],
    );
    expect(told(await runOnce(watch))).toEqual([]);
  });

  it('homes that a migration has left out, until one has changed them', async () => {
    const { a, b } = world.tenants.schema;
    let minutes = 60;
    const migrated = async (states: Record<string, string>) => {
      const operation = randomUUID();
      minutes -= 10;
      await inCatalog(
        `insert into catalog.operations (operation_id, kind, state, input, request_digest, finished_at)
         values ($1, 'migrate', 'done', '{}', '', now())`,
        [operation],
      );
      await inCatalog(
        `insert into catalog.migration_runs (operation_id, version, digest, tolerated) values ($1, '0001', '', 9)`,
        [operation],
      );
      for (const [home, state] of Object.entries(states))
        await inCatalog(
          `insert into catalog.migration_targets (operation_id, target_id, kind, ring, place, version, digest, state, reason, finished_at)
           values ($1, $2, 'home', 0, '', '0001', '', $3, 'planned', now() - make_interval(mins => $4))`,
          [operation, home, state, minutes],
        );
    };
    await migrated({ [a.home.homeId]: 'quarantined', [b.home.homeId]: 'done' });
    const run = await runOnce(watch);
    expect([run.state, run.report.homesQuarantined]).toEqual(['degraded', 1]);
    expect(told(run)).toEqual([
      expect.stringContaining(`quarantined: home ${a.home.homeId} of schema-a left out by a migration`),
    ]);
    await migrated({ [a.home.homeId]: 'quarantined', [b.home.homeId]: 'quarantined' });
    expect((await runOnce(watch)).report.homesQuarantined).toBe(2);
    await migrated({ [a.home.homeId]: 'done', [b.home.homeId]: 'done' });
    expect(told(await runOnce(watch))).toEqual([]);
  });
});

describe('a tenant’s database', () => {
  it('that is shut', async () => {
    const { a } = world.tenants.database;
    const open = (may: boolean) => () =>
      world.asProvisioner(world.tenants.rls.a, (connection) =>
        connection.query(`alter database ${a.home.database} allow_connections ${may}`),
      );
    const { state, text } = await sabotaged(open(false), open(true));
    expect(state).toBe('degraded');
    expect(text).toContain(`homes: database ${a.home.database} of database-a lets nobody in`);
  });

  it('on an instance that was stopped is told, and not woken', async () => {
    const clusterId = randomUUID();
    const { instances } = world.emulator;
    await instances!.create({
      identifier: 'tenantry-dedicated',
      region: 'eu-west-1',
      masterUsername: 'master',
      tags: [],
      deletionProtection: false,
      shown: { DBInstanceClass: 'db.t4g.micro', AllocatedStorage: 20, EngineVersion: '17' },
    });
    const { port } = await instances!.settled('tenantry-dedicated');
    const at = { host: '127.0.0.1', port, adminHost: '127.0.0.1', adminPort: port };
    await world.asProvisioner('catalog', (catalog) =>
      recordCluster(catalog, { clusterId, kind: 'dedicated', region: 'eu-west-1', ...at }),
    );
    expect(told(await runOnce(watch))).toEqual([]);
    await instances!.stop('tenantry-dedicated');
    await instances!.settled('tenantry-dedicated');
    for (let round = 0; round < 2; round += 1) {
      const run = await runOnce(watch);
      expect(told(run)).toEqual([
        'instances: instance tenantry-dedicated is stopped: its tenant is not served',
      ]);
      expect(run.state).toBe('degraded');
    }
    expect(instances!.all().find(({ identifier }) => identifier === 'tenantry-dedicated')?.status).toBe(
      'stopped',
    );
    await inCatalog('delete from catalog.clusters where cluster_id = $1', [clusterId]);
  });
});

it('comes round to every home, however many there are, and does not stop at one that is away', async () => {
  const { a } = world.tenants.database;
  const homes = [world.tenants.schema.a, world.tenants.schema.b];
  for (let more = 0; more < 4; more += 1) homes.push(await world.addTenant('schema'));
  const inHomes = (text: (schema: string, tenant: string, login: string) => string) =>
    world.asProvisioner(world.tenants.rls.a, async (connection) => {
      for (const { home, id } of homes)
        await asRole(connection, 'tenancy_owner', () => connection.query(text(home.schema, id, home.login)));
    });
  const open = (may: boolean) =>
    world.asProvisioner(world.tenants.rls.a, (connection) =>
      connection.query(`alter database ${a.home.database} allow_connections ${may}`),
    );
  await inHomes((schema) => `alter table ${schema}.notes drop constraint tenancy_home`);
  await open(false);
  const found: string[][] = [];
  // Three at a time of eight, as it goes with thousands and forty-eight; twice round, should a machine have no time for one.
  for (let round = 0; round < 6; round += 1) {
    const run = await runCanary(watch, Date.now, 3);
    const objects = run!.report.findings
      .filter(({ check }) => check === 'tables')
      .map(({ object }) => object);
    expect(objects.length).toBeLessThanOrEqual(3);
    found.push(objects);
  }
  expect([...new Set(found.flat())].sort()).toEqual(homes.map(({ home }) => `${home.schema}.notes`).sort());
  await open(true);
  await inHomes(
    (schema, tenant, login) => `select tenancy.protect_owned('${schema}', '${tenant}', '${login}')`,
  );
  expect(told(await runOnce(watch))).toEqual([]);
});

it('calls the signing keys’ secret what this deployment calls it', async () => {
  const contextKeySecret = 'tenancy/context-key-prod';
  const run = await runOnce({
    ...watch,
    keySecrets: { ...watch.keySecrets, contextKeySecret },
    readKeys: () => Promise.reject(new Error('no such secret')),
  });
  const named = told(run).filter((line) => line.startsWith('signing_keys'));
  expect(named).toEqual([
    expect.stringContaining(`secret ${contextKeySecret} can't be used: no such secret`),
  ]);
});

it('finishes without a record when the catalog is away, and with findings when the MCP function is', async () => {
  const silent: Watch = {
    ...watch,
    probe: () => Promise.reject(new Error('no such function')),
  };
  const run = await runOnce(silent);
  expect(run.state).toBe('down');
  expect(told(run)).toContain('data_path: canary-rls-a a tool call failed: no such function');
  const away = { ...watch, plane: { ...watch.plane, catalog: { ...watch.plane.catalog, port: 1 } } };
  await expect(runCanary(away)).rejects.toThrow();
});
