import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findHome } from '../../../functions/lib/catalog/tenants.ts';
import { withSides } from '../../../functions/lib/lifecycle/move-sides.ts';
import { capture, fence, setState } from '../../../functions/lib/move/hold.ts';
import { writing } from '../../../functions/lib/move/side.ts';
import { landing } from '../../../functions/lib/move/staging.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import {
  admitted,
  begin,
  homeOf,
  inventory,
  moverOf,
  moveState,
  notes,
  operationState,
  type StepName,
  startWriters,
  step,
  tenantWithNotes,
  untilSwitched,
  type Writers,
  wish,
} from './move.support.ts';
import { cutProvisioner } from './support.ts';

/** Every step of a move against every fault: run twice, twice at once, its backends killed, given up, and too late. */
let world: World;
const running: Writers[] = [];
beforeAll(async () => {
  world = await startWorld();
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((writers) => writers.stop()));
});
afterAll(() => world?.close());

const directions: [Strategy, Strategy][] = [
  ['rls', 'schema'],
  ['schema', 'rls'],
  ['schema', 'database'],
];
const steps = ['prepare', 'capture', 'copy', 'land', 'switchOver'] as const;

const writersOf = (tenant: TestTenant): Writers => {
  const writers = startWriters(world, tenant, 2);
  running.push(writers);
  return writers;
};

/** What an agent was told is there is there, once; and one home is open, which is the catalog's. */
async function expectWhole(tenant: TestTenant, writers: Writers, count = 200): Promise<void> {
  await writers.stop();
  const found = await notes(world, tenant);
  for (const key of writers.acknowledged) expect(found.get(key)).toBe(2);
  expect([...found].filter(([, amount]) => amount === 7)).toHaveLength(count);
  const { homeId } = await homeOf(world, tenant);
  const open = (await admitted(world, tenant)).filter(({ state }) => state === 'open');
  expect(open.map(({ home_id }) => home_id)).toEqual([homeId]);
}

const nameOf = (error: unknown) => (error as Error).name;

describe.each(directions)('from %s to %s', (from, to) => {
  it('every step twice, twice at once, and after the end', async () => {
    const tenant = await tenantWithNotes(world, from, 200, 7);
    const writers = writersOf(tenant);
    const operation = await begin(world, tenant.slug, to);
    const twice = async (name: StepName) => {
      await Promise.all([step(world, operation, name), step(world, operation, name)]);
      return step(world, operation, name);
    };
    await untilSwitched(world, operation, (name) => twice(name));
    await twice('follow');
    await twice('complete');
    // Each with all that the machine reads of an answer: one that comes too late must not fail its execution.
    for (const name of [...steps, 'follow', 'cancel', 'complete'] as const)
      expect(await step(world, operation, name)).toEqual({
        more: false,
        instance: false,
        switched: true,
        cancelled: false,
        next: 'complete',
      });
    await expectWhole(tenant, writers);
    expect(await operationState(world, operation)).toMatchObject({ state: 'done' });
  });

  it.each(steps)('its backends are killed in %s, again and again: it goes on', async (victim) => {
    const tenant = await tenantWithNotes(world, from, 200, 7);
    const writers = writersOf(tenant);
    const operation = await begin(world, tenant.slug, to);
    let delay = 2;
    await untilSwitched(world, operation, async (name, run) => {
      for (;;) {
        const kill =
          name === victim && delay < 400
            ? new Promise((resolve) => setTimeout(resolve, delay)).then(() => cutProvisioner(world))
            : undefined;
        delay *= 1.7;
        try {
          return await run();
        } catch (error) {
          expect(['Unavailable', 'Busy', 'OperationEnded']).toContain(nameOf(error));
        } finally {
          await kill;
        }
      }
    });
    for (;;)
      try {
        await step(world, operation, 'complete');
        break;
      } catch (error) {
        expect(nameOf(error)).toBe('Unavailable');
      }
    await expectWhole(tenant, writers);
    expect((await homeOf(world, tenant)).strategy).toBe(to);
  });

  it.each(steps.slice(0, 4))('given up after %s: the tenant stays, and nothing is left', async (last) => {
    const tenant = await tenantWithNotes(world, from, 200, 7);
    const before = await inventory(world);
    const writers = writersOf(tenant);
    const operation = await begin(world, tenant.slug, to);
    for (const name of steps.slice(0, steps.indexOf(last) + 1)) await step(world, operation, name);
    const failure = { Error: 'Planned', Cause: '{"errorMessage":"planned"}' };
    const cancel = () => step(world, operation, 'cancel', { failedStep: last, failure });
    await Promise.all([cancel(), cancel()]);
    await cancel();
    await expectWhole(tenant, writers);
    expect(await inventory(world)).toEqual(before);
    expect(await operationState(world, operation)).toMatchObject({
      state: 'failed',
      failedStep: last,
      reason: 'planned',
    });
    expect((await homeOf(world, tenant)).strategy).toBe(from);
  });

  it('after the switch it cannot be given up, but reversed, with all that was written since', async () => {
    const tenant = await tenantWithNotes(world, from, 200, 7);
    const before = (await inventory(world)).length;
    const writers = writersOf(tenant);
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation);
    expect(await step(world, operation, 'cancel')).toEqual({
      more: false,
      instance: false,
      switched: true,
      cancelled: false,
    });
    expect(await step(world, operation, 'follow')).toEqual({ next: 'wait' });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await wish(world, operation, 'cancel')).toBe(false);
    expect(await wish(world, operation, 'reverse')).toBe(true);
    expect(await step(world, operation, 'follow')).toEqual({ next: 'reverse' });
    await step(world, operation, 'reverse');
    await step(world, operation, 'complete');
    await expectWhole(tenant, writers);
    expect(writers.errors).toEqual([]);
    expect(await homeOf(world, tenant)).toMatchObject({
      strategy: from,
      homeId: tenant.home.homeId,
      epoch: 3,
    });
    expect((await inventory(world)).length).toBe(before);
  });

  it('a row changed in the target before the comparison is named, and the tenant stays', async () => {
    const tenant = await tenantWithNotes(world, from, 200, 7);
    const writers = writersOf(tenant);
    const operation = await begin(world, tenant.slug, to);
    for (const name of steps.slice(0, 4)) await step(world, operation, name);
    const { targetHome } = await moveState(world, operation);
    const target = (await world.asProvisioner('catalog', (catalog) => findHome(catalog, targetHome)))!;
    const source = await homeOf(world, tenant);
    const changed = await withSides(
      moverOf(world),
      { operationId: operation },
      { source, target },
      async ({ target }) =>
        writing(target, landing, async () => {
          const { rows } = await target.connection.query(
            `update notes set amount = 8 where body = 'first 17' and tenant_id = '${tenant.id}' returning note_id`,
            [],
          );
          return rows[0]!.note_id as string;
        }),
    );
    await expect(step(world, operation, 'switchOver')).rejects.toMatchObject({
      code: 'move_differs',
      message: expect.not.stringContaining(changed),
    });
    expect((await moveState(world, operation)).differs).toContain(changed);
    await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    await expectWhole(tenant, writers);
    expect(writers.errors).toEqual([]);
  });

  it('a mover that was thought dead changes nothing in either home', async () => {
    const tenant = await tenantWithNotes(world, from, 20, 7);
    const operation = await begin(world, tenant.slug, to);
    await step(world, operation, 'prepare');
    const { targetHome } = await moveState(world, operation);
    const target = (await world.asProvisioner('catalog', (catalog) => findHome(catalog, targetHome)))!;
    const source = await homeOf(world, tenant);
    await withSides(moverOf(world), { operationId: operation }, { source, target }, async (late) => {
      await step(world, operation, 'capture');
      const before = await admitted(world, tenant);
      const ended = { code: 'operation_ended' };
      await expect(fence(late.source)).rejects.toMatchObject(ended);
      await expect(capture(late.source)).rejects.toMatchObject(ended);
      await expect(setState(late.source, ['open'], 'moved', { capturing: false })).rejects.toMatchObject(
        ended,
      );
      await expect(
        setState(late.target, ['provisioning'], 'open', { capturing: true }),
      ).rejects.toMatchObject(ended);
      await expect(writing(late.target, landing, async () => {})).rejects.toMatchObject(ended);
      expect(await admitted(world, tenant)).toEqual(before);
    });
    await step(world, operation, 'cancel', { failedStep: 'capture' });
  });
});
