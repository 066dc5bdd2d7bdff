import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { catalogDatabase } from '../../functions/lib/isolation/catalog-reader.ts';
import { startWorld, strategies, type World } from '../support/world.ts';
import { partyOf } from './support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

/** Whether the login gets in, or PostgreSQL's answer. */
async function connect(tenant: Parameters<typeof partyOf>[1], database: string): Promise<string> {
  const { endpoint } = await partyOf(world, tenant);
  return withConnection({ ...endpoint, database }, async () => 'in').catch(
    ({ cause }) => (cause as { code: string }).code,
  );
}

describe.each(strategies)('a login of %s', (strategy) => {
  it('gets into the database of its home', async () => {
    const { a } = world.tenants[strategy];
    expect(await connect(a, a.home.database)).toBe('in');
  });

  it('gets into no other database that holds tenants, nor into the catalog', async () => {
    const { a } = world.tenants[strategy];
    const { rls, database } = world.tenants;
    const others = [rls.b, database.a, database.b].map(({ home }) => home.database);
    for (const other of [...new Set(others), catalogDatabase].filter((name) => name !== a.home.database))
      expect(await connect(a, other), other).toBe('42501');
  });

  it('brings nothing into databases that are made later', async () => {
    const { endpoint } = await partyOf(world, world.tenants[strategy].a);
    await withConnection({ ...endpoint, database: 'template1' }, async (connection) => {
      await connection.query("select lo_from_bytea(0, 'planted')");
    });
    const { place } = await world.addTenant('database');
    await withConnection(place.admin, async (made) => {
      expect((await made.query('select oid from pg_largeobject_metadata')).rows).toEqual([]);
    });
  });
});
