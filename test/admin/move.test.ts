import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { homeOf, notes, runMove } from '../lib/lifecycle/move.support.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

let it_: AdminWorld;
beforeAll(async () => {
  it_ = await startAdmin();
}, 120_000);
afterAll(() => it_?.world.close());

const ask: AdminWorld['ask'] = (...request) => it_.ask(...request);

describe('moves over the admin API', () => {
  it('plans: what it would carry, and what is in its way', async () => {
    const { a } = it_.world.tenants.rls;
    await it_.world.database(a).query(`insert into notes (body) values ('one'), ('two')`);
    const plan = await ask('POST', '/tenants/rls-a/move/plan', { to: 'schema' });
    expect(plan.status).toBe(200);
    expect(plan.body).toMatchObject({ from: 'rls', to: 'schema', blocks: [], pauseMs: null });
    const of = plan.body.tables.find(({ table }: { table: string }) => table === 'notes');
    expect(of.rows).toBe(2);
    expect(of.bytes).toBeGreaterThan(50);
    const nothing = await ask('POST', '/tenants/rls-a/move/plan', { to: 'rls' });
    expect(nothing.body.blocks).toEqual(['rls-a is kept apart by rls already.']);
    expect(code(await ask('GET', '/tenants/rls-a/move'))).toEqual([404, 'unknown_operation']);
  });

  it('refuses what cannot be', async () => {
    expect(code(await ask('POST', '/tenants/nobody-here/move', { to: 'rls' }))).toEqual([
      404,
      'unknown_tenant',
    ]);
    expect(code(await ask('POST', '/tenants/rls-a/move', { to: 'cloud' }))).toEqual([400, 'invalid_request']);
    expect(code(await ask('POST', '/tenants/rls-a/move', { to: 'rls' }))).toEqual([409, 'move_refused']);
    expect(code(await ask('POST', '/tenants/rls-a/move/reverse', {}))).toEqual([404, 'unknown_operation']);
  });

  it('begins once for one key, is switched, reversed on request, and tells how it stands', async () => {
    const { a } = it_.world.tenants.rls;
    const begun = await ask('POST', '/tenants/rls-a/move', { to: 'schema' }, { 'Idempotency-Key': 'move-1' });
    expect([begun.status, begun.body.phase]).toEqual([202, 'moving']);
    const { id } = begun.body.operation;
    const again = await ask('POST', '/tenants/rls-a/move', { to: 'schema' }, { 'Idempotency-Key': 'move-1' });
    expect(again.body.operation.id).toBe(id);
    expect(it_.started.at(-1)).toEqual({
      machine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:move-tenant',
      name: id,
      input: { operation: id },
    });
    expect(code(await ask('POST', '/tenants/rls-a/move', { to: 'database' }))).toEqual([
      409,
      'operation_running',
    ]);
    expect(code(await ask('POST', '/tenants/rls-a/move/reverse', {}))).toEqual([409, 'wrong_status']);
    const seen: unknown[] = [];
    const { status } = await runMove(it_.world, id, async ({ step }) => {
      if (step !== 'follow') return;
      expect(code(await ask('POST', '/tenants/rls-a/move/cancel', {}))).toEqual([409, 'wrong_status']);
      seen.push((await ask('POST', '/tenants/rls-a/move/reverse', {})).body);
    });
    expect(status).toBe('SUCCEEDED');
    expect(seen[0]).toMatchObject({
      phase: 'switched',
      wanted: 'reverse',
      from: 'rls',
      to: 'schema',
      rows: { notes: 2 },
    });
    const ended = await ask('GET', '/tenants/rls-a/move');
    expect(ended.body).toMatchObject({ phase: 'reversed', windowEndsAt: null, operation: { state: 'done' } });
    expect(ended.body.pauseMs).toBeGreaterThan(0);
    expect((await homeOf(it_.world, a)).strategy).toBe('rls');
    expect((await notes(it_.world, a)).size).toBe(2);
    expect(code(await ask('POST', '/tenants/rls-a/move/complete', {}))).toEqual([409, 'wrong_status']);
  });
});
