import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { showHealth } from '../../functions/lib/admin/health.ts';
import { buryTenant } from '../../functions/lib/catalog/offboarding.ts';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { auditOperations } from '../../functions/lib/health/upkeep.ts';
import { releaseFences } from '../../functions/lib/lifecycle/move-fence.ts';
import { endOperation } from '../../functions/lib/lifecycle/operations.ts';
import { budgetOf, connectionFacts } from '../../infra/budget.ts';
import { readSettings } from '../../infra/settings.ts';
import { runOnce, startWatching } from '../lib/health/support.ts';
import { strategies } from '../support/world.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

let admin: AdminWorld;
beforeAll(async () => {
  admin = await startAdmin();
});
afterAll(() => admin?.world.close());

const health = async (slug?: string) =>
  (await admin.ask('GET', '/health', undefined, {}, slug === undefined ? {} : { tenant: slug })).body;

it('is down before anybody has watched, and then what the canary found', async () => {
  expect(await health()).toEqual({
    state: 'down',
    ageSeconds: null,
    report: null,
    connectionBudget: null,
  });
  await runOnce(await startWatching(admin.world));
  const { state, ageSeconds, report } = await health();
  expect([state, report.findings]).toEqual(['ok', []]);
  expect(ageSeconds).toBeLessThan(180);
  expect(report.strategies).toEqual(strategies);
});

it('keeps the canaries out of the list of tenants and of what was done, unless they are asked for', async () => {
  const slugs = async (query?: Record<string, string>) =>
    (await admin.ask('GET', '/tenants', undefined, {}, query)).body.tenants.map(
      ({ slug }: { slug: string }) => slug,
    );
  expect((await slugs()).filter((slug: string) => slug.startsWith('canary-'))).toEqual([]);
  expect(
    (await slugs({ canaries: 'true' })).filter((slug: string) => slug.startsWith('canary-')),
  ).toHaveLength(6);
  const { operations } = (await admin.ask('GET', '/operations')).body;
  expect(operations.filter(({ tenant }: { tenant: string }) => tenant.startsWith('canary-'))).toEqual([]);
  const taken = await admin.ask('POST', '/tenants', { slug: 'canary-rls-c', tier: 'starter' });
  expect(code(taken)).toEqual([400, 'slug_invalid']);
});

it('shows the budget that the deployment was synthesized with, of what the server really has', async () => {
  const facts = connectionFacts(readSettings({}));
  const { connectionBudget: budget } = await showHealth({
    ...admin.admin,
    settings: { ...admin.admin.settings, connectionFacts: facts },
  });
  const shared = budget!.find(({ name }) => name === 'shared cluster')!;
  expect(shared.limit).not.toBe(facts.shared.maxConnections);
  // This server has far fewer than a deployment's: it says so, with what to do.
  expect([shared.holds, shared.remedies.length > 0]).toEqual([false, true]);
  const proxy = (name: string) => budget!.find((each) => each.name === name);
  expect(proxy('proxy clients')).toEqual(budgetOf(readSettings({}))[0]);
});

it('the watch leaves tenants alone that are gone, but tells of an offboarding that failed at its check', async () => {
  const { id, slug } = await admin.world.addTenant('rls', 'gone-one');
  const { operation } = (await admin.ask('POST', `/tenants/${slug}/move`, { to: 'schema' })).body;
  await admin.world.asProvisioner('catalog', async (catalog) => {
    await endOperation(catalog, operation.id, { state: 'failed', step: 'prepare', reason: 'planned' });
    await catalog.query(
      "insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest, state, failed_step, reason) values (gen_random_uuid(), 'offboard', $1, '{}', 'x', 'failed', 'check', 'planned')",
      [id],
    );
    // It failed before it had removed anything, and the tenant was resumed: nothing else would end the finding.
    const before = (await auditOperations(catalog)).findings.map(({ object }) => object);
    expect(before).not.toContain(`offboard ${slug}`);
    await buryTenant(catalog, id, []);
    expect(await releaseFences(admin.world.plane, catalog)).toEqual([]);
    const { findings } = await auditOperations(catalog);
    expect(findings.filter(({ object }) => object.endsWith(slug))).toMatchObject([
      { object: `offboard ${slug}`, finding: expect.stringMatching(/^failed at check: /) },
    ]);
  });
});

describe('of one tenant', () => {
  it.each(strategies)('%s: what belongs to its strategy, and null for the others', async (strategy) => {
    const field = { rls: 'rls_context', schema: 'schema_routing', database: 'tenant_pools' }[strategy];
    const none = { rls_context: null, schema_routing: null, tenant_pools: null };
    expect(await health(`${strategy}-a`)).toEqual({
      tenant: `${strategy}-a`,
      strategy,
      status: 'active',
      migrations: 'ok',
      state: 'ok',
      ...none,
      [field]: 'ok',
      control_plane: 'ok',
      active_pool_count: expect.any(Number),
      connection_budget: {
        max_connections: expect.any(Number),
        connections: expect.any(Number),
        login_limit: strategy === 'rls' ? -1 : 20,
      },
    });
  });

  it('says what is wrong as it is now, before the canary comes by', async () => {
    const { a } = admin.world.tenants.schema;
    const alter = (path: string) =>
      admin.world.asProvisioner(a, (connection) =>
        connection.query(`alter role ${a.home.login} set search_path = ${path}`),
      );
    await alter('public');
    expect((await health('schema-a')).schema_routing).toContain('has a search path of its own');
    expect((await health('schema-b')).schema_routing).toBe('ok');
    await alter("''");
    expect((await health('schema-a')).schema_routing).toBe('ok');
  });

  it('counts the connections of every login', async () => {
    const holding = (left: number): Promise<unknown> =>
      withConnection(admin.world.superuser('postgres'), () =>
        left > 1 ? holding(left - 1) : health('schema-a'),
      );
    expect(await holding(12)).toMatchObject({
      connection_budget: { connections: expect.toSatisfy((count: number) => count >= 12) },
    });
  });

  it('answers for a tenant whose database is shut', async () => {
    const { a } = admin.world.tenants.database;
    const open = (may: boolean) =>
      admin.world.asProvisioner(admin.world.tenants.rls.a, (connection) =>
        connection.query(`alter database ${a.home.database} allow_connections ${may}`),
      );
    await open(false);
    const shut = await health('database-a');
    expect(shut.tenant_pools).toMatch(/^its database can't be reached/);
    expect([shut.active_pool_count, shut.connection_budget]).toEqual([null, null]);
    await open(true);
    expect((await health('database-a')).tenant_pools).toBe('ok');
  });

  it('is refused for nobody', async () => {
    expect(code(await admin.ask('GET', '/health', undefined, {}, { tenant: 'nobody' }))).toEqual([
      404,
      'unknown_tenant',
    ]);
  });
});
