import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../functions/lib/isolation/homes.ts';
import type { TestTenant, World } from '../support/world.ts';
import { entered, startAttackedWorld } from './support.ts';

/** What PostgreSQL keeps over the rows of all tenants in shared tables, and what of it tells a neighbour: residuals of SECURITY.md. */
let world: World;
beforeAll(async () => {
  world = await startAttackedWorld();
});
afterAll(() => world?.close());

describe('EXPLAIN on shared tables', () => {
  const estimate = async (tenant: TestTenant, condition: string) =>
    world.asLogin(tenant, async (connection) => {
      await entered(world, connection, tenant);
      const { rows } = await connection.query<{ 'QUERY PLAN': { Plan: { 'Plan Rows': number } }[] }>(
        `explain (format json) select * from ${tenant.home.schema}.canaries where ${condition}`,
      );
      return rows[0]!['QUERY PLAN'][0]!.Plan['Plan Rows'];
    });

  it('tells a neighbour how common a value is, from statistics over all tenants', async () => {
    const { a, b } = world.tenants.rls;
    await world.database(b).query(
      `insert into canaries (words, name, amount, price, ratio, facts, tags, bytes, at, day, address)
       select 'the only word', 'n' || g, g, g, g, '{}', '{}', '', now(), current_date, '10.0.0.1' from generate_series(1, 5000) g`,
    );
    await world.asProvisioner(a, (connection) =>
      asRole(connection, 'tenancy_owner', () => connection.query('analyze shared.canaries')),
    );
    const present = await estimate(a, "words = 'the only word' or amount = 5");
    const absent = await estimate(a, "words = 'no such word' or amount = 5");
    expect(present).toBeGreaterThan(absent);
  });

  it('tells a neighbour with a schema of its own nothing', async () => {
    const { schema } = world.tenants;
    const foreign = world.asLogin(schema.a, async (connection) => {
      await entered(world, connection, schema.a);
      await connection.query(`explain select * from ${schema.b.home.schema}.canaries`);
    });
    await expect(foreign).rejects.toMatchObject({ code: '42501' });
  });

  it('is no statement of a tool', async () => {
    const explain = world.database(world.tenants.rls.a).query('explain select * from canaries');
    await expect(explain).rejects.toMatchObject({ code: 'statement_refused' });
  });
});

describe('statistics and indexes that are over all tenants', () => {
  const ask = async <T>(sql: string) =>
    (await world.database(world.tenants.rls.a, { mode: 'r' }).query<{ told: T }>(sql)).rows[0]!.told;

  beforeAll(async () => {
    const { a, b } = world.tenants.rls;
    await world.database(b).query(
      `insert into canaries (words, name, amount, price, ratio, facts, tags, bytes, at, day, address)
       select 'a common word', 'c' || g, g, g, 7 * g, '{}', '{}', '', now(), current_date, '10.0.0.1' from generate_series(1, 5000) g`,
    );
    await world.asProvisioner(a, (connection) =>
      asRole(connection, 'tenancy_owner', () =>
        connection.query(
          'create index canaries_ratio on shared.canaries (ratio, tenant_id); analyze shared.canaries',
        ),
      ),
    );
  });

  it('tell by the plan of a tool’s own SELECT how common a value is', async () => {
    // The function runs unless it is the side that PostgreSQL expects to be the longer one.
    const planned = (words: string) =>
      ask<string | null>(`
        select current_setting('tests.told', true) as told from (
          select set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
            query_to_xml($$select count(*) from (select set_config('tests.told', 'common', true), g from generate_series(1, 1000) g offset 0) s
              join canaries c on c.amount = s.g where c.words = '${words}'$$, true, false, '') offset 0) s`);
    expect(await planned('a common word')).toBe('common');
    expect(await planned('no such word')).not.toBe('common');
  });

  it('tell by the pages of an index that tenant_id does not lead which value stands at the head of one', async () => {
    const pages = (to: number) =>
      ask<number>(`
        select (pg_stat_get_xact_blocks_fetched('canaries_ratio'::regclass) - before)::int as told from (
          select pg_stat_get_xact_blocks_fetched('canaries_ratio'::regclass) as before, set_config(name, 'off', true),
            length(query_to_xml('select from canaries where ratio > 1000 and ratio <= ${to} order by ratio', true, false, '')::text)
          from unnest('{enable_seqscan,enable_bitmapscan,enable_sort}'::text[]) name offset 0) s order by 1 desc limit 1`);
    let [low, high] = [1001, 5000];
    const least = await pages(low);
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if ((await pages(middle)) > least) high = middle;
      else low = middle;
    }
    const { rows } = await world
      .database(world.tenants.rls.b)
      .query('select from canaries where ratio = $1', [high]);
    expect(rows).toHaveLength(1);
  });
});

describe('an index of a shared table without tenant_id', () => {
  it('tells whether anybody has a value, and with tenant_id at its end it does not', async () => {
    const { a, b } = world.tenants.rls;
    const { rows } = await world
      .database(b, { mode: 'r' })
      .query<{ name: string }>('select name from canaries limit 1');
    const asked = (name: string) =>
      world.asLogin(a, async (connection) => {
        await entered(world, connection, a);
        await connection.query("set local enable_seqscan = off; select set_config('tenancy.pass', '', true)");
        return connection.query('select from shared.canaries where name = $1', [name]).then(
          () => 'not asked',
          ({ code }) => code,
        );
      });
    const index = async (columns: string) => {
      await world.asProvisioner(a, (connection) =>
        asRole(connection, 'tenancy_owner', () =>
          connection.query(
            `drop index if exists shared.canaries_name; create index canaries_name on shared.canaries (${columns})`,
          ),
        ),
      );
      return [await asked(rows[0]!.name), await asked('nobody')];
    };
    expect(await index('name')).toEqual(['TN001', 'not asked']);
    expect(await index('name, tenant_id')).toEqual(['TN001', 'TN001']);
  });
});
