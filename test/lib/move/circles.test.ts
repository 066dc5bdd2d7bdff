import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, currentDatabase, operationState, step, untilSwitched } from '../lifecycle/move.support.ts';
import { ways } from './shapes.support.ts';

/** Tables that point at each other and let go of no row that is pointed at. */
const circle = parseMigration(
  '9300-circle.sql',
  `create table orders (tenant_id uuid not null, id integer not null, latest integer, n integer not null default 0, primary key (tenant_id, id));
   create table versions (tenant_id uuid not null, id integer not null, order_id integer, n integer not null default 0, primary key (tenant_id, id),
     foreign key (tenant_id, order_id) references orders (tenant_id, id) on delete restrict);
   alter table orders add foreign key (tenant_id, latest) references versions (tenant_id, id) on delete restrict;`,
);
let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [circle] });
}, 120_000);
afterAll(() => world?.close());

const here = (tenant: TestTenant) => currentDatabase(world, tenant);

async function fill(tenant: TestTenant) {
  const db = await here(tenant);
  await db.query(sql`insert into orders (id) select generate_series(1, 5)`);
  await db.query(sql`insert into versions (id, order_id) select n, n from generate_series(1, 5) n`);
  await db.query(sql`update orders set latest = id`);
}

const sharedRows = (tenant: TestTenant) =>
  withConnection(world.superuser('tenantry'), async (connection) => {
    const { rows } = await connection.query(
      `select id from shared.orders where tenant_id = $1 union all select id from shared.versions where tenant_id = $1`,
      [tenant.id],
    );
    return rows.length;
  });

it.each(ways)(
  'a circle that restricts goes from %s to %s and back, and is cleaned up',
  async (from, to) => {
    const tenant = await world.addTenant(from);
    await fill(tenant);
    const change = async () => {
      const db = await here(tenant);
      await db.query(sql`update orders set n = n + 1 where id < 3`);
      await db.query(sql`update versions set n = n + 1 where id > 3`);
    };
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation, async (_, run) => {
      await change();
      return run();
    });
    await change();
    await step(world, operation, 'follow');
    await change();
    await step(world, operation, 'reverse');
    await step(world, operation, 'complete');
    const { rows } = await (await here(tenant)).query<{ n: string }>(sql`select sum(n) as n from orders`);
    expect(rows).toEqual([{ n: '14' }]);
    expect(await sharedRows(tenant)).toBe(from === 'rls' ? 10 : 0);
  },
  60_000,
);

it('what an earlier move could not remove leaves the home to the next one', async () => {
  const tenant = await world.addTenant('rls');
  await fill(tenant);
  const operation = await begin(world, tenant.slug, 'schema');
  await untilSwitched(world, operation);
  const broken = (does: string) =>
    withConnection(world.superuser('tenantry'), (connection) => connection.query(does));
  await broken(`create function shared.keep() returns trigger language plpgsql as $$ begin raise exception 'kept'; end $$;
    create trigger keep before delete on shared.orders for each row execute function shared.keep()`);
  await expect(step(world, operation, 'complete')).rejects.toThrow('kept');
  await step(world, operation, 'abandon', { failedStep: 'complete' });
  const next = await begin(world, tenant.slug, 'database');
  await expect(step(world, next, 'prepare')).rejects.toThrow('kept');
  await step(world, next, 'cancel', { failedStep: 'prepare' });
  expect(await operationState(world, next)).toMatchObject({ state: 'failed', failedStep: 'prepare' });
  await broken('drop function shared.keep() cascade');
  const last = await begin(world, tenant.slug, 'database');
  await untilSwitched(world, last);
  await step(world, last, 'complete');
  expect(await sharedRows(tenant)).toBe(0);
}, 60_000);
