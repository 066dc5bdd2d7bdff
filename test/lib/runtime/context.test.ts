import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import { type ContextClaims, signContext } from '../../../functions/lib/isolation/context.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { installKeys } from '../../../functions/lib/migrations/install.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const writing = 'begin isolation level read committed read write';
const reading = 'begin isolation level read committed read only';

/** SQLSTATE of an attempt to enter, or `admitted`. */
async function enter(connection: ControlConnection, context: string, begin = writing): Promise<string> {
  await connection.query(begin);
  try {
    await connection.query('select tenancy.enter($1)', [context]);
    return 'admitted';
  } catch (error) {
    return (error as { code: string }).code;
  } finally {
    await connection.query('rollback');
  }
}

const tryEnter = (tenant: TestTenant, context: string, begin?: string) =>
  world.asLogin(tenant, (connection) => enter(connection, context, begin));

const setHome = (tenant: TestTenant, assignment: string) =>
  world.asProvisioner(tenant, (connection) =>
    asRole(connection, 'tenancy_keeper', () =>
      connection.query(`update tenancy.homes set ${assignment} where home_id = $1`, [tenant.home.homeId]),
    ),
  );

describe.each(strategies)('%s', (strategy) => {
  const a = () => world.tenants[strategy].a;

  it('admits the context signed for this home', async () => {
    expect(await tryEnter(a(), world.context(a()))).toBe('admitted');
    expect(await tryEnter(a(), world.context(a(), { mode: 'r' }), reading)).toBe('admitted');
  });

  it('refuses whatever was altered after it was signed', async () => {
    const genuine = world.context(a()).split('.');
    const forgeries = genuine.map((part, index) =>
      genuine.with(index, index === 9 ? '0'.repeat(64) : `${part}0`),
    );
    forgeries.push(genuine.with(3, world.tenants[strategy].b.id), genuine.with(9, genuine[9]!.toUpperCase()));
    const outcomes = [];
    for (const forgery of forgeries) outcomes.push(await tryEnter(a(), forgery.join('.')));
    expect(outcomes).toEqual(forgeries.map(() => 'TN002'));
    for (const nonsense of [
      'x',
      '..',
      '.........',
      'v1.k1',
      "'; drop table notes; --",
      `${genuine.join('.')}.x`,
    ])
      expect(await tryEnter(a(), nonsense)).toBe('TN002');
    expect(await tryEnter(a(), '')).toBe('TN001');
  });

  it('refuses a context made for another database, of another key, or too old', async () => {
    expect(await tryEnter(a(), world.context(a(), { databaseId: randomUUID() }))).toBe('TN002');
    expect(await tryEnter(a(), world.context(a(), {}, Date.now() - 61_000))).toBe('TN003');
    expect(await tryEnter(a(), world.context(a(), {}, Date.now() - 55_000))).toBe('admitted');
  });

  it('refuses another epoch, and a home that has moved', async () => {
    expect(await tryEnter(a(), world.context(a(), { epoch: 2 }))).toBe('TN004');
    await setHome(a(), "state = 'moved'");
    expect(await tryEnter(a(), world.context(a()))).toBe('TN004');
    await setHome(a(), "state = 'open'");
  });

  it('admits by state, mode and purpose', async () => {
    const outcome = async (claims: Partial<ContextClaims>) =>
      tryEnter(a(), world.context(a(), claims), claims.mode === 'r' ? reading : writing);
    const seen: Record<string, string[]> = {};
    for (const state of ['provisioning', 'open', 'read_only', 'fenced', 'suspended', 'moved']) {
      await setHome(a(), `state = '${state}'`);
      seen[state] = [
        await outcome({ mode: 'r' }),
        await outcome({ mode: 'w' }),
        await outcome({ purpose: 'verify' }),
      ];
    }
    await setHome(a(), "state = 'open'");
    expect(seen).toEqual({
      provisioning: ['TN005', 'TN005', 'admitted'],
      open: ['admitted', 'admitted', 'admitted'],
      read_only: ['admitted', 'TN006', 'TN006'],
      // Readers go on until the switch.
      fenced: ['admitted', 'TN005', 'TN005'],
      suspended: ['TN007', 'TN007', 'TN007'],
      moved: ['TN004', 'TN004', 'TN004'],
    });
  });

  it('refuses purposes that are not a call', async () => {
    expect(await tryEnter(a(), world.context(a(), { purpose: 'migrate' }))).toBe('TN002');
    expect(await tryEnter(a(), world.context(a(), { purpose: 'move' }))).toBe('TN002');
  });

  it('makes the transaction of a reading context read-only, for good', async () => {
    await world.asLogin(a(), async (connection) => {
      for (const attempt of [
        "insert into notes (body) values ('x')",
        'set transaction read write',
        'set local transaction_read_only = off',
      ]) {
        await connection.query(writing);
        await connection.query('select tenancy.enter($1)', [world.context(a(), { mode: 'r' })]);
        await expect(connection.query(attempt), attempt).rejects.toMatchObject({
          code: attempt.startsWith('insert') ? '25006' : '25001',
        });
        await connection.query('rollback');
      }
    });
  });

  it('leaves nothing signed where the statements of a tool could read it', async () => {
    await world.asLogin(a(), async (connection) => {
      await connection.query(writing);
      await connection.query('select tenancy.enter($1)', [world.context(a())]);
      const { rows } = await connection.query("select current_setting('tenancy.context', true) as context");
      expect(rows[0]!.context ?? '').toBe('');
      await connection.query('rollback');
    });
  });

  it('refuses a transaction whose snapshots would not see the fence', async () => {
    for (const level of ['repeatable read', 'serializable'])
      expect(await tryEnter(a(), world.context(a()), `begin isolation level ${level} read write`)).toBe(
        'TN009',
      );
  });

  it('is busy while a mover holds the fence, and does not wait for long', async () => {
    await world.asProvisioner(a(), async (mover) => {
      const { rows } = await asRole(mover, 'tenancy_keeper', () =>
        mover.query('select lock_key from tenancy.homes where home_id = $1', [a().home.homeId]),
      );
      await mover.query('begin');
      await mover.query('select pg_advisory_xact_lock($1)', [rows[0]!.lock_key]);
      expect(await tryEnter(a(), world.context(a()))).toBe('TN008');
      expect(await tryEnter(a(), world.context(a(), { mode: 'r' }), reading)).toBe('admitted');
      await mover.query('commit');
    });
    expect(await tryEnter(a(), world.context(a()))).toBe('admitted');
  });

  it('finds nothing without a context, and nothing after its transaction', async () => {
    await world.asLogin(a(), async (connection) => {
      const plain = () => connection.query('select * from notes').catch((error) => error.code);
      const qualified = () =>
        connection.query(`select * from ${a().home.schema}.notes`).then(
          () => 'rows',
          (error) => error.code,
        );
      // The schema's owner's grants are the wall of its own tables; on shared ones it is the signature.
      const direct = strategy === 'rls' ? 'TN001' : 'rows';
      expect([await plain(), await qualified()]).toEqual(['42P01', direct]);
      await connection.query(writing);
      await connection.query('select tenancy.enter($1)', [world.context(a())]);
      await connection.query('select * from notes');
      await connection.query('commit');
      expect([await plain(), await qualified()]).toEqual(['42P01', direct]);
    });
  });

  it('ends what an earlier call has left in the session', async () => {
    await world.asLogin(a(), async (connection) => {
      const poison = {
        row_security: 'off',
        search_path: 'pg_temp',
        client_encoding: 'LATIN1',
        extra_float_digits: '-15',
        gin_fuzzy_search_limit: '1',
        default_transaction_isolation: 'serializable',
        default_transaction_read_only: 'on',
        statement_timeout: '2000',
        TimeZone: 'Asia/Tokyo',
        DateStyle: 'German',
        IntervalStyle: 'iso_8601',
        bytea_output: 'escape',
        transform_null_equals: 'on',
        'tenancy.tenant': randomUUID(),
        'tenancy.context': 'v1.forged',
        'tenancy.capture': '1',
      };
      const read = async () => {
        const { rows } = await connection.query(
          `select json_object_agg(name, nullif(current_setting(name, true), '')) as now from unnest($1::text[]) name`,
          [Object.keys(poison)],
        );
        return rows[0]!.now;
      };
      const clean = async () => {
        await connection.query(writing);
        await connection.query('select tenancy.enter($1)', [world.context(a(), {}, 2_000_000_000_000)]);
        const settings = await read();
        await connection.query('commit');
        return settings;
      };
      const before = await clean();
      for (const [name, value] of Object.entries(poison).sort((x) => (x[0] === 'statement_timeout' ? 1 : -1)))
        await connection.query('select set_config($1, $2, false)', [name, value]);
      await connection.query('select pg_advisory_lock(42)').catch(() => {});
      const after = await clean();
      expect(after).toEqual(before);
      const { rows } = await connection.query(
        "select count(*)::int as held from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
      );
      expect(rows).toEqual([{ held: 0 }]);
    });
  });

  it("ends a statement by the context's time, which a statement of the session's cannot lift", async () => {
    await world.asLogin(a(), async (connection) => {
      await connection.query("select set_config('statement_timeout', '0', false)");
      await connection.query(writing);
      await connection.query('select tenancy.enter($1)', [world.context(a(), { statementMs: 50 })]);
      await expect(connection.query('select pg_sleep(20)')).rejects.toMatchObject({ code: '57014' });
      await connection.query('rollback');
    });
  });
});

it("refuses a tenant's context on a login that is not its home's", async () => {
  const { rls, schema, database } = world.tenants;
  // Same database, the right signature, the wrong login: the shared one, a neighbour's.
  expect(await tryEnter(rls.a, world.context(schema.a))).toBe('TN004');
  expect(await tryEnter(schema.a, world.context(rls.a))).toBe('TN004');
  expect(await tryEnter(schema.a, world.context(schema.b))).toBe('TN004');
  // Another database: not even the signature is good.
  expect(await tryEnter(database.a, world.context(database.b))).toBe('TN002');
  expect(await tryEnter(database.a, world.context(rls.a))).toBe('TN002');
});

it('accepts two keys during a rotation, and the old one no longer after it', async () => {
  const tenant = world.tenants.rls.b;
  const [, old] = [...world.plane.keys.keys][0]!;
  const fresh = Buffer.alloc(32, 7);
  const claims: ContextClaims = {
    databaseId: tenant.home.databaseId,
    tenant: tenant.id,
    epoch: 1,
    mode: 'w',
    purpose: 'call',
    statementMs: 1_000,
  };
  const install = (keys: Map<string, Buffer>) =>
    world.asProvisioner(tenant, (connection) => installKeys(connection, { current: 'k2', keys }));
  const both = new Map([
    ['k1', old],
    ['k2', fresh],
  ]);
  const newer = signContext({ current: 'k2', keys: both }, claims, Date.now());
  expect(await tryEnter(tenant, newer)).toBe('TN002');
  await install(both);
  expect(await tryEnter(tenant, newer)).toBe('admitted');
  expect(await tryEnter(tenant, world.context(tenant))).toBe('admitted');
  await install(new Map([['k2', fresh]]));
  expect(await tryEnter(tenant, newer)).toBe('admitted');
  expect(await tryEnter(tenant, world.context(tenant))).toBe('TN002');
  await install(new Map([['k1', old]]));
});

it('checks the pass twice for each shared table of a statement, although two policies ask for it', async () => {
  const tenant = world.tenants.rls.a;
  await world.asLogin(tenant, async (connection) => {
    await connection.query(writing);
    await connection.query('call tenancy.admit($1)', [world.context(tenant)]);
    const { rows } = await connection.query<{ 'QUERY PLAN': string }>(
      'explain (costs off, verbose) select * from notes where amount = 1',
    );
    const checks = rows.filter((row) => row['QUERY PLAN'].includes('current_tenant()'));
    // For the operator, which indexes serve, and for what goes before all other conditions.
    expect(checks).toHaveLength(2);
  });
});

it('shows no key, home or change to any login', async () => {
  for (const strategy of strategies)
    await world.asLogin(world.tenants[strategy].a, async (connection) => {
      for (const table of ['keys', 'homes', 'changes', '_migrations'])
        await expect(connection.query(`select * from tenancy.${table}`)).rejects.toMatchObject({
          code: '42501',
        });
      await expect(connection.query("select tenancy.refuse('x')")).rejects.toMatchObject({
        code: '42501',
      });
      await expect(connection.query('select tenancy.maintained_tenants()')).rejects.toMatchObject({
        code: '42501',
      });
    });
});
