import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import { startWorld, type World } from '../../support/world.ts';

// The pass that row security checks: see migrations/runtime/0015-functions/1-context.sql.

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const writing = 'begin isolation level read committed read write';

const read = (connection: ControlConnection) =>
  connection.query('select count(*)::int as count from shared.notes').then(
    ({ rows }) => rows[0]!.count as number,
    (error) => error.code as string,
  );
const settings = (connection: ControlConnection) =>
  connection
    .query(
      "select current_setting('tenancy.tenant', true) as tenant, current_setting('tenancy.pass', true) as pass",
    )
    .then(({ rows }) => rows[0] as { tenant: string; pass: string });
const put = (connection: ControlConnection, { tenant, pass }: { tenant: string; pass: string }) =>
  connection.query("select set_config('tenancy.tenant', $1, true), set_config('tenancy.pass', $2, true)", [
    tenant,
    pass,
  ]);

it('opens nothing in another transaction, nor for another tenant', async () => {
  const { a, b } = world.tenants.rls;
  await world.asLogin(a, async (connection) => {
    await connection.query(writing);
    await connection.query('call tenancy.admit($1)', [world.context(a)]);
    const kept = await settings(connection);
    expect(kept).toMatchObject({ tenant: a.id, pass: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect(await read(connection)).toBeTypeOf('number');
    await put(connection, { ...kept, tenant: b.id });
    expect(await read(connection)).toBe('TN001');
    await connection.query('rollback');

    await connection.query(writing);
    await put(connection, kept);
    expect(await read(connection)).toBe('TN001');
    await connection.query('rollback');
  });
});

it('holds in a parallel worker', async () => {
  const { a } = world.tenants.rls;
  await world.asLogin(a, async (connection) => {
    await connection.query(writing);
    await connection.query('call tenancy.admit($1)', [world.context(a)]);
    await connection.query("set local debug_parallel_query = 'on'");
    const { rows } = await connection.query('explain (costs off) select tenancy.current_tenant()');
    expect(JSON.stringify(rows)).toContain('Gather');
    const { rows: found } = await connection.query('select tenancy.current_tenant() as tenant');
    expect(found).toEqual([{ tenant: a.id }]);
    expect(await read(connection)).toBeTypeOf('number');
    await connection.query('rollback');
  });
});

it('of a reader opens nothing for writing, although a savepoint takes read-only back', async () => {
  const { a } = world.tenants.rls;
  await world.asLogin(a, async (connection) => {
    await connection.query(writing);
    await connection.query('savepoint before');
    await connection.query('call tenancy.admit($1)', [world.context(a, { mode: 'r' })]);
    const kept = await settings(connection);
    await connection.query('rollback to savepoint before');
    await put(connection, kept);
    expect(await read(connection)).toBe('TN001');
    await connection.query('rollback');
  });
});

it('cannot be made by a login, which reads no secret and calls nothing that does', async () => {
  const { a } = world.tenants.rls;
  await world.asLogin(a, async (connection) => {
    for (const attempt of [
      "select pg_sequence_last_value('tenancy.pass_secret_1')",
      'select last_value from tenancy.pass_secret_2',
      "select setval('tenancy.pass_secret_1', 1)",
      "select nextval('tenancy.pass_secret_2')",
      "select tenancy.pass('x')",
    ])
      await expect(connection.query(attempt), attempt).rejects.toMatchObject({ code: '42501' });
  });
});
