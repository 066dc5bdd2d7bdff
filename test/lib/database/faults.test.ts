import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { type ConnectionPools, createConnectionPools } from '../../../functions/lib/database/pools.ts';
import { openTenantDatabase } from '../../../functions/lib/database/tenant-database.ts';
import type { CallLimits } from '../../../functions/lib/database/types.ts';
import { TenantryError } from '../../../functions/lib/errors.ts';
import { startProxy, type WatchingProxy } from './support/proxy.ts';
import { closeGate, failure, gate, limits, routeTo, startServer, type TestServer } from './support/server.ts';

let server: TestServer;
let proxy: WatchingProxy;
let pools: ConnectionPools;
const unhandled: unknown[] = [];
const onUnhandled = (reason: unknown) => unhandled.push(reason);

beforeAll(async () => {
  process.on('unhandledRejection', onUnhandled);
  server = await startServer();
});
afterAll(async () => {
  await server?.close();
  process.off('unhandledRejection', onUnhandled);
  expect(unhandled).toEqual([]);
});
beforeEach(async () => {
  proxy = await startProxy(server.postgres.port);
  pools = createConnectionPools({ maxConnections: 4, maxIdleMs: 60_000, waitMs: 5_000 });
  await server.admin((admin) => admin.query('truncate acme.items'));
});
afterEach(async () => {
  await pools.close();
  await proxy.close();
});

const open = (changes: Partial<CallLimits> = {}) =>
  openTenantDatabase(routeTo(server.endpoint({ port: proxy.port })), limits(changes), pools);
const settle = (ms = 20) => new Promise((resolve) => setTimeout(resolve, ms));
const running = () =>
  server.admin(async (admin) => {
    const { rows } = await admin.query<{ state: string; query: string }>(
      "select state, query from pg_stat_activity where usename = 'app' and state <> 'idle'",
    );
    return rows;
  });
const untilRunning = async (query: string) => {
  while (!(await running()).some((session) => session.query.includes(query))) await settle();
};
const untilQuiet = async () => {
  while ((await running()).length > 0) await settle();
};

describe('a statement that runs too long', () => {
  test('is ended by the server itself, in time for a clear answer', async () => {
    // So long that the server is given all the time before the deadline that it is ever given.
    const error = await failure(open({ deadline: Date.now() + 3_000 }).query('select pg_sleep(60)'));
    expect(error).toMatchObject({ code: 'deadline_exceeded' });
    expect(await running()).toEqual([]);
    expect(pools.gauges()).toMatchObject({ idle: 1, inUse: 0 });
    expect(proxy.cancelRequests).toBe(0);
    const inside = open({ deadline: Date.now() + 1_500 }).transaction((tx) =>
      tx.query('select pg_sleep(60)'),
    );
    expect(await failure(inside)).toMatchObject({ code: 'deadline_exceeded' });
  });

  test('is left at the deadline when the server does not answer, and ends there by itself', async () => {
    await open().query('select 1');
    proxy.silent = true;
    const error = await failure(open({ mode: 'r', deadline: Date.now() + 400 }).query('select pg_sleep(60)'));
    expect(error).toMatchObject({ code: 'deadline_exceeded' });
    expect(pools.gauges()).toMatchObject({ connections: 0 });
    await untilQuiet();
    expect(proxy.cancelRequests).toBe(0);
  });
});

describe('a deadline that passes', () => {
  afterEach(() => void vi.restoreAllMocks());

  test('is told as one, though a timer fires before the clock is there', async () => {
    const deadline = Date.now() + 200;
    vi.spyOn(Date, 'now').mockReturnValue(deadline - 200);
    const sleeps = open({ mode: 'r', deadline }).query('select pg_sleep(60)');
    expect(await failure(sleeps)).toMatchObject({ code: 'deadline_exceeded' });
  });

  test('is told as one, though it was the caller who watched it', async () => {
    const passed = AbortSignal.abort(new TenantryError('deadline_exceeded', 'The deadline has passed.'));
    const call = open({ signal: passed, deadline: Date.now() + 3_000 }).query('select 1');
    expect(await failure(call)).toMatchObject({ code: 'deadline_exceeded' });
  });
});

describe('an aborted call', () => {
  test.each(['query', 'transaction'] as const)(
    'stops waiting at once and gives up its connection: %s',
    async (kind) => {
      const abort = new AbortController();
      const db = open({ mode: 'r', signal: abort.signal, deadline: Date.now() + 3_000 });
      const call =
        kind === 'query'
          ? db.query('select pg_sleep(60)')
          : db.transaction((tx) => tx.query('select pg_sleep(60)'));
      const failed = failure(call);
      await untilRunning('pg_sleep');
      abort.abort();
      expect(await failed).toMatchObject({ code: 'aborted' });
      expect(pools.gauges()).toMatchObject({ connections: 0, inUse: 0 });
      expect(await failure(db.query('select 1'))).toMatchObject({ code: 'aborted' });
      // No cancel request is sent: the statement ends by the timeout that enter has set.
      await untilQuiet();
      expect(proxy.cancelRequests).toBe(0);
    },
  );

  test('that was writing does not know whether it has', async () => {
    const abort = new AbortController();
    const db = open({ signal: abort.signal });
    const openGate = await closeGate(server);
    const failed = failure(db.query(`insert into items (id) select 1 from ${gate}`));
    await untilRunning(gate);
    abort.abort();
    expect(await failed).toMatchObject({ code: 'outcome_unknown' });
    await openGate();
    await untilQuiet();
  });

  test('whose transaction had not reached COMMIT knows that it has changed nothing', async () => {
    const abort = new AbortController();
    const never = new Promise<never>(() => {});
    const db = open({ signal: abort.signal });
    const failed = failure(
      db.transaction(async (tx) => {
        await tx.query('insert into items (id) values (1)');
        abort.abort();
        return never;
      }),
    );
    expect(await failed).toMatchObject({ code: 'aborted' });
    await untilQuiet();
    expect((await open().query('select from items')).rowCount).toBe(0);
  });

  test('does not begin', async () => {
    const find = routeTo(server.endpoint());
    const db = openTenantDatabase(find, limits({ signal: AbortSignal.abort() }), pools);
    expect(await failure(db.query('select 1'))).toMatchObject({ code: 'aborted' });
    const late = openTenantDatabase(find, limits({ deadline: Date.now() - 1 }), pools);
    await settle(5);
    expect(await failure(late.query('select 1'))).toMatchObject({ code: 'deadline_exceeded' });
    expect(pools.gauges().connections).toBe(0);
  });
});

describe('a connection that is lost', () => {
  test('during a read is replaced, and the read is done again', async () => {
    const openGate = await closeGate(server);
    const read = open({ mode: 'r' }).query(`select 'again' as word from ${gate}`);
    await untilRunning(gate);
    proxy.cut();
    await openGate();
    expect((await read).rows).toEqual([{ word: 'again' }]);
  });

  test('twice during a read makes it unavailable', async () => {
    const openGate = await closeGate(server);
    const read = failure(open({ mode: 'r' }).query(`select from ${gate}`));
    await untilRunning(gate);
    proxy.cut();
    // The first one goes on at the server: nobody has told it.
    while ((await running()).length < 2) await settle();
    proxy.cut();
    expect(await read).toMatchObject({ code: 'unavailable' });
    await openGate();
    await untilQuiet();
  });

  test('during a write leaves the outcome unknown, and is never written again', async () => {
    const openGate = await closeGate(server);
    const write = failure(open().query(`insert into items (id) select 1 from ${gate}`));
    await untilRunning(gate);
    proxy.cut();
    expect(await write).toMatchObject({ code: 'outcome_unknown' });
    await openGate();
    await untilQuiet();
    expect((await open().query('select from items')).rowCount).toBe(1);
  });

  test('before COMMIT was sent has changed nothing', async () => {
    const openGate = await closeGate(server);
    const insert = `insert into items (id) select 1 from ${gate}`;
    const inTransaction = failure(open().transaction((tx) => tx.query(insert)));
    await untilRunning(gate);
    proxy.cut();
    expect(await inTransaction).toMatchObject({ code: 'unavailable' });
    await openGate();
    await untilQuiet();
    expect((await open().query('select from items')).rowCount).toBe(0);
  });

  test('before COMMIT was sent lets a write be done again, where the steps go one by one', async () => {
    const openGate = await closeGate(server);
    const write = open({ roundTrips: 'four' }).query(`insert into items (id) select 1 from ${gate}`);
    await untilRunning(gate);
    proxy.cut();
    await openGate();
    expect((await write).rowCount).toBe(1);
    await untilQuiet();
    expect((await open().query('select id from items')).rows).toEqual([{ id: 1 }]);
  });

  test('while idle does not fail the write that comes next', async () => {
    await open().query('select 1');
    proxy.cut();
    while (pools.gauges().idle > 0) await settle();
    expect((await open().query('insert into items (id) values (1)')).rowCount).toBe(1);
  });

  test('during a write, by a server that says so, lets the write be done again: it had not come to COMMIT', async () => {
    const openGate = await closeGate(server);
    const write = open().query(`insert into items (id) select 1 from ${gate}`);
    await untilRunning(gate);
    await server.admin((admin) =>
      admin.query("select pg_terminate_backend(pid, 2000) from pg_stat_activity where usename = 'app'"),
    );
    await openGate();
    expect((await write).rowCount).toBe(1);
    await untilQuiet();
    expect((await open().query('select id from items')).rows).toEqual([{ id: 1 }]);
  });

  test('by the statement itself is tried once more, and no further', async () => {
    await server.admin((admin) => admin.query('grant pg_signal_backend to app'));
    expect(await failure(open().query('select pg_terminate_backend(pg_backend_pid())'))).toMatchObject({
      code: 'unavailable',
    });
    expect((await open().query('select 1 as n')).rows).toEqual([{ n: 1 }]);
    expect(pools.gauges()).toMatchObject({ inUse: 0, connections: 1 });
  });
});

test('PostgreSQL killed and started again under load: clean errors, then recovery, nothing poisoned', async () => {
  let load = true;
  const codes = new Map<string, number>();
  const acknowledged: number[] = [];
  let next = 0;
  const worker = async () => {
    while (load) {
      next += 1;
      const id = next;
      const db = open({ mode: id % 3 === 0 ? 'r' : 'w', deadline: Date.now() + 2_000 });
      try {
        if (id % 3 === 0) await db.query('select count(*) from items');
        else if (id % 3 === 1) await db.query('insert into items (id) values ($1)', [id]);
        else
          await db.transaction(async (tx) => {
            await tx.query('insert into items (id) values ($1)', [id]);
            await tx.query('select count(*) from items');
          });
        if (id % 3 !== 0) acknowledged.push(id);
        codes.set('ok', (codes.get('ok') ?? 0) + 1);
      } catch (error) {
        if (!(error instanceof TenantryError)) throw error;
        codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
        await settle(5);
      }
    }
  };
  const workers = Array.from({ length: 16 }, worker);
  const untilOk = async (more: number) => {
    const goal = (codes.get('ok') ?? 0) + more;
    while ((codes.get('ok') ?? 0) < goal) await settle();
  };
  for (const how of ['immediate', 'fast', 'immediate'] as const) {
    await untilOk(100);
    await server.postgres.stop(how);
    await settle(200);
    await server.restart();
  }
  await untilOk(100);
  load = false;
  await Promise.all(workers);

  const known = new Set(['ok', 'unavailable', 'outcome_unknown', 'busy', 'deadline_exceeded']);
  expect([...codes.keys()].filter((code) => !known.has(code))).toEqual([]);
  expect(codes.get('unavailable')).toBeGreaterThan(0);
  expect(pools.gauges()).toMatchObject({ inUse: 0, waiting: 0 });
  const { rows } = await server.admin((admin) => admin.query<{ id: number }>('select id from acme.items'));
  const stored = new Set(rows.map(({ id }) => id));
  // A crash loses no acknowledged write even with fsync off: the operating system has not crashed.
  expect(acknowledged.filter((id) => !stored.has(id))).toEqual([]);
});
