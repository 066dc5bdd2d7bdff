import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Connection } from '../../../functions/lib/database/connection.ts';
import {
  type ConnectionPools,
  createConnectionPools,
  type Lease,
  type PoolLimits,
} from '../../../functions/lib/database/pools.ts';
import { openTenantDatabase } from '../../../functions/lib/database/tenant-database.ts';
import type { Endpoint } from '../../../functions/lib/database/types.ts';
import { failure, limits, routeTo, startServer, type TestServer } from './support/server.ts';

let server: TestServer;
const opened: ConnectionPools[] = [];

beforeAll(async () => {
  server = await startServer({ max_connections: '30' });
});
afterAll(() => server?.close());
afterEach(async () => {
  await Promise.all(opened.splice(0).map((pools) => pools.close()));
});

function createPools(changes: Partial<PoolLimits> = {}): ConnectionPools {
  const pools = createConnectionPools({ maxConnections: 2, maxIdleMs: 60_000, waitMs: 5_000, ...changes });
  opened.push(pools);
  return pools;
}
const never = new AbortController().signal;
const app = () => server.endpoint();
const other = () => server.endpoint({ login: 'other' });
/** Lets everything that is already decided happen. */
const settle = () => new Promise((resolve) => setTimeout(resolve, 20));
const sessions = (login: string) =>
  server.admin(async (admin) => {
    const { rows } = await admin.query<{ pid: number; application_name: string }>(
      'select pid, application_name from pg_stat_activity where usename = $1',
      [login],
    );
    return rows;
  });

describe('a connection', () => {
  test('is used again for the same database and login, and for no other', async () => {
    const pools = createPools();
    const first = await pools.acquire(app(), never);
    first.release();
    const second = await pools.acquire(app(), never);
    expect(second.connection).toBe(first.connection);
    const third = await pools.acquire(other(), never);
    expect(third.connection).not.toBe(first.connection);
    expect(pools.gauges()).toEqual({ connections: 2, idle: 0, inUse: 2, waiting: 0, keys: 2, waits: 0 });
    second.release();
    third.release();
    expect(await sessions('app')).toMatchObject([{ application_name: 'tenantry' }]);
  });

  test('is not used again when its lease says lost, when it is in a transaction, or after a long rest', async () => {
    let now = 0;
    const pools = createPools({ clock: () => now, maxIdleMs: 1_000 });
    const taken = async () => {
      const lease = await pools.acquire(app(), never);
      lease.release();
      return lease.connection;
    };
    const first = await pools.acquire(app(), never);
    first.lost();
    expect(pools.gauges().connections).toBe(0);
    const second = await pools.acquire(app(), never);
    await second.connection.run(
      [{ step: 'statement', statement: { text: 'begin', values: [] } }],
      { maxRows: 1, maxBytes: 1_000, cutOff: false },
      never,
    );
    second.release();
    expect(second.connection.gone).toBe(true);
    const third = await taken();
    now = 1_000;
    expect(await taken()).toBe(third);
    now = 2_001;
    expect(await taken()).not.toBe(third);
  });

  test('that dies while idle is forgotten, and the process lives', async () => {
    const pools = createPools();
    const lease = await pools.acquire(app(), never);
    lease.release();
    await server.admin((admin) =>
      admin.query("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'"),
    );
    while (pools.gauges().idle > 0) await settle();
    expect(pools.gauges()).toEqual({ connections: 0, idle: 0, inUse: 0, waiting: 0, keys: 0, waits: 0 });
    (await pools.acquire(app(), never)).release();
  });

  test('returned twice is returned once', async () => {
    const pools = createPools();
    const lease = await pools.acquire(app(), never);
    lease.release();
    const again = await pools.acquire(app(), never);
    lease.release();
    lease.lost();
    expect(pools.gauges()).toMatchObject({ inUse: 1, idle: 0 });
    expect(again.connection.gone).toBe(false);
    again.release();
  });
});

describe('the cap', () => {
  test('holds over all keys: the one that has been idle longest makes room', async () => {
    const pools = createPools();
    const a = await pools.acquire(app(), never);
    const b = await pools.acquire(other(), never);
    b.release();
    a.release();
    const c = await pools.acquire(server.endpoint({ database: 'template1', login: 'app' }), never);
    expect(b.connection.gone).toBe(true);
    expect(a.connection.gone).toBe(false);
    expect(pools.gauges()).toEqual({ connections: 2, idle: 1, inUse: 1, waiting: 0, keys: 2, waits: 0 });
    c.release();
  });

  test('lets calls wait in order, and a connection that fits serve first, but not for ever', async () => {
    const pools = createPools({ maxConnections: 1 });
    const held = await pools.acquire(app(), never);
    const order: string[] = [];
    const serve = async (name: string, endpoint: Endpoint) => {
      const lease = await pools.acquire(endpoint, never);
      order.push(name);
      await settle();
      lease.release();
    };
    const calls = [
      serve('other', other()),
      ...Array.from({ length: 20 }, (_, n) => serve(`app ${n}`, app())),
    ];
    await settle();
    expect(pools.gauges()).toMatchObject({ inUse: 1, waiting: 21, connections: 1 });
    held.release();
    await Promise.all(calls);
    expect(order.indexOf('other')).toBe(16);
    expect(order.filter((name) => name !== 'other')).toEqual(
      Array.from({ length: 20 }, (_, n) => `app ${n}`),
    );
  });

  test('answers busy after the wait, and the turn goes to the next', async () => {
    const pools = createPools({ maxConnections: 1, waitMs: 50 });
    const held = await pools.acquire(app(), never);
    expect(await failure(pools.acquire(app(), never))).toMatchObject({ code: 'busy', retryAfterSeconds: 1 });
    expect(pools.gauges().waiting).toBe(0);
    held.release();
    (await pools.acquire(app(), never)).release();
  });

  test('is left by an aborted call at once, waiting or connecting', async () => {
    const pools = createPools({ maxConnections: 1 });
    const held = await pools.acquire(app(), never);
    const abort = new AbortController();
    const waiting = failure(pools.acquire(app(), abort.signal));
    abort.abort();
    await waiting;
    expect(pools.gauges().waiting).toBe(0);
    held.release();
    const second = new AbortController();
    const connecting = failure(pools.acquire(other(), second.signal));
    second.abort();
    await connecting;
    expect(pools.gauges()).toMatchObject({ inUse: 0 });
    expect(await failure(pools.acquire(app(), second.signal))).toBeInstanceOf(Error);
  });

  test('is given back by a connection that could not be made', async () => {
    const pools = createPools({ maxConnections: 1 });
    await failure(pools.acquire(server.endpoint({ port: 1 }), never));
    const failing = failure(pools.acquire(server.endpoint({ database: 'none' }), never));
    const waiting = pools.acquire(app(), never);
    await failing;
    (await waiting).release();
    expect(pools.gauges()).toMatchObject({ connections: 1, inUse: 0, waiting: 0 });
  });

  test('holds under a storm of tenants, failures and aborts', async () => {
    const pools = createPools({ maxConnections: 3 });
    let most = 0;
    const storm = Array.from({ length: 300 }, async (_, n) => {
      const abort = new AbortController();
      if (n % 7 === 0) setTimeout(() => abort.abort(), n % 13);
      let lease: Lease;
      try {
        const endpoint = [
          app(),
          other(),
          server.endpoint({ database: 'template1' }),
          server.endpoint({ database: 'none' }),
        ];
        lease = await pools.acquire(endpoint[n % 4]!, abort.signal);
      } catch {
        return;
      }
      const { inUse, connections } = pools.gauges();
      most = Math.max(most, connections, inUse);
      if (n % 5 === 0) await settle();
      if (n % 11 === 0) lease.lost();
      else lease.release();
    });
    await Promise.all(storm);
    expect(most).toBeLessThanOrEqual(3);
    expect(pools.gauges()).toMatchObject({ inUse: 0, waiting: 0 });
  });
});

describe('a password', () => {
  const rotating = (passwords: { cached: string; fresh: string }) => {
    const asked: boolean[] = [];
    const endpoint = server.endpoint({
      password: async (fresh) => {
        asked.push(fresh);
        return fresh ? passwords.fresh : passwords.cached;
      },
    });
    return { endpoint, asked };
  };

  test('that was rotated is fetched anew once', async () => {
    const pools = createPools();
    const { endpoint, asked } = rotating({ cached: 'old', fresh: 'app' });
    (await pools.acquire(endpoint, never)).release();
    expect(asked).toEqual([false, true]);
  });

  test('that stays refused fails clearly, without a third attempt', async () => {
    const pools = createPools();
    const { endpoint, asked } = rotating({ cached: 'old', fresh: 'older' });
    const find = routeTo(endpoint);
    const error = await failure(openTenantDatabase(find, limits(), pools).query('select 1'));
    expect(error).toMatchObject({ code: 'unavailable' });
    expect(error.message).not.toMatch(/old|app/);
    expect(asked).toEqual([false, true]);
    expect(find.refreshes()).toBe(1);
    expect(pools.gauges().connections).toBe(0);
  });

  test('that can not be read fails the call, not the pool', async () => {
    const pools = createPools({ maxConnections: 1 });
    const locked = server.endpoint({
      password: async () => {
        throw new Error('no access to the secret');
      },
    });
    const error = await failure(openTenantDatabase(routeTo(locked), limits(), pools).query('select 1'));
    expect(error).toMatchObject({ code: 'unavailable' });
    expect(error.message).not.toContain('secret');
    (await pools.acquire(app(), never)).release();
  });
});

test('a server that has no connection left is busy', async () => {
  const connections = await Promise.all(
    Array.from({ length: 27 }, () => Connection.open(app(), never).catch(() => undefined)),
  );
  const error = await failure(
    openTenantDatabase(routeTo(other()), limits(), createPools()).query('select 1'),
  );
  expect(error).toMatchObject({ code: 'busy' });
  await Promise.all(connections.map((connection) => connection?.close()));
});

test('closing refuses those who wait, and ends what is in use when it is returned', async () => {
  const pools = createPools({ maxConnections: 1 });
  const lease = await pools.acquire(app(), never);
  const waiting = failure(pools.acquire(app(), never));
  await pools.close();
  expect(await waiting).toMatchObject({ code: 'unavailable' });
  expect(lease.connection.gone).toBe(false);
  lease.release();
  expect(lease.connection.gone).toBe(true);
  expect(await failure(pools.acquire(app(), never))).toMatchObject({ code: 'unavailable' });
});
