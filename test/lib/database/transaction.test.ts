import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ConnectionPools, createConnectionPools } from '../../../functions/lib/database/pools.ts';
import { openTenantDatabase } from '../../../functions/lib/database/tenant-database.ts';
import type { CallLimits, TenantTransaction } from '../../../functions/lib/database/types.ts';
import { startProxy, type WatchingProxy } from './support/proxy.ts';
import { failure, limits, routeTo, startServer, type TestServer } from './support/server.ts';

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
  await server.admin((admin) => admin.query('truncate acme.items'));
});

const open = (changes: Partial<CallLimits> = {}) =>
  openTenantDatabase(routeTo(server.endpoint({ port: proxy.port })), limits(changes), pools);
const insert = (tx: TenantTransaction, id: number) => tx.query('insert into items (id) values ($1)', [id]);
const ids = async () =>
  (await open().query<{ id: number }>('select id from items order by id')).rows.map(({ id }) => id);

describe.each(['one', 'four'] as const)('db.transaction, round trips: %s', (roundTrips) => {
  test('begins in as many, then takes one for each statement and one for COMMIT', async () => {
    await open().query('select 1');
    proxy.reset();
    const value = await open({ roundTrips }).transaction(async (tx) => {
      await insert(tx, 1);
      return (await tx.query<{ n: string }>('select count(*) as n from items')).rows[0]!.n;
    });
    expect(value).toBe('1');
    expect(proxy.messages).toBe(
      { one: 'PBEPBES PBDES PBDES PBES', four: 'PBES PBES PBDES PBDES PBES' }[roundTrips].replaceAll(' ', ''),
    );
    expect(await ids()).toEqual([1]);
  });

  test('rolls everything back when the callback throws, at once or later', async () => {
    const fault = new RangeError('of the tool');
    const late = open({ roundTrips }).transaction(async (tx) => {
      await insert(tx, 1);
      throw fault;
    });
    expect(await failure(late)).toBe(fault);
    const early = open({ roundTrips }).transaction((() => {
      throw fault;
    }) as never);
    expect(await failure(early)).toBe(fault);
    expect(await ids()).toEqual([]);
    expect(pools.gauges()).toMatchObject({ idle: 1, inUse: 0 });
  });

  test('does not commit what a swallowed error has failed', async () => {
    const swallowed = open({ roundTrips }).transaction(async (tx) => {
      await insert(tx, 1);
      await insert(tx, 1).catch(() => {});
    });
    expect(await failure(swallowed)).toMatchObject({ code: 'query_failed', sqlstate: '25P02' });
    expect(await ids()).toEqual([]);
  });

  test('fails when a deferred constraint fails at COMMIT', async () => {
    await server.admin((admin) =>
      admin.query('alter table acme.items alter constraint items_parent_fkey deferrable initially deferred'),
    );
    const failed = open({ roundTrips }).transaction((tx) =>
      tx.query('insert into items (id, parent) values (3, 4)'),
    );
    expect(await failure(failed)).toMatchObject({ sqlstate: '23503' });
    expect(await ids()).toEqual([]);
    expect(pools.gauges()).toMatchObject({ idle: 1, inUse: 0 });
  });

  test('is one of its own while another call uses its connection before and after', async () => {
    await open({ roundTrips }).transaction((tx) =>
      tx.query("select set_config('search_path', 'globex', true)"),
    );
    expect((await open().query("select current_setting('search_path') as path")).rows[0]).toEqual({
      path: 'acme, pg_temp',
    });
  });
});

describe('savepoints', () => {
  test('pass, in the words of SQL', async () => {
    await open().transaction(async (tx) => {
      await insert(tx, 1);
      await tx.query('savepoint a');
      await insert(tx, 2);
      await failure(insert(tx, 2));
      await tx.query('rollback to savepoint a');
      await insert(tx, 3);
      await tx.query('release savepoint a');
    });
    expect(await ids()).toEqual([1, 3]);
  });

  test("are what an ORM's own transactions become, nested too", async () => {
    await open().transaction(async (tx) => {
      expect((await tx.query('begin isolation level serializable')).command).toBe('BEGIN');
      await insert(tx, 1);
      await tx.query('start transaction read only');
      await insert(tx, 2);
      expect((await tx.query('rollback')).command).toBe('ROLLBACK');
      expect((await tx.query('commit')).command).toBe('COMMIT');
      await tx.query('BEGIN');
      await failure(insert(tx, 1));
      await failure(tx.query('commit'));
      await tx.query('rollback');
      await insert(tx, 4);
    });
    expect(await ids()).toEqual([1, 4]);
  });

  test.each(['commit', 'rollback', 'end', 'abort'])(
    'do not let %s end the transaction itself',
    async (verb) => {
      const ended = open().transaction(async (tx) => {
        await insert(tx, 1);
        await tx.query(verb);
      });
      const error = await failure(ended);
      expect(error).toMatchObject({ code: 'statement_refused' });
      expect(error.message).toContain('db.transaction commits when its callback resolves');
      expect(await ids()).toEqual([]);
    },
  );

  test('that were begun and never ended are a mistake, and nothing is committed', async () => {
    const left = open().transaction(async (tx) => {
      await tx.query('begin');
      await insert(tx, 1);
    });
    expect((await failure(left)).message).toMatch(/left open/);
    expect(await ids()).toEqual([]);
  });
});

test('statements may be sent in parallel and run one after the other', async () => {
  await open().transaction(async (tx) => {
    await Promise.all([3, 1, 2].map((id) => insert(tx, id)));
  });
  expect(await ids()).toEqual([1, 2, 3]);
});

test('a tx is of no use after its end', async () => {
  let escaped: TenantTransaction | undefined;
  await open().transaction(async (tx) => {
    escaped = tx;
    // Sent, but not waited for: it is answered before COMMIT.
    void insert(tx, 1);
  });
  expect(await failure(insert(escaped!, 2))).toMatchObject({ code: 'statement_refused' });
  expect(await ids()).toEqual([1]);
});

test('statements of a transaction have the same bounds', async () => {
  const rows = open({ maxRows: 2 }).transaction(async (tx) => {
    await insert(tx, 1);
    expect(await failure(tx.query('select generate_series(1, 3)'))).toMatchObject({
      code: 'result_too_large',
      committed: false,
    });
    await tx.query('select generate_series(1, 2)');
  });
  await rows;
  expect(await ids()).toEqual([1]);
  const bytes = open({ mode: 'r', maxBytes: 1_000 }).transaction(async (tx) => {
    await tx.query("select repeat('x', 2000)");
  });
  expect(await failure(bytes)).toMatchObject({ code: 'result_too_large' });
  const guarded = open().transaction((tx) => tx.query('set search_path = globex'));
  expect(await failure(guarded)).toMatchObject({ code: 'statement_refused' });
});
