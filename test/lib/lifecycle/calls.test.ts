import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createSecrets } from '../../../functions/lib/aws/secrets.ts';
import { recordApiKey, recordTenant, revokeApiKey } from '../../../functions/lib/catalog/tenants.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { createAccess } from '../../../functions/lib/isolation/access.ts';
import { asRole, authenticateBy } from '../../../functions/lib/isolation/homes.ts';
import { catalogEndpoint } from '../../../functions/lib/lifecycle/control-plane.ts';
import { keepLoginSecret } from '../../../functions/lib/lifecycle/place.ts';
import { resume, suspend } from '../../../functions/lib/lifecycle/suspend.ts';
import { onboard } from '../../../infra/local/onboard.ts';
import { limits, routeOf, startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

/** From principal to rows, while tenants and their homes change under a warm environment. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const count = async (access: ReturnType<World['access']>, tenant: TestTenant) => {
  const route = await access.resolve(tenant.principal);
  const { rows } = await access
    .database(tenant.principal, route, limits('r'))
    .query(sql`select count(*)::int as n from notes`);
  return rows[0]!.n as number;
};

describe.each(strategies)('%s', (strategy) => {
  it('is suspended in the next call of a warm environment, and resumed', async () => {
    const { a, b } = world.tenants[strategy];
    const warm = world.access();
    await count(warm, a);
    expect(await suspend(world.plane, a.id)).toBe('done');
    // The remembered route is still fresh: it is the home that refuses.
    await expect(count(warm, a)).rejects.toMatchObject({ code: 'tenant_suspended' });
    await expect(world.access().resolve(a.principal)).rejects.toMatchObject({ code: 'tenant_suspended' });
    expect(await count(warm, b)).toBe(0);
    expect(await suspend(world.plane, a.id)).toBe('done');
    expect(await resume(world.plane, a.id)).toBe('done');
    expect(await count(world.access(), a)).toBe(0);
  });

  it('finds its new epoch by itself when a warm route has become stale', async () => {
    const { a } = world.tenants[strategy];
    const warm = world.access();
    await count(warm, a);
    const bump = `update %s.homes set epoch = epoch + 1 where home_id = $1`;
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query(bump.replace('%s', 'catalog'), [a.home.homeId]),
    );
    await world.asProvisioner(a, (connection) =>
      asRole(connection, 'tenancy_keeper', () =>
        connection.query(bump.replace('%s', 'tenancy'), [a.home.homeId]),
      ),
    );
    expect(await count(warm, a)).toBe(0);
    // The catalog and the home disagree: refused, not guessed.
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query(bump.replace('%s', 'catalog'), [a.home.homeId]),
    );
    await expect(count(world.access(), a)).rejects.toMatchObject({ code: 'unavailable' });
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query('update catalog.homes set epoch = epoch - 1 where home_id = $1', [a.home.homeId]),
    );
  });

  it('survives a rotated password: one refetch, then a clear failure', async () => {
    const { b } = world.tenants[strategy];
    const secretName =
      strategy === 'database' ? `mcp-tenant-db/${b.id}` : `tenancy-login/${b.home.clusterId}/${b.home.login}`;
    const before = JSON.parse(await createSecrets().read(secretName)) as { password: string };
    const warm = world.access({ maxConnections: 2 });
    await count(warm, b);
    const rotate = async (password: string, tell: boolean) => {
      await world.asProvisioner(b, (connection) => authenticateBy(connection, b.home.login, password));
      if (tell) await world.secrets.write(secretName, JSON.stringify({ ...before, password }));
      // Existing connections stay: only a new one asks for the password.
      await withConnection(world.superuser('postgres'), (connection) =>
        connection.query('select pg_terminate_backend(pid, 60000) from pg_stat_activity where usename = $1', [
          b.home.login,
        ]),
      );
      await setTimeout(20);
    };
    await rotate('rotated', true);
    expect(await count(warm, b)).toBe(0);
    await rotate('nobody was told', false);
    const fresh = createAccess({ settings: world.settings, secrets: createSecrets() });
    await expect(count(fresh, b)).rejects.toMatchObject({ code: 'unavailable' });
    await fresh.pools.close();
    await rotate(before.password, true);
    expect(await count(warm, b)).toBe(0);
  });
});

describe('the catalog', () => {
  it('answers unknown, deleted and foreign tenants with the same words', async () => {
    const { a } = world.tenants.rls;
    const gone = await world.addTenant('rls', 'gone');
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query(
        "update catalog.tenants set status = 'offboarded', offboarded_at = now() where tenant_id = $1",
        [gone.id],
      ),
    );
    const bound = await world.addTenant('rls', 'bound');
    await world.asProvisioner('catalog', (catalog) =>
      catalog.query(
        "update catalog.tenants set issuer = 'https://one.example', external_id = 'org_1' where tenant_id = $1",
        [bound.id],
      ),
    );
    const access = world.access();
    const refusal = (tenant: string, auth = 'oidc:https://two.example') =>
      access.resolve({ tenant, principal: 'p', scopes: '', auth }).then(
        () => 'served',
        (error) => `${error.code}: ${error.message}`,
      );
    const words = 'tenant_not_served: The tenant of this token is not served here.';
    for (const claim of [
      '6f1b4a52-0000-4000-8000-000000000000',
      gone.id,
      'acme',
      a.slug,
      '',
      "x' or true --",
      bound.id,
      'org_1',
    ])
      expect(await refusal(claim)).toBe(words);
    expect(await refusal(bound.id, 'oidc:https://one.example')).toBe('served');
    expect(await refusal('org_1', 'oidc:https://one.example')).toBe('served');
    expect(await refusal(a.id, 'key:6f1b4a52-0000-4000-8000-000000000000')).toBe(words);
    expect(await refusal(a.id, 'nonsense')).toBe(words);
  });

  it('serves an API key until it is revoked, and never for another tenant', async () => {
    const { a, b } = world.tenants.schema;
    const keyId = '0b2f0c0e-1111-4111-8111-111111111111';
    const expires = new Date(Date.now() + 60_000);
    await world.asProvisioner('catalog', (catalog) =>
      recordApiKey(catalog, { keyId, tenant: a.id, name: 'test', scopes: [], expires }),
    );
    let now = Date.now();
    const access = createAccess({ settings: world.settings, secrets: createSecrets(), clock: () => now });
    const principal = (tenant: string) => ({ tenant, principal: keyId, scopes: '', auth: `key:${keyId}` });
    expect(await access.resolve(principal(a.id))).toMatchObject({ tenant: a.id });
    await expect(access.resolve(principal(b.id))).rejects.toMatchObject({ code: 'tenant_not_served' });
    await world.asProvisioner('catalog', (catalog) => revokeApiKey(catalog, keyId));
    now += 30_000;
    await expect(access.resolve(principal(a.id))).rejects.toMatchObject({ code: 'key_revoked' });
    await access.pools.close();
  });

  it('may be away: known tenants are served on, unknown ones told to come back', async () => {
    const { a, b } = world.tenants.database;
    let now = Date.now();
    const access = createAccess({ settings: world.settings, secrets: createSecrets(), clock: () => now });
    await count(access, a);
    // As the superuser: the server's own workers may be at it, and nobody else may end those.
    await withConnection(world.superuser('postgres'), async (connection) => {
      await connection.query('alter database tenantry_catalog allow_connections false');
      await connection.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'tenantry_catalog'",
      );
    });
    await world.asProvisioner(a, (connection) =>
      connection.query('alter role tenancy_catalog_reader nologin'),
    );
    now += 3_600_000;
    try {
      // A context is signed by the real clock's time: only the route's age was moved.
      const route = await access.resolve(a.principal);
      expect(route).toEqual(expect.objectContaining({ tenant: a.id }));
      await expect(access.resolve(b.principal)).rejects.toMatchObject({
        code: 'unavailable',
        retryAfterSeconds: expect.any(Number),
      });
    } finally {
      await world.asProvisioner(a, async (connection) => {
        await connection.query('alter database tenantry_catalog allow_connections true');
        await connection.query('alter role tenancy_catalog_reader login');
      });
      await access.pools.close();
    }
  });

  it('can be read by nobody but through resolve', async () => {
    const { strategy } = world.tenants.rls.a;
    expect(strategy).toBe('rls');
    for (const kind of strategies)
      await world.asLogin(world.tenants[kind].a, async (connection) => {
        const { rows } = await connection.query(
          "select has_database_privilege('tenantry_catalog', 'connect') as may",
        );
        expect(rows).toEqual([{ may: false }]);
      });
    const endpoint = catalogEndpoint(world.plane);
    const password = await keepLoginSecret(
      world.plane,
      { name: 'tenancy-login/catalog/tenancy_catalog_reader', password: true },
      {
        host: endpoint.host,
        port: endpoint.port,
        dbname: endpoint.database,
        username: 'tenancy_catalog_reader',
      },
    );
    await withConnection(
      { ...endpoint, login: 'tenancy_catalog_reader', password: async () => password! },
      async (reader) => {
        for (const table of ['tenants', 'homes', 'clusters', 'api_keys'])
          await expect(reader.query(`select * from catalog.${table}`)).rejects.toMatchObject({
            code: '42501',
          });
        expect(
          (await reader.query('select * from catalog.resolve($1, $2)', [world.tenants.rls.a.id, 'oidc:x']))
            .rowCount,
        ).toBe(1);
      },
    );
  });
});

it('continues an onboarding that was cut off after any step', async () => {
  for (const strategy of strategies) {
    const tenant = await world.addTenant(strategy, `again-${strategy}`);
    await world.database(tenant).query("insert into notes (body) values ('kept')");
    // As if the process had died before the last step, and before that one, and so on.
    for (const status of ['provisioning', 'failed'])
      for (const state of ['provisioning', 'open']) {
        await world.asProvisioner('catalog', (catalog) =>
          catalog.query(`update catalog.tenants set status = '${status}' where tenant_id = $1`, [tenant.id]),
        );
        await world.asProvisioner(tenant, (connection) =>
          asRole(connection, 'tenancy_keeper', () =>
            connection.query(`update tenancy.homes set state = '${state}' where home_id = $1`, [
              tenant.home.homeId,
            ]),
          ),
        );
        const again = await onboard(
          world.plane,
          { slug: tenant.slug, tier: 'pro', strategy },
          tenant.place,
          world.release,
        );
        expect(again).toBe(tenant.id);
        expect(await count(world.access(), tenant)).toBe(1);
      }
    // Nor does a repetition open what was suspended.
    await suspend(world.plane, tenant.id);
    await onboard(world.plane, { slug: tenant.slug, tier: 'pro', strategy }, tenant.place, world.release);
    await expect(world.database(tenant).query('select 1')).rejects.toMatchObject({
      code: 'tenant_suspended',
    });
    expect(routeOf(tenant).tenant).toBe(tenant.id);
  }
});

it('refuses slugs that are too short, reserved, taken or not of its alphabet', async () => {
  await world.asProvisioner('catalog', async (catalog) => {
    for (const slug of [
      'ab',
      'admin',
      'mcp',
      'Acme',
      'a--b',
      '-ab',
      'ab-',
      'a_b',
      'x'.repeat(41),
      'ümlaut',
      "a'b",
      '1abc',
    ])
      await expect(recordTenant(catalog, { slug, tier: 'pro', strategy: 'rls' })).rejects.toMatchObject({
        code: 'slug_invalid',
      });
    await expect(
      recordTenant(catalog, { slug: 'rls-a', tier: 'pro', strategy: 'schema' }),
    ).rejects.toMatchObject({ code: 'slug_taken' });
  });
});
