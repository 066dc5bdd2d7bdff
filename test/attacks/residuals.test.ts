import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ControlConnection } from '../../functions/lib/database/connect.ts';
import { asRole } from '../../functions/lib/isolation/homes.ts';
import { preparePlace } from '../../functions/lib/lifecycle/place.ts';
import { tenantsDatabase } from '../../functions/lib/migrations/install.ts';
import { corpus } from '../../infra/local/prove/corpus.ts';
import { closeTargets, prepareTargets, tryAttack } from '../../infra/local/prove/prove.ts';
import { strategies, type TestTenant, type World } from '../support/world.ts';
import { partyOf, startAttackedWorld } from './support.ts';

/**
 * What PostgreSQL grants to every role, so that no rights of a master's can take it away. Each test shows that it is still
 * so: when one fails, something has become better, and SECURITY.md and the corpus are to be corrected.
 */
let world: World;

beforeAll(async () => {
  world = await startAttackedWorld();
});
afterAll(() => world?.close());

const residuals = corpus.flatMap((theme) =>
  theme.attacks.flatMap((attack) => (attack.residual ? [{ theme, attack, name: attack.name }] : [])),
);

/** What an operator does: the installation again. */
async function deployAgain(): Promise<void> {
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
}

describe.each(residuals)('$name', ({ theme, attack }) => {
  const attacked = async (attacker: TestTenant, victim: TestTenant, way: 'simple' | 'product') => {
    const targets = await prepareTargets(world.plane.keys, [await partyOf(world, victim)]);
    try {
      return await tryAttack(
        world.plane.keys,
        await partyOf(world, attacker),
        targets[0]!,
        'canaries',
        theme,
        attack,
        way,
      );
    } finally {
      await closeTargets(targets);
    }
  };

  it('reaches a neighbour on the same login, and the next deployment ends it', async () => {
    const { a, b } = world.tenants.rls;
    expect(await attacked(a, b, 'simple')).toMatchObject({ outcome: 'residual' });
    await deployAgain();
    const { rows } = await world.database(b).query('select count(*)::int as own from canaries');
    expect(rows).toEqual([{ own: 3 }]);
  });

  it('reaches nobody with a login of his own', async () => {
    for (const strategy of strategies)
      for (const other of strategies.filter((other) => other !== 'rls' || strategy !== 'rls')) {
        // A new attacker each time: it locks itself out.
        const attacker = await world.addTenant(strategy);
        const finding = await attacked(attacker, world.tenants[other].b, 'simple');
        expect([strategy, other, finding?.outcome ?? 'held']).toEqual([strategy, other, 'held']);
        await deployAgain();
      }
  });

  if (attack.name !== 'ends the sessions of its own login')
    it('does not get past the statements that the product sends', async () => {
      const { a, b } = world.tenants.rls;
      expect((await attacked(a, b, 'product'))?.outcome ?? 'held').toBe('held');
    });
});

const entered = async (connection: ControlConnection, tenant: TestTenant) => {
  await connection.query('begin isolation level read committed');
  await connection.query('select tenancy.enter($1)', [world.context(tenant)]);
};

describe('EXPLAIN on shared tables', () => {
  const estimate = async (tenant: TestTenant, condition: string) =>
    world.asLogin(tenant, async (connection) => {
      await entered(connection, tenant);
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
      await entered(connection, schema.a);
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

describe("the fence's advisory lock", () => {
  /** What the attacker sees while the victim writes, and then holds for as long as it likes. */
  async function holdFence(attacker: TestTenant, victim: TestTenant): Promise<string> {
    return world.asLogin(victim, (writer) =>
      world.asLogin(attacker, async (thief) => {
        await entered(writer, victim);
        const { rows } = await thief.query<{ key: string }>(
          `select ((classid::bigint << 32) | objid::bigint)::text as key from pg_locks
            where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
        );
        await writer.query('commit');
        for (const { key } of rows) await thief.query('select pg_advisory_lock($1)', [key]);
        return entered(writer, victim).then(
          () => 'admitted',
          ({ code }) => code,
        );
      }),
    );
  }

  it.each([
    ['rls', 'rls'],
    ['rls', 'schema'],
    ['schema', 'rls'],
    ['schema', 'schema'],
  ] as const)('of %s can keep writers of %s out for as long as it is held', async (attacker, victim) => {
    const outcome = await holdFence(world.tenants[attacker].a, world.tenants[victim].b);
    // Readers take no lock; writers are told to try again, and nothing of theirs is lost.
    expect(outcome).toBe('TN008');
    const { rows } = await world
      .database(world.tenants[victim].b, { mode: 'r' })
      .query('select count(*)::int > 0 as there from canaries');
    expect(rows).toEqual([{ there: true }]);
  });

  it('of a database of its own is out of reach', async () => {
    for (const strategy of strategies)
      expect(await holdFence(world.tenants[strategy].a, world.tenants.database.b)).toBe('admitted');
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
        await entered(connection, a);
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

describe('locks that are taken before rights are asked for', () => {
  it('stop the calls of a database, behind a lock of the attacker’s other session', async () => {
    const { a, b } = world.tenants.schema;
    await world.asLogin(a, (holder) =>
      world.asLogin(a, async (blocker) => {
        await entered(holder, a);
        await blocker.query('set lock_timeout = 0');
        const refused = blocker
          .query('create rule mine as on insert to tenancy.homes do nothing')
          .catch(({ code }) => code);
        for (let waiting = false; !waiting; ) {
          const { rows } = await holder.query<{ waiting: boolean }>(
            "select exists (select from pg_locks where relation = 'tenancy.homes'::regclass and mode = 'AccessExclusiveLock') as waiting",
          );
          waiting = rows[0]!.waiting;
        }
        const call = world.asLogin(b, async (connection) => {
          await connection.query('set lock_timeout = 100');
          await connection.query('begin isolation level read committed');
          // What `enter` does, but for its RESET ALL: it would wait as long as the login's lock_timeout.
          return connection
            .query('select * from tenancy.verify($1)', [world.context(b)])
            .catch(({ code }) => code);
        });
        expect(await call).toBe('55P03');
        await holder.query('commit');
        expect(await refused).toBe('42501');
      }),
    );
  });

  it('keep migrations from a table of another home, by its number', async () => {
    const { a, b } = world.tenants.schema;
    await world.asLogin(a, async (connection) => {
      await entered(connection, a);
      await connection.query('savepoint here');
      const table = `(select oid from pg_class where relname = 'notes' and relnamespace = '${b.home.schema}'::regnamespace)`;
      await expect(connection.query(`select nextval(${table}::regclass)`)).rejects.toMatchObject({
        code: '42809',
      });
      await connection.query('rollback to here');
      const { rows } = await connection.query(
        `select mode from pg_locks where pid = pg_backend_pid() and relation = ${table}`,
      );
      expect(rows).toEqual([{ mode: 'RowExclusiveLock' }]);
    });
    // It keeps nobody from rows.
    await world.database(b).query("insert into notes (body) values ('another')");
  });
});

it('reads a PL/pgSQL function’s constants once in a session, by the settings of whoever calls first', async () => {
  const { a, b } = world.tenants.rls;
  await world.asProvisioner(a, (connection) =>
    asRole(connection, 'tenancy_owner', () =>
      connection.query(`
        create function shared.a_day() returns text language plpgsql as $$ begin return to_char('01/02/2020'::date, 'Mon'); end $$;
        grant execute on function shared.a_day() to tenancy_app`),
    ),
  );
  await world.asLogin(a, async (connection) => {
    await entered(connection, a);
    await connection.query("select set_config('datestyle', 'ISO, DMY', true), shared.a_day()");
    await connection.query('commit');
    await entered(connection, b);
    expect((await connection.query('select shared.a_day() as day')).rows).toEqual([{ day: 'Feb' }]);
  });
  expect((await world.database(b).query('select a_day() as day')).rows).toEqual([{ day: 'Jan' }]);
});
