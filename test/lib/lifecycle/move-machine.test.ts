import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { countSteps, readSteps } from '../../../functions/lib/lifecycle/attempts.ts';
import { startWorld, type World } from '../../support/world.ts';
import {
  admitted,
  begin,
  homeOf,
  moveState,
  notes,
  operationState,
  runMove,
  startWriters,
  step,
  tenantWithNotes,
  untilSwitched,
  wish,
} from './move.support.ts';

/** The state machine's own file: what each answer and each failure of a step leads to. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const planned = (name: string) => Object.assign(new Error('planned'), { name });

it('moves, waits for its window to end, and completes', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 20);
  const writers = startWriters(world, tenant, 2);
  const operation = await begin(world, tenant.slug, 'schema', { windowSeconds: 1 });
  const { status } = await runMove(world, operation);
  await writers.stop();
  expect([status, writers.errors]).toEqual(['SUCCEEDED', []]);
  expect(await operationState(world, operation)).toMatchObject({ state: 'done' });
  expect(await moveState(world, operation)).toMatchObject({ phase: 'completed' });
  expect((await homeOf(world, tenant)).strategy).toBe('schema');
  const found = await notes(world, tenant);
  for (const key of writers.acknowledged) expect(found.get(key)).toBe(2);
});

it('reverses when the operator wants it, and repeats what failed for a moment', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 20);
  const operation = await begin(world, tenant.slug, 'database');
  const failed = new Set<string>();
  const { status } = await runMove(world, operation, async ({ step }) => {
    if (step === 'follow') await wish(world, operation, 'reverse');
    if (failed.has(step)) return;
    failed.add(step);
    throw planned('Unavailable');
  });
  expect(status).toBe('SUCCEEDED');
  expect(await moveState(world, operation)).toMatchObject({ phase: 'reversed' });
  expect(await homeOf(world, tenant)).toMatchObject({ homeId: tenant.home.homeId, epoch: 3 });
  expect((await notes(world, tenant)).size).toBe(20);
});

it('hears a reversal that was asked for between the look and the completion', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 20);
  const operation = await begin(world, tenant.slug, 'schema', { windowSeconds: 0 });
  let asked = false;
  const { status } = await runMove(world, operation, async ({ step }) => {
    if (step !== 'complete' || asked) return;
    asked = await wish(world, operation, 'reverse');
  });
  expect([status, asked]).toEqual(['SUCCEEDED', true]);
  expect(await moveState(world, operation)).toMatchObject({ phase: 'reversed' });
  expect((await homeOf(world, tenant)).homeId).toBe(tenant.home.homeId);
});

it.each(['prepare', 'capture', 'copy', 'land', 'switchOver'])(
  'takes everything back when %s fails for good',
  async (victim) => {
    const tenant = await tenantWithNotes(world, 'rls', 20);
    const operation = await begin(world, tenant.slug, 'schema');
    const { status } = await runMove(world, operation, ({ step }) => {
      if (step === victim) throw planned('Planned');
    });
    expect(status).toBe('FAILED');
    expect(await operationState(world, operation)).toMatchObject({
      state: 'failed',
      failedStep: victim,
      reason: 'planned',
    });
    expect(await admitted(world, tenant)).toEqual([
      expect.objectContaining({ home_id: tenant.home.homeId, state: 'open', capturing: false, busy: false }),
    ]);
  },
);

it('the operator’s cancellation ends it at the next step', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 20);
  const operation = await begin(world, tenant.slug, 'schema');
  const { status } = await runMove(world, operation, async ({ step }) => {
    if (step === 'land') await wish(world, operation, 'cancel');
  });
  // Nobody is woken by what was wanted.
  expect(status).toBe('SUCCEEDED');
  expect(await operationState(world, operation)).toMatchObject({
    state: 'cancelled',
    reason: 'The operator has cancelled this move.',
  });
});

it('goes on with a move that the catalog has decided for, whatever failed after that', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 20);
  const operation = await begin(world, tenant.slug, 'schema', { windowSeconds: 1 });
  await untilSwitched(world, operation);
  const failure = { Error: 'ExecutionEnded', Cause: '{"errorMessage":"planned"}' };
  const { status } = await runMove(world, operation, () => {}, { failedStep: 'switchOver', failure });
  expect(status).toBe('SUCCEEDED');
  expect(await operationState(world, operation)).toMatchObject({ state: 'done' });
  expect((await homeOf(world, tenant)).strategy).toBe('schema');
  await step(world, operation, 'complete');
});

it('waits for the operator for a week within one history, and tells the newest of its attempts', async () => {
  const { follow, reverse } = JSON.parse(
    readFileSync(new URL('../../../stepfunctions/move-tenant.asl.json', import.meta.url), 'utf8'),
  ).States as Record<string, { Retry: Retrier[] }>;
  const week = 7 * 24 * 3_600;
  // What is repeated within one entry of the state: its failure and the next attempt are three events.
  const { seconds, attempts } = repeated(
    follow!.Retry.find(({ ErrorEquals: [name] }) => name === 'States.ALL')!,
  );
  expect(seconds).toBeGreaterThan(week);
  expect(attempts * 3).toBeLessThan(25_000);
  // Around a reversal that does not succeed: a minute's wait, `follow` and the choice.
  const again = repeated(reverse!.Retry.find(({ ErrorEquals: [name] }) => name === 'States.ALL')!);
  expect((week / (again.seconds / 2)) * (again.attempts * 3 + 11)).toBeLessThan(25_000);

  const tenant = await tenantWithNotes(world, 'rls', 20);
  const operation = await begin(world, tenant.slug, 'schema', { windowSeconds: 0 });
  let failed = 0;
  const { status } = await runMove(world, operation, ({ step }) => {
    if (step === 'follow' && ++failed <= 12) throw planned(failed % 2 ? 'MoveDiffers' : 'Unavailable');
  });
  expect([status, failed]).toEqual(['SUCCEEDED', 13]);
  await world.asProvisioner('catalog', async (catalog) => {
    await catalog.query(
      `insert into catalog.operation_steps (operation_id, step, attempt, started_at)
       select $1, 'follow', 100 + n, now() + make_interval(mins => n) from generate_series(1, 300) n`,
      [operation],
    );
    const steps = await readSteps(catalog, operation);
    expect([steps.length, steps[0]!.attempt, steps.at(-1)!.attempt]).toEqual([100, 301, 400]);
    expect(await countSteps(catalog, operation)).toBeGreaterThan(300);
  });
});

interface Retrier {
  ErrorEquals: string[];
  IntervalSeconds: number;
  MaxAttempts: number;
  BackoffRate: number;
  MaxDelaySeconds: number;
}

/** How long a state that always fails is repeated, and how often within a week. */
function repeated({ IntervalSeconds, MaxAttempts, BackoffRate, MaxDelaySeconds }: Retrier) {
  let seconds = 0;
  let attempts = 1;
  for (; attempts <= MaxAttempts && seconds < 8 * 24 * 3_600; attempts += 1)
    seconds += Math.min(MaxDelaySeconds, IntervalSeconds * BackoffRate ** (attempts - 1));
  return { seconds, attempts };
}
