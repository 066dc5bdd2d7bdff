import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { connectClient } from '../../functions/lib/database/connection.ts';
import { part } from '../../functions/lib/database/round-trip.ts';
import type { Mode } from '../../functions/lib/database/types.ts';
import type { Access } from '../../functions/lib/isolation/access.ts';
import { preparePlace } from '../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../functions/lib/migrations/install.ts';
import { limits, modes, routeOf, strategies, type TestTenant, type World } from '../support/world.ts';
import { partyOf, startAttackedWorld } from './support.ts';

/** What one call leaves behind in a session that the next one gets. */
let world: World;
beforeAll(async () => {
  world = await startAttackedWorld();
});
afterAll(() => world?.close());

/** One connection, and the next call gets it. */
let access: Access;
beforeEach(() => {
  access = world.access({ maxConnections: 1 });
});
afterEach(() => access.pools.close());

/** Each is sent as it stands, as an injection on the bare connection could; commit and all. */
const poisons = [
  "set tenancy.tenant = '00000000-0000-4000-8000-000000000000'",
  "set tenancy.context = 'v1.forged'",
  'set search_path = pg_temp, shared',
  'set row_security = off',
  "set default_transaction_isolation = 'serializable'",
  'set default_transaction_read_only = on',
  'set default_transaction_deferrable = on',
  'set statement_timeout = 1',
  'set transaction_timeout = 1',
  'set idle_in_transaction_session_timeout = 1',
  'set idle_session_timeout = 1',
  'set lock_timeout = 1',
  "set client_encoding = 'LATIN1'",
  'set gin_fuzzy_search_limit = 1',
  'set standard_conforming_strings = off',
  "set bytea_output = 'escape'",
  'set extra_float_digits = -15',
  "set datestyle = 'German'",
  "set timezone = 'Asia/Tokyo'",
  "set intervalstyle = 'iso_8601'",
  'set exit_on_error = on',
  'set client_min_messages = debug5',
  "set plpgsql.extra_errors = 'all'",
  'set debug_parallel_query = on',
  "set application_name = 'somebody else'",
  'prepare tenancy as select 1',
  'declare held cursor with hold for select 1',
  'listen gossip',
  'select pg_advisory_lock(42), pg_advisory_lock_shared(43)',
  "select pg_notify('gossip', repeat('x', 7000))",
  'discard plans',
  'set session authorization default',
  'set role none',
];

const secrets = `select * from canaries order by canary_id`;
const insert = 'insert into notes (body) values (gen_random_uuid()::text) returning tenant_id';

describe.each(modes)('in %s round trip(s)', (roundTrips) => {
  describe.each(strategies)('on a connection of %s', (strategy) => {
    // Only logins that are shared have neighbours on their connections; elsewhere the next call is the tenant's own.
    const next = () => (strategy === 'rls' ? world.tenants.rls.b : world.tenants[strategy].a);
    const call = (tenant: TestTenant, mode: Mode) =>
      access.database(tenant.principal, routeOf(tenant), limits(mode, { roundTrips }));

    it.each(poisons)('is no harm to the next call: %s', async (poison) => {
      const before = await call(next(), 'r').query(secrets);
      const { endpoint } = await partyOf(world, world.tenants[strategy].a);
      const lease = await access.pools.acquire(endpoint, AbortSignal.timeout(5_000));
      const bounds = { maxRows: 10, maxBytes: 100_000, cutOff: true };
      await lease.connection
        .run([part('statement', poison)], bounds, AbortSignal.timeout(5_000))
        .catch(() => {});
      lease.release();
      for (let time = 0; time < 2; time += 1) {
        expect((await call(next(), 'r').query(secrets)).rows).toEqual(before.rows);
        expect((await call(next(), 'w').query(insert)).rows).toEqual([{ tenant_id: next().id }]);
        await expect(call(next(), 'w').query('select 1 / 0')).rejects.toMatchObject({
          sqlstate: '22012',
        });
      }
      expect(access.pools.gauges().connections).toBeLessThanOrEqual(1);
    });

    it('is no harm when the poison came through the product itself', async () => {
      const before = await call(next(), 'r').query(secrets);
      const settings = poisons.flatMap((text) => {
        const [, name, value] = /^set ([\w.]+) = '?(.*?)'?$/.exec(text) ?? [];
        return name ? [[name, value!]] : [];
      });
      expect(settings.length).toBeGreaterThan(20);
      for (const [name, value] of settings) {
        await call(world.tenants[strategy].a, 'w')
          .query('select set_config($1, $2, false)', [name, value])
          .catch(() => {});
        expect((await call(next(), 'r').query(secrets)).rows, name).toEqual(before.rows);
      }
    });
  });
});

describe('defaults that the shared login has given itself', () => {
  const answers = async () => {
    const fresh = world.access({ maxConnections: 1 });
    const { b } = world.tenants.rls;
    try {
      return (await fresh.database(b.principal, routeOf(b), limits('r')).query(secrets)).rows;
    } finally {
      await fresh.pools.close();
    }
  };

  it.each([
    ['row_security', 'off'],
    ['gin_fuzzy_search_limit', '1'],
    ['standard_conforming_strings', 'off'],
    ['extra_float_digits', '-15'],
    ['bytea_output', 'escape'],
    ['DateStyle', 'German'],
    ['search_path', 'pg_temp'],
    ['default_transaction_isolation', 'serializable'],
    ['client_encoding', 'LATIN1'],
  ])('do not change a neighbour’s answer: %s', async (name, value) => {
    const before = await answers();
    await world.asLogin(world.tenants.rls.a, async (connection) => {
      await connection.query(`alter role current_user set ${name} = '${value}'`);
      await connection.query(
        `alter role current_user in database ${tenantsDatabase} set ${name} = '${value}'`,
      );
    });
    expect(await answers()).toEqual(before);
  });

  it('neither lose what a neighbour commits nor log its values, nor read or show them otherwise', async () => {
    const { a, b } = world.tenants.rls;
    const weaker = [
      ['synchronous_commit', 'off', 'on'],
      ['log_parameter_max_length_on_error', '-1', '0'],
      ['debug_print_plan', 'on', 'off'],
      ['timezone_abbreviations', 'Australia', 'Default'],
      ['xmlbinary', 'hex', 'base64'],
      ['quote_all_identifiers', 'on', 'off'],
    ] as const;
    await world.asLogin(a, async (connection) => {
      for (const [name, value] of weaker)
        await connection.query(`alter role current_user set ${name} = '${value}'`);
    });
    const fresh = world.access({ maxConnections: 1 });
    for (const [name, , kept] of weaker) {
      const { rows } = await fresh
        .database(b.principal, routeOf(b), limits('w'))
        .query('select current_setting($1) as value', [name]);
      expect(rows, name).toEqual([{ value: kept }]);
    }
    await fresh.pools.close();
  });

  it('are gone with the next deployment', async () => {
    const { host, port } = world.cluster.server;
    const cluster = {
      kind: 'shared',
      region: 'eu-west-1',
      host,
      port,
      adminHost: host,
      adminPort: port,
    } as const;
    const { clusterId } = world.plane.catalog;
    await preparePlace(world.plane, { ...cluster, clusterId }, tenantsDatabase, world.cluster.master);
    const { endpoint } = await partyOf(world, world.tenants.rls.a);
    const client = await connectClient(endpoint, false);
    const { rows } = await client.query(
      `select current_setting('row_security') as rows, current_setting('gin_fuzzy_search_limit') as search, current_setting('search_path') as path`,
    );
    await client.end();
    expect(rows).toEqual([{ rows: 'on', search: '0', path: '""' }]);
  });
});
