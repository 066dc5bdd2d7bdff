import { afterAll, beforeAll, expect, it } from 'vitest';
import { openConnection } from '../../../functions/lib/database/connect.ts';
import { dropDatabase } from '../../../functions/lib/isolation/homes.ts';
import { startWorld, type World } from '../../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

it('a database in which the server itself is at work is dropped when it has finished', async () => {
  const tenant = await world.addTenant('database');
  const { database, login } = tenant.home;
  // Autovacuum's workers have the superuser's rights, as this session: nobody else may end them.
  const server = await openConnection(world.superuser(database));
  const drop = () =>
    world.asProvisioner('catalog', (connection) => dropDatabase(connection, database, login));
  await expect(drop()).rejects.toMatchObject({ code: 'busy' });
  await server.close();
  await drop();
  await drop();
});
