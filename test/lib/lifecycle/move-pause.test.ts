import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { resumeMove } from '../../../functions/lib/catalog/moves.ts';
import { openConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { heeding } from '../../../functions/lib/lifecycle/move-turn.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import {
  admitted,
  atHome,
  begin,
  homeOf,
  inventory,
  moveState,
  notes,
  operationState,
  runMove,
  type StepName,
  startWriters,
  step,
  tenantWithNotes,
  type Writers,
  wish,
} from './move.support.ts';

let world: World;
const running: Writers[] = [];
beforeAll(async () => {
  world = await startWorld();
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((writers) => writers.stop()));
});
afterAll(() => world?.close());

const goOn = (operation: string) =>
  world.asProvisioner('catalog', (catalog) => resumeMove(catalog, operation));
const isOpen = async (tenant: TestTenant) =>
  (await admitted(world, tenant)).find(({ home_id }) => home_id === tenant.home.homeId)!;

it.each(['prepare', 'capture', 'copy', 'land', 'switchOver'] as const)(
  'pauses before %s: its execution ends, agents go on, and the next execution moves the tenant',
  async (victim) => {
    const tenant = await tenantWithNotes(world, 'rls', 50);
    const writers = startWriters(world, tenant, 2);
    running.push(writers);
    const operation = await begin(world, tenant.slug, 'schema', { windowSeconds: 1 });
    const ran: string[] = [];
    const first = await runMove(world, operation, async (event) => {
      ran.push(event.step);
      if (event.step === victim) expect(await wish(world, operation, 'pause')).toBe(true);
    });
    expect(first.status).toBe('SUCCEEDED');
    expect(ran.at(-1)).toBe(victim);
    const paused = await moveState(world, operation);
    expect(paused).toMatchObject({ phase: 'moving', wanted: undefined, resumptions: 0 });
    expect(paused.pausedAt).toBeInstanceOf(Date);
    expect((await operationState(world, operation)).state).toBe('running');
    // Open, not fenced; what was captured so far goes on being captured.
    const isCapturing = !['prepare', 'capture'].includes(victim);
    expect(await isOpen(tenant)).toMatchObject({ state: 'open', capturing: isCapturing });
    const before = writers.acknowledged.size;
    await expect.poll(() => writers.acknowledged.size).toBeGreaterThan(before + 5);
    await expect(step(world, operation, victim)).rejects.toMatchObject({ name: 'MovePaused' });

    expect(await goOn(operation)).toBe(true);
    expect(await goOn(operation)).toBe(false);
    expect(await moveState(world, operation)).toMatchObject({ pausedAt: undefined, resumptions: 1 });
    const { status } = await runMove(world, operation);
    await writers.stop();
    expect([status, writers.errors]).toEqual(['SUCCEEDED', []]);
    const found = await notes(world, tenant);
    for (const key of writers.acknowledged) expect(found.get(key)).toBe(2);
    expect((await homeOf(world, tenant)).strategy).toBe('schema');
  },
);

it('a wish for a pause that is withdrawn before a step has seen it costs no execution', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 5);
  const operation = await begin(world, tenant.slug, 'schema', { windowSeconds: 1 });
  const { status } = await runMove(world, operation, async ({ step }) => {
    if (step !== 'copy') return;
    await wish(world, operation, 'pause');
    expect(await goOn(operation)).toBe(true);
  });
  expect(status).toBe('SUCCEEDED');
  expect(await moveState(world, operation)).toMatchObject({ phase: 'completed', resumptions: 0 });
});

it.each(['pause', 'cancel'] as const)(
  '%s that comes while the last writers are waited for holds: the switch does not pass over it',
  async (wanted) => {
    const tenant = await tenantWithNotes(world, 'rls', 5);
    const operation = await begin(world, tenant.slug, 'schema');
    for (const name of ['prepare', 'capture', 'copy', 'land'] as StepName[])
      await step(world, operation, name);
    await atHome(world, tenant, async (writer) => {
      await writer.query(
        `begin; set local role tenancy_keeper; select pg_advisory_xact_lock_shared(lock_key) from tenancy.homes where home_id = '${tenant.home.homeId}'`,
      );
      const switching = step(world, operation, 'switchOver').catch((error: unknown) => error);
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(await wish(world, operation, wanted)).toBe(true);
      await writer.query('commit');
      expect(await switching).toMatchObject({ name: wanted === 'pause' ? 'MovePaused' : 'MoveCancelled' });
    });
    expect(await isOpen(tenant)).toMatchObject({ state: 'open' });
    expect((await homeOf(world, tenant)).homeId).toBe(tenant.home.homeId);
    await world.database(tenant).query(sql`insert into notes (body) values ('after')`);
    if (wanted === 'pause') await goOn(operation);
    await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    expect((await notes(world, tenant)).size).toBe(6);
  },
);

it.each(['pause', 'cancel'] as const)(
  '%s that comes while both homes are compared ends the comparison',
  async (wanted) => {
    const tenant = await tenantWithNotes(world, 'schema', 5);
    const operation = await begin(world, tenant.slug, 'rls');
    for (const name of ['prepare', 'capture', 'copy', 'land'] as StepName[])
      await step(world, operation, name);
    /** Nobody reads the table before `release`. */
    const lock = async (table: string) => {
      const { connection, close } = await openConnection(world.superuser('tenantry'));
      await connection.query(`begin; lock table ${table}`);
      return {
        isWaitedFor: () =>
          expect
            .poll(async () => {
              const { rows } = await connection.query(
                "select from pg_locks where not granted and relation = to_regclass($1) and locktype = 'relation'",
                [table],
              );
              return rows.length;
            })
            .toBe(1),
        release: close,
      };
    };
    const [source, target] = [await lock(`${tenant.home.schema}.items`), await lock('shared.items')];
    const switching = step(world, operation, 'switchOver').catch((error: unknown) => error);
    await source.isWaitedFor();
    expect(await wish(world, operation, wanted)).toBe(true);
    await source.release();
    // Without ever looking at the other home.
    const seen = await Promise.race([switching, target.isWaitedFor()]);
    await target.release();
    await switching;
    expect(seen).toMatchObject({ name: wanted === 'pause' ? 'MovePaused' : 'MoveCancelled' });
    expect(await isOpen(tenant)).toMatchObject({ state: 'open' });
    if (wanted === 'pause') {
      await goOn(operation);
      await step(world, operation, 'switchOver');
      expect((await homeOf(world, tenant)).strategy).toBe('rls');
    } else await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    expect((await notes(world, tenant)).size).toBe(5);
  },
);

it('a paused move can be cancelled, and leaves nothing; after the switch nothing is paused', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 5);
  const before = await inventory(world);
  const operation = await begin(world, tenant.slug, 'database');
  await runMove(world, operation, async ({ step }) => {
    if (step === 'land') await wish(world, operation, 'pause');
  });
  expect(await wish(world, operation, 'cancel')).toBe(true);
  expect(await wish(world, operation, 'pause')).toBe(false);
  expect(await goOn(operation)).toBe(false);
  expect(await moveState(world, operation)).toMatchObject({ pausedAt: undefined, resumptions: 1 });
  const { status } = await runMove(world, operation);
  expect(status).toBe('SUCCEEDED');
  expect((await operationState(world, operation)).reason).toBe('The operator has cancelled this move.');
  expect(await inventory(world)).toEqual(before);

  const second = await begin(world, tenant.slug, 'schema', { windowSeconds: 1 });
  await runMove(world, second, async ({ step }) => {
    if (step === 'follow') expect(await wish(world, second, 'pause')).toBe(false);
  });
  expect((await moveState(world, second)).phase).toBe('completed');
});

it('long work learns what the operator wants while it is at it', async () => {
  const tenant = await tenantWithNotes(world, 'rls', 5);
  const operation = await begin(world, tenant.slug, 'schema');
  const heeded = world.asProvisioner('catalog', (catalog) =>
    heeding(catalog, operation, async (isWanted) => {
      expect(isWanted()).toBe(false);
      await wish(world, operation, 'pause');
      while (!isWanted()) await new Promise((resolve) => setTimeout(resolve, 20));
      return 'ended';
    }),
  );
  expect(await heeded).toBe('ended');
  await step(world, operation, 'cancel', { failedStep: 'begin' });
});
