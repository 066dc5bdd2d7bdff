import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { runOnce, startWatching, told } from './support.ts';

/** What keeps the watch from looking is a moment's trouble in one run, and a doubt in the third. */
let world: World;
let watch: Watch;
beforeAll(async () => {
  world = await startWorld();
  watch = await startWatching(world);
}, 120_000);
afterAll(() => world?.close());

const inCatalog = (text: string) => world.asProvisioner('catalog', (catalog) => catalog.query(text));
const asOwner = (text: string) =>
  world.asProvisioner(world.tenants.rls.a, (connection) =>
    asRole(connection, 'tenancy_owner', () => connection.query(text)),
  );

async function threeRuns() {
  const runs = [await runOnce(watch), await runOnce(watch), await runOnce(watch)];
  return { states: runs.map(({ state }) => state), last: runs.at(-1)!, text: told(runs.at(-1)!).join('\n') };
}

describe('an audit that a lock keeps from being made', () => {
  it('hides a policy that lets everything through, for two runs', async () => {
    await asOwner('create policy everything on shared.tenancy_probe using (true)');
    await world.asProvisioner(world.tenants.rls.a, (holder) =>
      asRole(holder, 'tenancy_owner', async () => {
        await holder.query('lock table shared.notes in access exclusive mode');
        const { states, last, text } = await threeRuns();
        expect(states, text).toEqual(['degraded', 'degraded', 'broken']);
        expect(text).toContain('unfinished: database tenantry could not be checked (3 runs in a row): ');
        expect(last.report.findings.find(({ risk }) => risk === 'isolation')?.strategies).toContain('rls');
      }),
    );
    expect(told(await runOnce(watch)).join()).toContain(
      'shared.tenancy_probe.everything is a policy of its own',
    );
    await asOwner('drop policy everything on shared.tenancy_probe');
    expect(told(await runOnce(watch))).toEqual([]);
  }, 120_000);

  it('is counted in a row only: one that could be made begins anew', async () => {
    for (let round = 0; round < 2; round += 1) {
      await world.asProvisioner(world.tenants.rls.a, (holder) =>
        asRole(holder, 'tenancy_owner', async () => {
          await holder.query('lock table shared.notes in access exclusive mode');
          expect([(await runOnce(watch)).state, (await runOnce(watch)).state]).toEqual([
            'degraded',
            'degraded',
          ]);
        }),
      );
      expect(told(await runOnce(watch))).toEqual([]);
    }
  }, 120_000);
});

describe('a strategy whose walls nobody tries', () => {
  it('is in doubt after three runs without its canaries', async () => {
    const suspend = (status: string) =>
      inCatalog(`update catalog.tenants set status = '${status}' where slug ~ '^canary-rls-'`);
    await suspend('suspended');
    const { states, last, text } = await threeRuns();
    expect(states, text).toEqual(['degraded', 'degraded', 'broken']);
    expect(text).toContain('canaries: the walls of rls were not tried in 3 runs in a row');
    expect(last.report.findings.filter(({ risk }) => risk === 'isolation')).toHaveLength(1);
    await suspend('active');
    expect(told(await runOnce(watch))).toEqual([]);
  }, 120_000);

  it('is in use for its homes, whatever is marked as a canary', async () => {
    const { rows } = await world.asProvisioner('catalog', (catalog) =>
      catalog.query<{ slug: string }>('select slug from catalog.tenants where not is_canary'),
    );
    await inCatalog('update catalog.tenants set is_canary = true');
    const run = await runOnce(watch);
    await inCatalog(`update catalog.tenants set is_canary = slug ~ '^canary-'`);
    expect([run.state, run.report.strategies]).toEqual(['degraded', strategies]);
    expect(told(run).sort()).toEqual(
      rows
        .map(({ slug }) => `canaries: tenant ${slug} is marked as a canary and is none: lists leave it out`)
        .sort(),
    );
    expect(told(await runOnce(watch))).toEqual([]);
  }, 120_000);
});
