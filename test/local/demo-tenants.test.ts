import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import { demoTenants, prepareTenant } from '../../infra/local/demo/tenants.ts';
import { startWorld, type World } from '../support/world.ts';

let world: World;
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
