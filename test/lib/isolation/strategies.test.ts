import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { modes, startWorld, strategies, type World } from '../../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

describe.each(strategies)('%s', (strategy) => {
  describe.each(modes)('in %s round trip(s)', (roundTrips) => {
    it('reads and writes the tenant of the call, and nobody else', async () => {
      const { a, b } = world.tenants[strategy];
      const body = `${strategy} ${roundTrips}`;
      for (const tenant of [a, b])
        await world.database(tenant, { roundTrips }).query(sql`insert into notes (body) values (${body})`);

      for (const tenant of [a, b]) {
        const { rows } = await world
          .database(tenant, { roundTrips, mode: 'r' })
          .query(sql`select tenant_id, body from notes where body = ${body}`);
        expect(rows).toEqual([{ tenant_id: tenant.id, body }]);
      }
    });

    it('refuses a row that names another tenant', async () => {
      const { a, b } = world.tenants[strategy];
      const plant = world
        .database(a, { roundTrips })
        .query(sql`insert into notes (tenant_id, body) values (${b.id}, 'planted')`);
      await expect(plant).rejects.toMatchObject({ sqlstate: strategy === 'rls' ? '42501' : '23514' });
    });

    it('refuses a write in a reading call', async () => {
      const write = world
        .database(world.tenants[strategy].a, { roundTrips, mode: 'r' })
        .query(sql`insert into notes (body) values ('no')`);
      await expect(write).rejects.toMatchObject({ sqlstate: '25006' });
    });

    it('says that the clocks are apart where a call is expired when it comes', async () => {
      const late = Date.now() - 120_000;
      const clock = vi.spyOn(Date, 'now').mockImplementation(() => late);
      // Settings of its own: an access that is made now has this clock.
      const call = world.database(world.tenants[strategy].a, { roundTrips }, {}).query(sql`select 1`);
      await expect(call.finally(() => clock.mockRestore())).rejects.toMatchObject({
        code: 'internal',
        message: expect.stringContaining('clock is more than a minute ahead'),
      });
    });
  });
});
