import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import type { Access } from '../../../functions/lib/isolation/access.ts';
import { parseMasterKeys } from '../../../functions/lib/isolation/context.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { readRelease } from '../../../functions/lib/migrations/release.ts';
import { limits, startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';
import { migrate } from './migrate.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const contextKey = 'tenancy/context-key';

/** The secret as an operator writes it, and what a deployment that reads it then brings to every database. */
async function deployed(current: string, keys: Readonly<Record<string, string>>) {
  const text = JSON.stringify({ current, keys });
  await world.plane.secrets.write(contextKey, text);
  const plane = { ...world.plane, keys: parseMasterKeys(text) };
  const release = { ...(await readRelease(plane)), home: world.release.home };
  const { targets, state } = await migrate({ ...world, plane }, release);
  expect(state).toBe('done');
  return targets.filter((target) => target.state === 'done').length;
}

const keysIn = (tenant: TestTenant) =>
  world.asProvisioner(tenant, (connection) =>
    asRole(connection, 'tenancy_keeper', async () => {
      const { rows } = await connection.query<{ key_id: string }>(
        'select key_id from tenancy.keys order by 1',
      );
      return rows.map(({ key_id }) => key_id);
    }),
  );

async function answers(access: Access, tenant: TestTenant) {
  const db = access.database(tenant.principal, await access.resolve(tenant.principal), limits('w'));
  return (await db.query(sql`select 1 as n`)).rows;
}

it('a new signing key reaches every database by a run, and the old one leaves it by another', async () => {
  const k1 = JSON.parse(await world.plane.secrets.read(contextKey)).keys.k1 as string;
  const k2 = randomBytes(32).toString('base64');
  const all = strategies.flatMap((strategy) => Object.values(world.tenants[strategy]));
  const running = world.access();
  const everybody = async (access: Access) => {
    for (const tenant of all) expect(await answers(access, tenant)).toEqual([{ n: 1 }]);
  };
  await everybody(running);

  expect(await deployed('k1', { k1, k2 })).toBeGreaterThanOrEqual(5);
  for (const tenant of all) expect(await keysIn(tenant)).toEqual(['k1', 'k2']);
  await everybody(world.access());
  expect(await deployed('k2', { k1, k2 })).toBe(0);
  await everybody(world.access());
  expect(await deployed('k2', { k2 })).toBeGreaterThanOrEqual(5);
  for (const tenant of all) expect(await keysIn(tenant)).toEqual(['k2']);
  await everybody(world.access());
  // It has signed with the first key all the time, and learns by being refused.
  await everybody(running);
});
