import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { auditOperations } from '../../functions/lib/health/upkeep.ts';
import { type Batcher, batchSteps } from '../../functions/lib/lifecycle/move-batch.ts';
import { endOperation, readOperation } from '../../functions/lib/lifecycle/operations.ts';
import { runStep, type StepEvent } from '../../functions/lib/lifecycle/step.ts';
import { suspend } from '../../functions/lib/lifecycle/suspend.ts';
import type { Tier } from '../../functions/lib/tenant/tenant.ts';
import { FunctionError } from '../../infra/local/lambda/environment.ts';
import { homeOf, runMove } from '../lib/lifecycle/move.support.ts';
import { runProductMachine } from '../support/machine.ts';
import type { TestTenant } from '../support/world.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

/** Moves of a tier: the machine's own file, over moves that really run. */
let it_: AdminWorld;
let number = 0;
/** Moves under way, and how many there were at once. */
let under: Map<string, Promise<unknown>>;
let most: number;
/** How often the machine has called its function. */
let answers: number;
let onMove: (operation: string) => Promise<void> | void;

beforeAll(async () => {
  it_ = await startAdmin();
});
afterAll(() => it_?.world.close());
beforeEach(() => {
  under = new Map();
  most = 0;
  answers = 0;
  onMove = () => {};
});

const ask: AdminWorld['ask'] = (...request) => it_.ask(...request);
const catalog = <T>(text: string, values: unknown[] = []) =>
  it_.world.asProvisioner(
    'catalog',
    async (connection) => (await connection.query(text, values)).rows as T[],
  );

/** Each test has a tier to itself: the others' tenants are of another one. */
async function tenants(count: number, tier: Tier = 'starter'): Promise<TestTenant[]> {
  await catalog("update catalog.tenants set tier = 'enterprise' where tier = $1", [tier]);
  const made: TestTenant[] = [];
  for (let n = 0; n < count; n += 1) made.push(await it_.world.addTenant('rls', `batch-n${++number}`));
  await catalog('update catalog.tenants set tier = $1 where tenant_id = any ($2)', [
    tier,
    made.map(({ id }) => id),
  ]);
  return made;
}

/** @param hasty its turn is over when it has looked once */
function batcher(hasty = false): Batcher {
  let now = Date.now;
  const clock = () => {
    const at = now();
    if (hasty) now = () => Date.now() + 6 * 60_000;
    return at;
  };
  return { plane: it_.world.plane, clock, startMove };
}

async function startMove(operation: string, input: object): Promise<void> {
  if (under.has(operation)) return;
  expect(input).toEqual({ operation, input: { placement: 'shared' } });
  const run = (async () => onMove(operation))().then(() => runMove(it_.world, operation));
  under.set(operation, run);
  const running = await catalog<{ n: number }>(
    "select count(*)::integer as n from catalog.moves m join catalog.operations o using (operation_id) where o.state = 'running' and m.phase = 'moving'",
  );
  most = Math.max(most, running[0]!.n);
}

const step = (operation: string, name: string, input: Record<string, unknown> = {}) =>
  runStep(batcher(true), { operation, step: name, input }, ['batch'], batchSteps);

async function run(operation: string, signal = new AbortController().signal, more: object = {}) {
  const outcome = await runProductMachine('batch-moves', {
    input: { operation, ...more },
    clockFactor: 0.01,
    signal,
    async invoke(_, payload) {
      const { step: name, input } = payload as StepEvent;
      try {
        answers += 1;
        return await runStep(batcher(), { operation, step: name, input }, ['batch'], batchSteps);
      } catch (error) {
        throw new FunctionError((error as Error).name, (error as Error).message);
      }
    },
  });
  await Promise.all(under.values());
  return outcome.status;
}

const request = { tier: 'starter', to: 'schema', windowSeconds: 0 };
const began = async (more: object = {}) => (await ask('POST', '/moves', { ...request, ...more })).body;
const stateOf = (body: { tenants: { tenant: string; state: string }[] }, { slug }: TestTenant) =>
  body.tenants.find(({ tenant }) => tenant === slug)?.state;

describe('a batch of moves', () => {
  it('moves every tenant of the tier, no more at once than it shall, and tells how it went', async () => {
    const all = await tenants(5);
    const plan = await ask('POST', '/moves/plan', request);
    expect(plan.body).toEqual({
      tier: 'starter',
      to: 'schema',
      concurrency: 2,
      tenants: all.map(({ slug }) => ({ tenant: slug, blocks: [] })),
    });
    const begun = await ask('POST', '/moves', request, { 'Idempotency-Key': 'tier-1' });
    expect([begun.status, begun.body.counts]).toEqual([
      202,
      { waiting: 5, moving: 0, moved: 0, failed: 0, skipped: 0 },
    ]);
    const { id } = begun.body.operation;
    expect((await ask('POST', '/moves', request, { 'Idempotency-Key': 'tier-1' })).body.operation.id).toBe(
      id,
    );
    expect(
      code(await ask('POST', '/moves', { ...request, concurrency: 1 }, { 'Idempotency-Key': 'tier-1' })),
    ).toEqual([409, 'idempotency_conflict']);
    expect(code(await ask('POST', '/moves', request))).toEqual([409, 'operation_running']);
    expect(it_.started.at(-1)).toEqual({
      machine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:batch-moves',
      name: id,
      input: { operation: id },
    });
    expect(await run(id)).toBe('SUCCEEDED');
    expect(most).toBe(2);
    // The next begins when one has switched, and not with the machine's next turn.
    expect(answers).toBe(1);
    expect(under.size).toBe(5);
    const { body } = await ask('GET', '/moves/latest');
    expect(body).toMatchObject({
      operation: { id, state: 'done' },
      counts: { waiting: 0, moving: 0, moved: 5, failed: 0, skipped: 0 },
    });
    for (const { pauseMs, rows } of body.tenants) expect([pauseMs > 0, rows]).toEqual([true, 0]);
    for (const tenant of all) expect((await homeOf(it_.world, tenant)).strategy).toBe('schema');
    // Who is there already is not moved again.
    expect(code(await ask('POST', '/moves', request))).toEqual([409, 'move_refused']);
    expect(code(await ask('POST', '/moves/halt', {}))).toEqual([409, 'wrong_status']);
    expect(code(await ask('POST', '/moves', { ...request, concurrency: 9 }))).toEqual([
      400,
      'invalid_request',
    ]);
  });

  it('goes on when its execution dies between two tenants, and begins none twice', async () => {
    await tenants(4);
    const { operation } = await began();
    await Promise.all([step(operation.id, 'advance'), step(operation.id, 'advance')]);
    expect(under.size).toBe(2);
    // The move was begun and its start lost: the next attempt starts the same one.
    const dying = runStep(
      { ...batcher(), startMove: () => Promise.reject(new Error('died')) },
      { operation: operation.id, step: 'advance', input: {} },
      ['batch'],
      batchSteps,
    ).catch(() => {});
    await Promise.all(under.values());
    await dying;
    await runStep(
      { ...batcher(), startMove: () => Promise.reject(new Error('died')) },
      { operation: operation.id, step: 'advance', input: {} },
      ['batch'],
      batchSteps,
    ).catch(() => {});
    expect(await run(operation.id)).toBe('SUCCEEDED');
    const moves = await catalog<{ n: number }>(
      "select count(*)::integer as n from catalog.operations where idempotency_key like 'batch-' || $1 || '%'",
      [operation.id],
    );
    expect(moves[0]!.n).toBe(4);
    expect((await ask('GET', `/moves/${operation.id}`)).body.counts.moved).toBe(4);
  });

  it('one tenant’s failure stops only that tenant; who is suspended is passed over', async () => {
    const [suspended, cancelled, busy, ...others] = await tenants(5);
    await suspend(it_.world.plane, suspended!.id);
    const foreign = crypto.randomUUID();
    await catalog(
      "insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest) values ($1, 'export', $2, '{}', 'x')",
      [foreign, busy!.id],
    );
    onMove = async (operation) => {
      const [row] = await catalog<{ slug: string }>(
        "select input ->> 'slug' as slug from catalog.operations where operation_id = $1",
        [operation],
      );
      if (row!.slug === cancelled!.slug) await ask('POST', `/tenants/${cancelled!.slug}/move/cancel`, {});
    };
    const { operation } = await began();
    expect(await run(operation.id)).toBe('SUCCEEDED');
    const { body } = await ask('GET', `/moves/${operation.id}`);
    expect(body.operation).toMatchObject({
      state: 'failed',
      reason: `3 of 5 tenants were not moved: npm run tenants -- move batch ${operation.id}`,
    });
    expect([suspended!, cancelled!, busy!, ...others].map((tenant) => stateOf(body, tenant))).toEqual([
      'skipped',
      'failed',
      'failed',
      'moved',
      'moved',
    ]);
    const reasons = Object.fromEntries(
      body.tenants.map(({ tenant, reason }: { tenant: string; reason: string }) => [tenant, reason]),
    );
    expect(reasons[suspended!.slug]).toBe('It is suspended.');
    expect(reasons[cancelled!.slug]).toBe('The operator has cancelled this move.');
    expect(reasons[busy!.slug]).toContain('Another operation is changing this tenant');
    await it_.world.asProvisioner('catalog', (connection) =>
      endOperation(connection, foreign, { state: 'done' }),
    );
  });

  it('stops at the first failure when it is told to, or when an operator halts it; what was begun goes on', async () => {
    const [first, ...rest] = await tenants(3);
    onMove = async () => void (await ask('POST', `/tenants/${first!.slug}/move/cancel`, {}));
    const stopping = await began({ concurrency: 1, stopOnFailure: true });
    await run(stopping.operation.id);
    const stopped = (await ask('GET', '/moves/latest')).body;
    expect(stopped.counts).toMatchObject({ failed: 1, skipped: 2, moved: 0 });
    expect(stopped.tenants.at(-1).reason).toBe('The batch stops at its first failure.');

    onMove = async () => void (await ask('POST', '/moves/halt', {}));
    const failures = () => it_.world.asProvisioner('catalog', auditOperations);
    const failedBefore = (await failures()).failed;
    const halted = await began({ concurrency: 1 });
    expect(await run(halted.operation.id)).toBe('SUCCEEDED');
    const { body } = await ask('GET', '/moves/latest');
    expect(body.operation).toMatchObject({
      state: 'cancelled',
      failedStep: null,
      reason: `An operator has halted the batch. 2 of 3 tenants were not moved: npm run tenants -- move batch ${halted.operation.id}`,
    });
    // The one that stopped at a failure counted until then.
    expect((await failures()).failed).toBe(failedBefore - 1);
    expect(body.counts).toMatchObject({ moved: 1, skipped: 2 });
    expect(body.tenants.map(({ reason }: { reason: string | null }) => reason)).toContain(
      'An operator has halted the batch.',
    );
    expect(rest.map((tenant) => stateOf(body, tenant))).toEqual(['skipped', 'skipped']);
    // Its last answer was lost, or another execution comes late: both find that nothing is left to do.
    expect(await run(halted.operation.id)).toBe('SUCCEEDED');
    const failure = { Error: 'ExecutionEnded', Cause: '{"errorMessage":"planned"}' };
    expect(await step(halted.operation.id, 'giveUp', { failedStep: 'advance', failure })).toMatchObject({
      cancelled: true,
    });
  });

  it('is cancelled, not failed, when it was halted and then its machine ended', async () => {
    await tenants(2);
    const { operation } = await began({ concurrency: 1 });
    await ask('POST', '/moves/halt', {});
    const failure = { Error: 'ExecutionEnded', Cause: '{"errorMessage":"planned"}' };
    await run(operation.id, undefined, { failedStep: 'advance', failure });
    expect((await ask('GET', '/moves/latest')).body.operation.state).toBe('cancelled');
  });

  it('waits for a migration run, and is given up with what it has when its machine ends', async () => {
    await tenants(2);
    const { operation } = await began();
    const [migration] = await catalog<{ id: string }>(
      "insert into catalog.operations (operation_id, kind, input, request_digest) values (gen_random_uuid(), 'migrate', '{}', 'x') returning operation_id as id",
    );
    expect(await step(operation.id, 'advance')).toEqual({ more: true, seconds: 10 });
    expect(under.size).toBe(0);
    expect((await ask('GET', '/moves/latest')).body.counts.waiting).toBe(2);
    await it_.world.asProvisioner('catalog', (connection) =>
      endOperation(connection, migration!.id, { state: 'done' }),
    );
    const failure = { Error: 'ExecutionEnded', Cause: '{"errorMessage":"planned"}' };
    expect(await run(operation.id, undefined, { failedStep: 'advance', failure })).toBe('FAILED');
    const ended = await it_.world.asProvisioner('catalog', (connection) =>
      readOperation(connection, operation.id),
    );
    expect(ended).toMatchObject({ state: 'failed', failedStep: 'advance', reason: 'planned' });
    expect((await ask('GET', '/moves/latest')).body.counts.skipped).toBe(2);
  });
});
