import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ConnectionPools, createConnectionPools } from '../../../functions/lib/database/pools.ts';
import { openTenantDatabase } from '../../../functions/lib/database/tenant-database.ts';
import type { CallLimits, FindPassage } from '../../../functions/lib/database/types.ts';
import { RetryableError, TenantryError } from '../../../functions/lib/errors.ts';
import { acme, failure, limits, routeTo, startServer, type TestServer } from './support/server.ts';

let server: TestServer;
let pools: ConnectionPools;

beforeAll(async () => {
  server = await startServer();
  pools = createConnectionPools({ maxConnections: 2, maxIdleMs: 60_000, waitMs: 500 });
});
afterAll(async () => {
  await pools?.close();
  await server?.close();
});
const home = (change: string) => server.admin((admin) => admin.query(`update tenancy.homes set ${change}`));
beforeEach(() => home("epoch = 1, state = 'open'"));

/** Both ways of using a tenant's database, since both have to get in. */
const uses = {
  query: (find: FindPassage, changes?: Partial<CallLimits>) =>
    openTenantDatabase(find, limits(changes), pools).query('select 1 as n'),
  transaction: (find: FindPassage, changes?: Partial<CallLimits>) =>
    openTenantDatabase(find, limits(changes), pools).transaction((tx) => tx.query('select 1 as n')),
};

describe.each(['query', 'transaction'] as const)('db.%s', (kind) => {
  const use = uses[kind];

  test('refreshes a stale route once and goes on', async () => {
    await home('epoch = 2');
    const find = routeTo(server.endpoint(), acme, { known: 1, fresh: 2 });
    expect((await use(find)).rows).toEqual([{ n: 1 }]);
    expect(find.refreshes()).toBe(1);
  });

  test('says unavailable when the fresh route is stale too', async () => {
    await home('epoch = 3');
    const find = routeTo(server.endpoint(), acme, { known: 1, fresh: 2 });
    expect(await failure(use(find))).toMatchObject({ code: 'unavailable', retryAfterSeconds: 2 });
    expect(find.refreshes()).toBe(1);
  });

  test('asks for a fresh context when one was refused, and takes the blame when that is refused too', async () => {
    const requests: boolean[] = [];
    const forged: FindPassage = async ({ refresh }) => {
      requests.push(refresh);
      return { endpoint: server.endpoint(), context: 'forged' };
    };
    expect(await failure(use(forged))).toMatchObject({ code: 'internal' });
    expect(requests.filter((refresh) => refresh)).toHaveLength(1);
  });

  test('refreshes the route when it leads nowhere', async () => {
    const nowhere = routeTo(server.endpoint({ port: 1 }));
    const arrives: FindPassage = (request) =>
      request.refresh ? routeTo(server.endpoint())(request) : nowhere(request);
    expect((await use(arrives)).rows).toEqual([{ n: 1 }]);
    expect(await failure(use(nowhere))).toMatchObject({ code: 'unavailable' });
    const dropped = routeTo(server.endpoint({ database: 'gone' }));
    expect(await failure(use(dropped))).toMatchObject({ code: 'unavailable' });
    expect(dropped.refreshes()).toBe(1);
  });

  test('refreshes the route when what it leads to has no secret any more', async () => {
    const arrives = routeTo(server.endpoint());
    const noSecret = new TenantryError('internal', 'The secret is gone.');
    const moved: FindPassage = async (request) => {
      if (!request.refresh) throw noSecret;
      return arrives(request);
    };
    expect((await use(moved)).rows).toEqual([{ n: 1 }]);

    const offboarded: FindPassage = async ({ refresh }) => {
      throw refresh ? new TenantryError('tenant_not_served', 'Not served here.') : noSecret;
    };
    expect(await failure(use(offboarded))).toMatchObject({ code: 'tenant_not_served' });

    const broken = routeTo({
      ...server.endpoint(),
      login: 'nobody',
      password: async () => Promise.reject(noSecret),
    });
    expect(await failure(use(broken))).toMatchObject({ code: 'internal' });
    expect(broken.refreshes()).toBe(1);
  });

  test.each(['fenced', 'busy'])(
    'waits while the home is %s, and answers busy when it stays so',
    async (state) => {
      await home(`state = '${state}'`);
      const waits = routeTo(server.endpoint());
      const answer = use(waits);
      while (waits.requests.length < 4) await new Promise((resolve) => setTimeout(resolve, 5));
      await home("state = 'open'");
      expect((await answer).rows).toEqual([{ n: 1 }]);
      expect(waits.refreshes()).toBe(0);

      await home(`state = '${state}'`);
      const error = await failure(use(routeTo(server.endpoint())));
      expect(error).toBeInstanceOf(RetryableError);
      expect(error).toMatchObject({ code: 'busy', retryAfterSeconds: 1 });
      expect(await failure(use(routeTo(server.endpoint()), { deadline: Date.now() + 200 }))).toMatchObject({
        code: 'deadline_exceeded',
      });
    },
  );

  test('does not wait for a suspended tenant', async () => {
    await home("state = 'suspended'");
    const find = routeTo(server.endpoint());
    expect(await failure(use(find))).toMatchObject({ code: 'tenant_suspended' });
    expect(find.refreshes()).toBe(0);
  });

  test('may read, but not write, a home that is read-only', async () => {
    await home("state = 'read_only'");
    expect((await use(routeTo(server.endpoint()), { mode: 'r' })).rows).toEqual([{ n: 1 }]);
    expect(await failure(use(routeTo(server.endpoint())))).toMatchObject({
      code: 'unavailable',
      retryAfterSeconds: 60,
    });
  });

  test('is served by a runtime that expects a reader to have said so', async () => {
    await home("state = 'older'");
    const find = routeTo(server.endpoint());
    const mode = { mode: 'r' as const };
    expect((await use(find, mode)).rows).toEqual([{ n: 1 }]);
    expect(find.refreshes()).toBe(0);
    expect((await use(routeTo(server.endpoint()))).rows).toEqual([{ n: 1 }]);
  });

  test('does not use a session again in which enter fails without a reason of its own', async () => {
    await use(routeTo(server.endpoint()));
    expect(pools.gauges().idle).toBeGreaterThan(0);
    await home("state = 'broken'");
    const find = routeTo(server.endpoint());
    expect(await failure(use(find))).toMatchObject({ code: 'internal' });
    expect(find.refreshes()).toBe(0);
    expect(pools.gauges()).toMatchObject({ idle: 0, connections: 0 });
  });

  test("leaves every refused call's connection clean", async () => {
    expect(pools.gauges()).toMatchObject({ inUse: 0, waiting: 0 });
    await use(routeTo(server.endpoint()));
    expect(pools.gauges()).toMatchObject({ inUse: 0, idle: 1 });
  });
});

test('a transaction runs its callback again for nobody', async () => {
  let runs = 0;
  const db = openTenantDatabase(routeTo(server.endpoint()), limits(), pools);
  await failure(
    db.transaction(async (tx) => {
      runs += 1;
      await tx.query('select 1/0');
    }),
  );
  expect(runs).toBe(1);
});

test('errors of the layers above pass through as they are', async () => {
  const refusal = new RetryableError('unavailable', 'The catalog is away.');
  const find: FindPassage = async () => {
    throw refusal;
  };
  expect(await failure(uses.query(find))).toBe(refusal);
});
