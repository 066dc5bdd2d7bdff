import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { resume, suspend } from '../../../functions/lib/lifecycle/suspend.ts';
import type { Placement, Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { type Leaving, startLeaving, steps } from './leaving.ts';

/** Every step of the state machine against every fault, over every way in which a tenant can live. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

const kinds: [Strategy, Placement][] = [
  ['rls', 'dedicated'],
  ['schema', 'dedicated'],
  ['database', 'shared-cluster'],
  ['database', 'dedicated'],
];

describe.each(kinds)('%s, %s', (strategy, placement) => {
  it('leaves nothing when every step runs twice, twice at once, and again after the end', async () => {
    const before = await leaving.everything();
    const { tenant, slug } = await leaving.tenantOf(strategy, placement);
    const operation = await leaving.begin(tenant, slug);
    for (const step of steps) {
      await Promise.all([leaving.run(operation, step), leaving.run(operation, step)]);
      await leaving.run(operation, step);
    }
    for (const step of steps) await leaving.run(operation, step);
    expect(await leaving.everything()).toEqual(before);
    const told = await leaving.read(operation);
    expect(told.state).toBe('done');
    expect(told.result).toMatchObject({ left: [], checked: { catalog: 3, 'rows in': 10 } });
    expect(await leaving.statusOf(tenant)).toBe('offboarded');
    await expect(leaving.databaseOf(tenant)).rejects.toMatchObject({ code: 'tenant_not_served' });
  });

  it.each(steps)(
    'stays closed when %s fails, and the next offboarding goes on to the end',
    async (failing) => {
      const before = await leaving.everything();
      const { tenant, slug } = await leaving.tenantOf(strategy, placement);
      const first = await leaving.begin(tenant, slug);
      // The last step's own end is the operation's end: it fails before that.
      for (const step of steps.slice(0, steps.indexOf(failing) + 1))
        if (step !== 'check') await leaving.run(first, step);
      await Promise.all([leaving.fail(first, failing), leaving.fail(first, failing)]);
      expect(await leaving.read(first)).toMatchObject({
        state: 'failed',
        failedStep: failing,
        reason: 'planned',
      });
      expect(['offboarding', 'offboarded']).toContain(await leaving.statusOf(tenant));
      await expect(leaving.databaseOf(tenant)).rejects.toThrow();
      await expect(leaving.run(first, 'removeHome')).rejects.toMatchObject({ name: 'OperationEnded' });

      const second = await leaving.begin(tenant, slug);
      for (const step of steps) await leaving.run(second, step);
      expect((await leaving.read(second)).state).toBe('done');
      expect(await leaving.everything()).toEqual(before);
    },
  );

  it.each(steps)('survives losing its connections in the middle of %s', async (struck) => {
    const before = await leaving.everything();
    const { tenant, slug } = await leaving.tenantOf(strategy, placement);
    const operation = await leaving.begin(tenant, slug);
    for (const step of steps) {
      if (step === struck) {
        // From before its first statement to after its last.
        for (const delay of [0, 8, 16, 32, 64]) {
          const attempt = leaving.runOnce(operation, step).catch(() => 'cut');
          await new Promise((resolve) => setTimeout(resolve, delay));
          await leaving.lifecycle.cutProvisioner();
          await attempt;
        }
      }
      await leaving.run(operation, step);
    }
    expect((await leaving.read(operation)).state).toBe('done');
    expect(await leaving.everything()).toEqual(before);
  });

  it('is undone by `resume` in its grace period, and by nothing afterwards', async () => {
    const { tenant, slug } = await leaving.tenantOf(strategy, placement);
    const warm = await leaving.databaseOf(tenant);
    const first = await leaving.begin(tenant, slug, { graceSeconds: 60 });
    await leaving.run(first, 'suspend');
    // A warm environment with its old route: the home itself refuses.
    await expect(warm.query('select 1')).rejects.toMatchObject({ code: 'tenant_suspended' });
    await expect(leaving.databaseOf(tenant)).rejects.toMatchObject({ code: 'tenant_suspended' });
    expect(await resume(leaving.world.plane, tenant)).toBe('done');
    expect(await leaving.lifecycle.answers(tenant)).toBe(3);
    expect(await leaving.read(first)).toMatchObject({
      state: 'cancelled',
      reason: expect.stringContaining('resumed'),
    });
    for (const step of ['suspend', 'beginRemoval', 'removeHome', 'check'])
      await expect(leaving.run(first, step)).rejects.toMatchObject({ name: 'OperationCancelled' });
    expect(await leaving.lifecycle.answers(tenant)).toBe(4);

    const second = await leaving.begin(tenant, slug);
    await leaving.run(second, 'suspend');
    await leaving.run(second, 'beginRemoval');
    await expect(resume(leaving.world.plane, tenant)).rejects.toMatchObject({ code: 'wrong_status' });
    await expect(suspend(leaving.world.plane, tenant)).rejects.toMatchObject({ code: 'wrong_status' });
    for (const step of steps) await leaving.run(second, step);
    expect(await leaving.statusOf(tenant)).toBe('offboarded');
  });

  it('waits for a call that is writing, and removes what that wrote', async () => {
    const before = await leaving.everything();
    const { tenant, slug } = await leaving.tenantOf(strategy, placement);
    const db = await leaving.databaseOf(tenant);
    const writing = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const call = db.transaction(async (tx) => {
      await tx.query(sql`insert into notes (body) values ('late')`);
      writing.resolve();
      await release.promise;
      await tx.query(sql`insert into notes (body) values ('later')`);
    });
    await writing.promise;
    const operation = await leaving.begin(tenant, slug);
    let isShut = false;
    const shut = leaving.run(operation, 'suspend').then(() => {
      isShut = true;
    });
    // The home is closed to everybody else meanwhile.
    await expect
      .poll(() =>
        db.query('select 1').then(
          () => 'open',
          (error) => error.code,
        ),
      )
      .toBe('tenant_suspended');
    expect(isShut).toBe(false);
    release.resolve();
    await call;
    await shut;
    for (const step of steps) await leaving.run(operation, step);
    expect(await leaving.everything()).toEqual(before);
  });
});
