import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import {
  admitted,
  begin,
  homeOf,
  inventory,
  move,
  notes,
  startWriters,
  step,
  untilSwitched,
} from './move.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

async function fill(tenant: TestTenant, count: number) {
  const db = world.database(tenant);
  await db.query(
    sql`insert into notes (body, amount) select 'first ' || n, n from generate_series(1, ${count}) n`,
  );
  await db.query(
    sql`update notes set parent_id = (select note_id from notes p where p.body = 'first 1') where body <> 'first 1' and amount % 3 = 0`,
  );
}

const ways: [Strategy, Strategy][] = [
  ['rls', 'schema'],
  ['rls', 'database'],
  ['schema', 'database'],
  ['schema', 'rls'],
  ['database', 'schema'],
  ['database', 'rls'],
];

describe.each(ways)('from %s to %s', (from, to) => {
  it('loses and doubles no write, answers none with an error, and leaves nothing behind', async () => {
    const tenant = await world.addTenant(from);
    await fill(tenant, 500);
    const before = await inventory(world);
    const neighbour = await notes(world, world.tenants.rls.a);
    const writers = startWriters(world, tenant);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await step(world, operation, 'complete');
    await writers.stop();
    expect(writers.errors).toEqual([]);
    expect(writers.acknowledged.size).toBeGreaterThan(10);

    const home = await homeOf(world, tenant);
    expect([home.strategy, home.epoch]).toEqual([to, 2]);
    expect(await admitted(world, tenant)).toEqual([
      {
        database: home.database,
        home_id: home.homeId,
        state: 'open',
        epoch: 2,
        capturing: false,
        busy: false,
      },
    ]);
    const found = await notes(world, tenant);
    expect(found.size).toBe(500 + writers.acknowledged.size);
    for (const key of writers.acknowledged) expect(found.get(key)).toBe(2);
    expect(await notes(world, world.tenants.rls.a)).toEqual(neighbour);
    // As many things as before, but for those that the strategies differ in.
    const after = await inventory(world);
    const others = (lines: string[]) =>
      lines.filter((line) => !line.includes(tenant.home.homeId.replaceAll('-', '')));
    const fresh = others(after).filter((line) => !before.includes(line));
    expect(fresh.filter((line) => /moving_|change /.test(line))).toEqual([]);
    expect(
      after.filter(
        (line) => line.includes(tenant.home.homeId) || line.includes(tenant.home.homeId.replaceAll('-', '')),
      ),
    ).toEqual([]);
  });
});

it('there and back again through all three', async () => {
  const tenant = await world.addTenant('rls');
  await fill(tenant, 50);
  const before = await inventory(world);
  for (const to of ['schema', 'database', 'rls'] as const) await move(world, tenant.slug, to);
  const after = await inventory(world);
  expect((await notes(world, tenant)).size).toBe(50);
  // One home's row for another.
  expect(after.length).toBe(before.length);
});
