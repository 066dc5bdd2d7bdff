import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { withSide } from '../../../functions/lib/lifecycle/move-sides.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { deleteRows } from '../../../functions/lib/move/clean-up.ts';
import { capture, setState } from '../../../functions/lib/move/hold.ts';
import { reading } from '../../../functions/lib/move/side.ts';
import { readTables } from '../../../functions/lib/move/tables.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import { homeOf, moverOf } from '../lifecycle/move.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld({
    migrations: [
      parseMigration(
        '9600-trees.sql',
        `create table nodes (tenant_id uuid not null, id integer not null, parent integer, other integer, primary key (tenant_id, id),
           foreign key (tenant_id, parent) references nodes (tenant_id, id));
         create index nodes_parent on nodes (tenant_id, parent);
         create table leaves (tenant_id uuid not null, id integer not null, node integer, primary key (tenant_id, id),
           foreign key (tenant_id, node) references nodes (tenant_id, id) on delete restrict);
         create index leaves_node on leaves (tenant_id, node);
         alter table nodes add foreign key (tenant_id, other) references leaves (tenant_id, id) on delete restrict;
         create index nodes_other on nodes (tenant_id, other);`,
      ),
    ],
  });
}, 120_000);
afterAll(() => world?.close());

/** A tree, each node with a leaf; some of them point back. */
async function planted(count: number): Promise<TestTenant> {
  const tenant = await world.addTenant('rls');
  const db = world.database(tenant);
  await db.query(
    sql`insert into nodes (id, parent) select n, nullif(n / 2, 0) from generate_series(1, ${count}::integer) n`,
  );
  await db.query(sql`insert into leaves (id, node) select id, id from nodes`);
  await db.query(sql`update nodes set parent = id where id = 1`);
  return tenant;
}

const cleanUp = async (tenant: TestTenant, until: () => boolean) => {
  const home = await homeOf(world, tenant);
  return withSide(moverOf(world), { operationId: home.homeId }, home, randomUUID(), async (side) => {
    await capture(side);
    await setState(side, ['open', 'moved'], 'moved', { capturing: false });
    return deleteRows(side, await reading(side, () => readTables(side)), until);
  });
};

const left = (tenant: TestTenant) =>
  withConnection(world.superuser('tenantry'), async (connection) => {
    const { rows } = await connection.query<{ nodes: number; leaves: number }>(
      `select (select count(*)::integer from shared.nodes where tenant_id = '${tenant.id}') as nodes,
              (select count(*)::integer from shared.leaves where tenant_id = '${tenant.id}') as leaves`,
    );
    return rows[0]!;
  });

it('goes from the leaves to the root, some rows at a time, and stops where it is told', async () => {
  const tenant = await planted(3_000);
  let pieces = 0;
  const until = () => {
    pieces += 1;
    return pieces === 3;
  };
  expect(await cleanUp(tenant, until)).toBe(true);
  const { nodes, leaves } = await left(tenant);
  expect(nodes + leaves).toBeGreaterThan(0);
  expect(nodes + leaves).toBeLessThan(6_000);
  expect(await cleanUp(tenant, () => false)).toBe(false);
  expect(await left(tenant)).toEqual({ nodes: 0, leaves: 0 });
}, 60_000);

it('takes rows that point at each other together, after all that hangs on them', async () => {
  const tenant = await planted(1_000);
  await world.database(tenant).query(sql`update nodes set other = id where id % 100 = 1`);
  expect(await cleanUp(tenant, () => false)).toBe(false);
  expect(await left(tenant)).toEqual({ nodes: 0, leaves: 0 });
}, 60_000);

it('says so when rows stay', async () => {
  const tenant = await world.addTenant('rls');
  await world.database(tenant).query(sql`insert into leaves (id) values (1)`);
  const keeping = (does: string) =>
    withConnection(world.superuser('tenantry'), (connection) => connection.query(does));
  await keeping(`create function shared.keep() returns trigger language plpgsql as 'begin return null; end';
    create trigger keep before delete on shared.leaves for each row execute function shared.keep()`);
  await expect(cleanUp(tenant, () => false)).rejects.toMatchObject({ code: 'not_removed' });
  await keeping('drop function shared.keep() cascade');
}, 60_000);
