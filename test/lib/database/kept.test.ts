import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  type ControlConnection,
  openConnection,
  withConnection,
} from '../../../functions/lib/database/connect.ts';
import { KeptConnections } from '../../../functions/lib/database/kept.ts';
import type { Endpoint } from '../../../functions/lib/database/types.ts';
import { startCluster, type TestCluster } from '../../support/cluster.ts';

let cluster: TestCluster;
let now: number;
let endpoint: Endpoint;

beforeAll(async () => {
  cluster = await startCluster();
  await withConnection(cluster.master, (connection) => connection.query('create role helper'));
  await withConnection(cluster.master, (connection) => connection.query('grant helper to master'));
});
afterAll(async () => cluster?.close());
beforeEach(() => {
  now = Date.now();
  endpoint = { ...cluster.master, kept: new KeptConnections(4, () => now) };
});

const pid = async (connection: ControlConnection) =>
  (await connection.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]!.pid;
const nextPid = () => withConnection(endpoint, pid);

describe('a kept connection', () => {
  test('serves the next piece of work', async () => {
    const first = await nextPid();
    expect(await nextPid()).toBe(first);
    expect(await withConnection(cluster.master, pid)).not.toBe(first);
  });

  test('serves nobody else meanwhile', async () => {
    const pids = await withConnection(endpoint, async (connection) => [
      await pid(connection),
      await nextPid(),
    ]);
    expect(new Set(pids).size).toBe(2);
  });

  test('is of the same database and login only', async () => {
    const first = await nextPid();
    expect(await withConnection({ ...endpoint, database: 'template1' }, pid)).not.toBe(first);
  });

  test('has nothing of what its user left behind', async () => {
    const marks = `select current_user::text as role, current_setting('search_path') as path, current_setting('my.mark', true) as mark,
      to_regclass('pg_temp.leftover') as leftover, (select count(*)::int from pg_prepared_statements) as prepared,
      (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks`;
    const state = async (connection: ControlConnection) => (await connection.query(marks, [])).rows[0];
    const fresh = await withConnection(cluster.master, state);
    const first = await withConnection(endpoint, async (connection) => {
      await connection.query(
        "set role helper; set search_path = nowhere; select set_config('my.mark', 'left', false)",
      );
      await connection.query('reset role; create temp table leftover (id int); set role helper');
      await connection.query('prepare left_one as select 1; select pg_advisory_lock(7)');
      expect(await state(connection)).not.toEqual(fresh);
      return pid(connection);
    });
    await withConnection(endpoint, async (connection) => {
      expect(await pid(connection)).toBe(first);
      // A setting that was once made is empty ever after: nobody asks for its being there.
      expect(await state(connection)).toEqual({ ...fresh, mark: '' });
    });
  });

  test('holds no lock when its work is done', async () => {
    await withConnection(endpoint, (connection) => connection.query('select pg_advisory_lock(8)'));
    await withConnection(cluster.master, async (connection) => {
      await connection.query("set lock_timeout = '2s'");
      await connection.query('select pg_advisory_lock(8)');
    });
  });

  test('is not kept in a transaction, nor when its work has failed', async () => {
    const left = await withConnection(endpoint, async (connection) => {
      await connection.query('begin');
      return pid(connection);
    });
    expect(await nextPid()).not.toBe(left);
    let failed = 0;
    const work = withConnection(endpoint, async (connection) => {
      failed = await pid(connection);
      throw new Error('the work failed');
    });
    await expect(work).rejects.toThrow('the work failed');
    expect(await nextPid()).not.toBe(failed);
  });

  test('is not taken when the server has ended it, or a process was frozen longer than it waits', async () => {
    const ended = await nextPid();
    await withConnection(cluster.master, (connection) =>
      connection.query('select pg_terminate_backend($1, 2000)', [ended]),
    );
    const second = await nextPid();
    expect(second).not.toBe(ended);
    now += 15_001;
    expect(await nextPid()).not.toBe(second);
  });

  test('is ended by the server once it is kept for long, and not while somebody has it and works elsewhere', async () => {
    const idles = (ms: number) =>
      withConnection(cluster.master, (connection) =>
        connection.query(`alter role master set idle_session_timeout = ${ms}`),
      );
    await idles(300);
    try {
      const { connection } = await openConnection(cluster.master);
      await pid(connection);
      await sleep(600);
      await expect(pid(connection)).rejects.toThrow();
      for (const _ of ['as it is made', 'as it is taken again'])
        await withConnection(endpoint, async (connection) => {
          const before = await pid(connection);
          await sleep(600);
          expect(await pid(connection)).toBe(before);
        });
    } finally {
      await idles(0);
    }
    const client = await endpoint.kept!.take(endpoint);
    expect((await client!.query('show idle_session_timeout')).rows).toEqual([
      { idle_session_timeout: '1min' },
    ]);
    await client!.end();
  });

  test('outlives no restart of the server, and there are no more than is said', async () => {
    await nextPid();
    await cluster.server.stop('fast');
    await cluster.restart();
    expect(await nextPid()).toBeGreaterThan(0);
    await Promise.all(Array.from({ length: 9 }, nextPid));
    const open = async () => {
      const { rows } = await withConnection(cluster.master, (connection) =>
        connection.query(
          "select count(*)::int as n from pg_stat_activity where usename = 'master' and pid <> pg_backend_pid()",
          [],
        ),
      );
      return rows[0]!.n as number;
    };
    // Sooner than those that are kept end by themselves.
    await expect.poll(open, { timeout: 10_000 }).toBeLessThanOrEqual(4);
  });

  test('keeps no process alive', async () => {
    const { host, port } = cluster.server;
    const script = `
      import { withConnection } from './functions/lib/database/connect.ts';
      import { KeptConnections } from './functions/lib/database/kept.ts';
      const endpoint = { host: '${host}', port: ${port}, database: 'postgres', login: 'master', tls: 'off', password: async () => 'master', kept: new KeptConnections() };
      await withConnection(endpoint, (connection) => connection.query('select 1'));
      console.log('done');`;
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--input-type=module-typescript', '--eval', script],
      { timeout: 10_000 },
    );
    expect(stdout).toBe('done\n');
  });
});
