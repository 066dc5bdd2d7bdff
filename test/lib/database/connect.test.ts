import { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { answersOf, inTransaction, withConnection } from '../../../functions/lib/database/connect.ts';
import { KeptConnections } from '../../../functions/lib/database/kept.ts';
import type { Endpoint } from '../../../functions/lib/database/types.ts';
import { startCluster, type TestCluster } from '../../support/cluster.ts';
import { startProxy, type WatchingProxy } from './support/proxy.ts';

let cluster: TestCluster;
let proxy: WatchingProxy;
let endpoint: Endpoint;

beforeAll(async () => {
  cluster = await startCluster();
  proxy = await startProxy(cluster.server.port);
  await withConnection(cluster.master, (connection) => connection.query('create database tried'));
  endpoint = { ...cluster.master, port: proxy.port, database: 'tried', kept: new KeptConnections(4) };
  await withConnection(endpoint, (connection) => connection.query('create table marks (mark text)'));
});
afterAll(async () => {
  await proxy?.close();
  await cluster?.close();
});
beforeEach(() => withConnection(endpoint, (connection) => connection.query('truncate marks')));

const marks = async () =>
  (
    await withConnection(endpoint, (connection) =>
      connection.query<{ mark: string }>('select mark from marks order by mark', []),
    )
  ).rows.map(({ mark }) => mark);

describe('statements that nobody waits for in between', () => {
  test('are one round trip, and done in order', async () => {
    const { sums, trips } = await withConnection(endpoint, async (connection) => {
      await connection.query('select');
      proxy.reset();
      const answers = await answersOf([
        connection.query("insert into marks values ('a')"),
        connection.query('select count(*)::int as n from marks', []),
        connection.query("insert into marks values ('b'); select count(*)::int as n from marks"),
      ]);
      return { sums: answers.slice(1).map(({ rows }) => rows[0]!.n), trips: proxy.roundTrips };
    });
    expect(sums).toEqual([1, 2]);
    expect(trips).toBe(1);
  });

  test('tell of what failed first, whatever else did', async () => {
    const work = withConnection(endpoint, (connection) =>
      answersOf([
        connection.query('select 1'),
        connection.query('select 1 / 0', []),
        connection.query('select from nowhere', []),
      ]),
    );
    await expect(work).rejects.toMatchObject({ code: '22012' });
  });

  test('have errors that say how many of their own script were done', async () => {
    const work = withConnection(endpoint, (connection) =>
      answersOf([connection.query('select 1; select 2'), connection.query('select 1; select 1 / 0')]),
    );
    await expect(work).rejects.toMatchObject({ code: '22012', completed: 1 });
  });
});

describe('a transaction', () => {
  test('begins with its first statement', async () => {
    await withConnection(endpoint, async (connection) => {
      await connection.query('select');
      proxy.reset();
      await inTransaction(connection, () => connection.query("insert into marks values ('c')"));
      expect(proxy.roundTrips).toBe(2);
    });
    expect(await marks()).toEqual(['c']);
  });

  test('whose beginning fails does nothing, and tells of that', async () => {
    const work = withConnection(endpoint, (connection) =>
      inTransaction(
        connection,
        () => connection.query("insert into marks values ('d')"),
        'begin; set local role nobody_here',
      ),
    );
    await expect(work).rejects.toMatchObject({ code: '22023' });
    expect(await marks()).toEqual([]);
  });

  test('that has nothing to say is not taken for one that held', async () => {
    const work = withConnection(endpoint, (connection) =>
      inTransaction(connection, async () => {}, 'begin; set local role nobody_here'),
    );
    await expect(work).rejects.toMatchObject({ code: '22023' });
  });
});

describe('rows by COPY', () => {
  test('go in and out behind what was sent before them', async () => {
    await withConnection(endpoint, (connection) =>
      inTransaction(connection, async () => {
        expect(await connection.copyFrom('copy marks from stdin', Readable.from(['e\n', 'f\n']))).toBe(2);
        let out = '';
        const count = await connection.copyTo('copy marks to stdout', async (bytes) => {
          out = await text(bytes);
        });
        expect([count, out]).toEqual([2, 'e\nf\n']);
      }),
    );
    const first = await withConnection(endpoint, async (connection) => {
      let out = '';
      await connection.copyTo('copy marks to stdout', async (bytes) => {
        out = await text(bytes);
      });
      return out;
    });
    expect(first).toBe('e\nf\n');
  });

  test('that are refused leave a connection of which the next is asked', async () => {
    await withConnection(endpoint, async (connection) => {
      await expect(
        connection.copyFrom('copy nowhere from stdin', Readable.from(['g\n'])),
      ).rejects.toMatchObject({ code: '42P01' });
      expect((await connection.query<{ n: number }>('select 1 as n', [])).rows).toEqual([{ n: 1 }]);
    });
  });
});

describe('rows out', () => {
  test.each<[string, (bytes: Readable) => Promise<void>]>([
    [
      'reads them one by one',
      async (bytes) => {
        for await (const _ of bytes) throw new Error('the disk is full');
      },
    ],
    [
      'is a file behind a transformation',
      (bytes) =>
        pipeline(
          Readable.from(
            (async function* () {
              yield* bytes;
            })(),
          ),
          new Writable({ write: (_, __, done) => done(new Error('the disk is full')) }),
        ),
    ],
  ])(
    'end with the reason of a reader that %s, however many more there are',
    async (_, into) => {
      const reading = withConnection(endpoint, (connection) =>
        inTransaction(connection, () =>
          connection.copyTo('copy (select generate_series(1, 3000000)) to stdout', into),
        ),
      );
      await expect(reading).rejects.toThrow('the disk is full');
    },
    20_000,
  );

  test('that are refused leave a connection of which the next is asked', async () => {
    await withConnection(endpoint, async (connection) => {
      const refused = connection.copyTo('copy nowhere to stdout', async (bytes) => void (await text(bytes)));
      await expect(refused).rejects.toMatchObject({ code: '42P01' });
      expect((await connection.query<{ n: number }>('select 1 as n', [])).rows).toEqual([{ n: 1 }]);
    });
  });
});

test('a connection is closed without waiting for what it is at', async () => {
  const sleeping = withConnection(endpoint, async (connection) => {
    connection.query('select pg_sleep(3600)').catch(() => {});
    throw new Error('the work failed');
  });
  await expect(sleeping).rejects.toThrow('the work failed');
});
