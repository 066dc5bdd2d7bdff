import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { resume, suspend } from '../../../functions/lib/lifecycle/suspend.ts';
import { readState } from '../../../functions/lib/move/hold.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

it.each(strategies)(
  '%s: a home is as the catalog says, however suspensions and resumptions meet',
  async (strategy) => {
    const tenant = await world.addTenant(strategy);
    for (let round = 0; round < 15; round += 1) {
      await Promise.all(
        [suspend, resume, suspend, resume].map(async (change, index) => {
          await new Promise((resolve) => setTimeout(resolve, Math.random() * 10 * index));
          await change(world.plane, tenant.id);
        }),
      );
      const status = await world.asProvisioner('catalog', async (catalog) => {
        const { rows } = await catalog.query('select status from catalog.tenants where tenant_id = $1', [
          tenant.id,
        ]);
        return rows[0]!.status as string;
      });
      const home = await withConnection(tenant.place.admin, (connection) =>
        readState(connection, tenant.home.homeId),
      );
      expect(home?.state).toBe(status === 'active' ? 'open' : status);
    }
  },
);
