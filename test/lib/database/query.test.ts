import { getEventListeners } from 'node:events';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ConnectionPools, createConnectionPools } from '../../../functions/lib/database/pools.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { openTenantDatabase } from '../../../functions/lib/database/tenant-database.ts';
import type { CallLimits } from '../../../functions/lib/database/types.ts';
import { QueryError, ResultTooLargeError } from '../../../functions/lib/errors.ts';
import { startProxy, type WatchingProxy } from './support/proxy.ts';
import {
  acme,
  failure,
  globex,
  limits,
  routeTo,
  type StandInTenant,
  startServer,
  type TestServer,
} from './support/server.ts';

let server: TestServer;
let proxy: WatchingProxy;
let pools: ConnectionPools;

beforeAll(async () => {
  server = await startServer();
  proxy = await startProxy(server.postgres.port);
  pools = createConnectionPools({ maxConnections: 1, maxIdleMs: 60_000, waitMs: 5_000 });
});
afterAll(async () => {
  await pools?.close();
  await proxy?.close();
  await server?.close();
});
beforeEach(async () => {
  await server.admin(async (admin) => {
    await admin.query(
      "truncate acme.items, acme.notes, globex.items, globex.notes; update tenancy.homes set epoch = 1, state = 'open'",
    );
  });
});

const open = (changes: Partial<CallLimits> = {}, tenant: StandInTenant = acme) =>
  openTenantDatabase(routeTo(server.endpoint({ port: proxy.port }), tenant), limits(changes), pools);
const idleAndClean = async () => {
  expect(pools.gauges()).toMatchObject({ idle: 1, inUse: 0, waiting: 0 });
  proxy.reset();
  await open().query('select 1');
  expect(proxy.roundTrips).toBe(1);
};

test('watches the caller only while a statement or transaction is under way', async () => {
  const caller = new AbortController();
  const listeners = () => getEventListeners(caller.signal, 'abort').length;
  const db = open({ signal: caller.signal });
  await Promise.all([db.query('select 1'), db.query('select 2')]);
  await failure(db.query('select 1 / 0'));
  expect(listeners()).toBe(0);
  await db.transaction(async () => expect(listeners()).toBeGreaterThan(0));
  expect(listeners()).toBe(0);
  caller.abort();
  expect((await failure(db.query('select 1'))).code).toBe('aborted');
  await idleAndClean();
});

describe.each(['one', 'four'] as const)('db.query, round trips: %s', (roundTrips) => {
  test('is that many round trips and Syncs', async () => {
    const db = open({ roundTrips });
    await db.query('select 1');
    proxy.reset();
    await db.query(sql`select * from items where id = ${1}`);
    const expected = {
      one: { messages: 'PBE PBE PBDE PBE S', roundTrips: 1 },
      four: { messages: 'PBE S PBE S PBDE S PBE S', roundTrips: 4 },
    }[roundTrips];
    expect(proxy.messages).toBe(expected.messages.replaceAll(' ', ''));
    expect(proxy.roundTrips).toBe(expected.roundTrips);
    expect(db.stats()).toEqual({ rows: 1, statements: 2 });
  });

  test('answers in the shape of node-postgres', async () => {
    const db = open({ roundTrips });
    const inserted = await db.query(sql`
      insert into items values (1, 'bolt', '2026-01-02T03:04:05Z', ${['a', 'b']}, ${{ size: 8 }}) returning id, at, tags, data, parent`);
    expect(inserted).toEqual({
      command: 'INSERT',
      rowCount: 1,
      oid: 0,
      rows: [
        { id: 1, at: new Date('2026-01-02T03:04:05Z'), tags: ['a', 'b'], data: { size: 8 }, parent: null },
      ],
      fields: expect.arrayContaining([expect.objectContaining({ name: 'id', dataTypeID: 23 })]),
    });
    const text = { getTypeParser: () => (value: string) => `<${value}>` };
    const listed = await db.query(
      { text: 'select id, name from items where id = $1', rowMode: 'array', types: text },
      [1],
    );
    expect(listed.rows).toEqual([['<1>', '<bolt>']]);
    expect(await db.query('update items set name = $1', ['nut'])).toMatchObject({
      command: 'UPDATE',
      rowCount: 1,
      rows: [],
    });
    expect(await db.query('select name from items where false')).toMatchObject({ rowCount: 0, rows: [] });
    expect((await db.query({ text: 'select $1::int as n', values: [3], name: 'named' })).rows).toEqual([
      { n: 3 },
    ]);
  });

  test('fails when a deferred constraint fails at COMMIT, and changes nothing', async () => {
    await server.admin((admin) =>
      admin.query('alter table acme.items alter constraint items_parent_fkey deferrable initially deferred'),
    );
    const error = await failure(open({ roundTrips }).query('insert into items (id, parent) values (1, 2)'));
    expect(error).toMatchObject({ code: 'query_failed', sqlstate: '23503', constraint: 'items_parent_fkey' });
    expect((await open().query('select from items')).rowCount).toBe(0);
    await idleAndClean();
  });

  test("tells SQLSTATE and constraint of a refused statement, and none of the server's words", async () => {
    const db = open({ roundTrips });
    await db.query("insert into items (id, name) values (7, 'secret')");
    const error = await failure(db.query("insert into items (id, name) values (7, 'other')"));
    expect(error).toBeInstanceOf(QueryError);
    expect(error).toMatchObject({ sqlstate: '23505', constraint: 'items_pkey' });
    expect(error.message).not.toMatch(/7|items|Key/);
    await idleAndClean();
  });

  test('tells the column that a refused row left empty: such a rule has no name', async () => {
    const error = await failure(
      open({ roundTrips }).query("insert into items (id, name) values (null, 'secret')"),
    );
    expect(error).toMatchObject({ sqlstate: '23502', constraint: undefined, column: 'items.id' });
    expect(error.message).not.toMatch(/secret|items/);
    await idleAndClean();
  });

  test.each([
    ['select 1/0', '22012'],
    ['select * from nowhere', '42P01'],
    ['select 1; select 2', '42601'],
    ['selec'.concat('t from from'), '42601'],
    ['select $1::int', '22P02', ['x']],
  ] as const)('leaves a clean connection behind: %s', async (text, sqlstate, values?: readonly unknown[]) => {
    expect(await failure(open({ roundTrips }).query(text, values))).toMatchObject({ sqlstate });
    await idleAndClean();
  });

  test('refuses a commit hidden in a procedure or a block', async () => {
    await server.admin((admin) =>
      admin.query(`
        create or replace function acme.commits() returns int language plpgsql as $$ begin commit; return 1; end $$;
        create or replace function acme.blocks() returns int language plpgsql as
          $$ begin execute 'do $x$ begin commit; end $x$'; return 1; end $$`),
    );
    expect(await failure(open({ roundTrips }).query('select commits()'))).toMatchObject({
      sqlstate: '2D000',
    });
    expect(await failure(open({ roundTrips }).query('select blocks()'))).toMatchObject({ sqlstate: '2D000' });
    expect(await failure(open({ roundTrips }).query('do $$ begin commit; end $$'))).toMatchObject({
      code: 'statement_refused',
    });
    await idleAndClean();
  });

  test('is READ ONLY for a reading call, whatever the session defaults to', async () => {
    const error = await failure(open({ roundTrips, mode: 'r' }).query('insert into items (id) values (1)'));
    expect(error).toMatchObject({ sqlstate: '25006' });
    await open({ roundTrips }).query(
      "select set_config('default_transaction_read_only', 'on', false), set_config('default_transaction_isolation', 'serializable', false)",
    );
    const db = open({ roundTrips });
    await db.query('insert into items (id) values (1)');
    expect((await db.query("select current_setting('transaction_isolation') as level")).rows).toEqual([
      { level: 'read committed' },
    ]);
    await db.query(
      "select set_config('default_transaction_read_only', 'off', false), set_config('default_transaction_isolation', 'read committed', false)",
    );
  });

  test('returns at most as many rows as the limit', async () => {
    const db = open({ roundTrips, mode: 'r', maxRows: 3 });
    expect((await db.query('select generate_series(1, 3) as n')).rowCount).toBe(3);
    expect(await failure(db.query('select generate_series(1, 4) as n'))).toMatchObject({
      code: 'result_too_large',
      committed: false,
    });
    await idleAndClean();
  });

  test('cuts a reading statement off at the byte limit, and goes on with a new connection', async () => {
    const db = open({ roundTrips, mode: 'r', maxBytes: 100_000 });
    expect((await db.query("select repeat('x', 1000) from generate_series(1, 90)")).rowCount).toBe(90);
    const error = await failure(db.query("select repeat('x', 1000) from generate_series(1, 900)"));
    expect(error).toBeInstanceOf(ResultTooLargeError);
    expect(error).toMatchObject({ committed: false });
    expect(pools.gauges().connections).toBe(0);
    expect(await failure(db.query("select repeat('x', 20000000)"))).toMatchObject({
      code: 'result_too_large',
    });
    expect((await db.query('select 1 as n')).rows).toEqual([{ n: 1 }]);
  });

  test('says whether a writing statement with too large a result was committed', async () => {
    const db = open({ roundTrips, maxRows: 10, maxBytes: 2_000 });
    const committed = roundTrips === 'one';
    const rows = await failure(db.query('insert into items (id) select generate_series(1, 20) returning id'));
    expect(rows).toMatchObject({ code: 'result_too_large', committed });
    const bytes = await failure(
      db.query('insert into notes (text) values ($1) returning text', ['x'.repeat(3_000)]),
    );
    expect(bytes).toMatchObject({ code: 'result_too_large', committed });
    expect((await db.query('select from items limit 1')).rowCount).toBe(committed ? 1 : 0);
    expect((await db.query('select from notes')).rowCount).toBe(committed ? 1 : 0);
    await idleAndClean();
  });

  test('leaves nothing behind for the next tenant on the same connection', async () => {
    const first = open({ roundTrips });
    const second = open({ roundTrips }, globex);
    await first.query("insert into items (id, name) values (1, 'of acme')");
    await second.query("insert into items (id, name) values (1, 'of globex')");
    const seen = "select name, current_setting('search_path') as path, pg_backend_pid() as pid from items";
    const [a, b] = [await first.query(seen), await second.query(seen)];
    expect(a.rows[0]).toMatchObject({ name: 'of acme', path: 'acme, pg_temp' });
    expect(b.rows[0]).toMatchObject({ name: 'of globex', path: 'globex, pg_temp', pid: a.rows[0]!.pid });
    await failure(first.query('select 1/0'));
    expect((await second.query(seen)).rows[0]).toMatchObject({ name: 'of globex', pid: a.rows[0]!.pid });
  });

  test.each([
    {},
    {
      getTypeParser: () => {
        throw new TypeError('no parser');
      },
    },
  ])('hands on that there is no type parser', async (types) => {
    const database = open({ roundTrips });
    expect(await failure(database.query({ text: 'select 1', types: types as never }))).toBeInstanceOf(
      TypeError,
    );
    expect((await database.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
  });

  test('hands on what a type parser throws', async () => {
    const types = {
      getTypeParser: () => () => {
        throw new RangeError('too wide');
      },
    };
    expect(await failure(open({ roundTrips }).query({ text: 'select 1', types }))).toBeInstanceOf(RangeError);
    await idleAndClean();
  });
});

test('statements that run in parallel take turns on the connections there are', async () => {
  const db = open();
  const answers = await Promise.all(
    [1, 2, 3, 4, 5].map((n) => db.query<{ n: number }>(sql`select ${n}::int as n`)),
  );
  expect(answers.map(({ rows }) => rows[0]!.n)).toEqual([1, 2, 3, 4, 5]);
  expect(pools.gauges()).toMatchObject({ connections: 1, idle: 1, keys: 1 });
});
