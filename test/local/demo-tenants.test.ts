import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { tenantSecretName } from '../../functions/lib/isolation/credentials.ts';
import { parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import type { TenantId } from '../../functions/lib/tenant/tenant.ts';
import { migrateShared } from '../../infra/local/control-plane.ts';
import { demoInventory } from '../../infra/local/demo/inventory.ts';
import { demoTenants, fillInventory, prepareTenant } from '../../infra/local/demo/tenants.ts';
import { move } from '../lib/lifecycle/move.support.ts';
import { migrate } from '../lib/migrations/target.ts';
import { refusedCloud } from '../support/refused-cloud.ts';
import { startWorld, type World } from '../support/world.ts';

let world: World;
let number = 10;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

it('starts with the old tables of a tenant whose home refuses a migration, and says so; not with a new one', async () => {
  const prepare = (slug: string, release: World['release']) =>
    prepareTenant(
      world.plane,
      demoTenants.find((tenant) => tenant.slug === slug)!,
      world.tenants.schema.a.place,
      release,
    );
  const told = vi.spyOn(console, 'error').mockImplementation(() => {});
  const first = await prepare('globex', world.release);
  const file = parseMigration('9900-broken.sql', 'select 1 / 0');
  const broken = { ...world.release, home: [...world.release.home, file] };
  expect(await prepare('globex', broken)).toEqual(first);
  expect(told.mock.calls).toEqual([
    [expect.stringMatching(/^globex keeps its old tables. 9900-broken.sql failed: division by zero/)],
  ]);
  await expect(prepare('initech', broken)).rejects.toMatchObject({ code: 'migration_refused' });
});

it('leaves a tenant where it was moved to, with its secret, and says when new files have not reached it', async () => {
  const told = vi.spyOn(console, 'error').mockImplementation(() => {});
  told.mockClear();
  const { place } = world.tenants.schema.a;
  const [, globex, initech] = demoTenants;
  const secretOf = (id: TenantId) => world.secrets.read(tenantSecretName(id), true);
  const there = (await prepareTenant(world.plane, initech, place, world.release))!;
  const secret = await secretOf(there.id);
  // A place that it was moved away from, within its strategy.
  const left = { ...place, clusterId: randomUUID(), port: 1 };
  expect(await prepareTenant(world.plane, initech, left, world.release)).toEqual(there);
  expect(await secretOf(there.id)).toBe(secret);

  const before = await prepareTenant(world.plane, globex, place, world.release);
  await move(world, globex.slug, 'rls');
  expect(await prepareTenant(world.plane, globex, place, world.release)).toEqual(before);
  expect(told).not.toHaveBeenCalled();
  const file = parseMigration('9950-next.sql', 'create table later (tenant_id uuid not null primary key)');
  await prepareTenant(world.plane, globex, place, { ...world.release, home: [...world.release.home, file] });
  expect(told.mock.calls).toEqual([
    ['globex was moved: npm run tenants -- migrate run brings new files to it.'],
  ]);
});

it('starts with the old shared tables when they refuse a migration, and says so', async () => {
  const told = vi.spyOn(console, 'error').mockImplementation(() => {});
  told.mockClear();
  const { place } = world.tenants.rls.a;
  const file = parseMigration('9900-broken.sql', 'select 1 / 0');
  const broken = { ...world.release, home: [...world.release.home, file] };
  await migrateShared(world.plane, place, broken, Promise.resolve());
  expect(told.mock.calls).toEqual([
    [expect.stringMatching(/^The shared tables stay as they are. 9900-broken.sql failed: division by zero/)],
  ]);
  // Where nobody was served from them, there is nothing to stay with.
  const empty = world.tenants.database.a.place;
  await expect(migrateShared(world.plane, empty, broken, Promise.resolve())).rejects.toMatchObject({
    code: 'migration_refused',
  });
});

it.each([
  'create table items (tenant_id uuid not null, item_id int, title text, primary key (tenant_id, item_id))',
  'create table items (tenant_id uuid not null, sku int, name text, category text, location text, unit text, price_cents int, quantity int, reorder_level int, primary key (tenant_id, sku))',
  'create table stock (tenant_id uuid not null, sku text, primary key (tenant_id, sku))',
])('leaves tables alone that are the adopting team’s own: %s', async (sql) => {
  const tenant = world.tenants.schema.b;
  const file = parseMigration(`99${++number}-own.sql`, `drop table if exists stock_movements, items; ${sql}`);
  await migrate(world, tenant, [file]);
  const db = world.database(tenant);
  await fillInventory(db, demoInventory('acme', { items: 2 }));
  const [table] = /\w+(?= \(tenant_id)/.exec(sql)!;
  expect((await db.query(`select from ${table}`)).rowCount).toBe(0);
});

it('says what is missing when no tool is named', async () => {
  await expect(refusedCloud([])).rejects.toThrow('functions/mcp/tools/index.ts names no tool with a scope');
});
