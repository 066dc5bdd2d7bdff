import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { moving } from '../../../functions/lib/lifecycle/move-turn.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { catchUp } from '../../../functions/lib/move/catch-up.ts';
import { limits, startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, currentDatabase, moverOf, moveState, step } from '../lifecycle/move.support.ts';
import { ways } from './shapes.support.ts';

/** Rows that others point at, in each way that does something when they go. */
const families = parseMigration(
  '9504-families.sql',
  `create table parents (
     tenant_id uuid not null, parent_id integer not null, seat integer not null, visits integer not null default 0,
     doubled integer generated always as (visits * 2) stored, drawn bigint generated always as identity, heir integer,
     primary key (tenant_id, parent_id), unique (tenant_id, seat),
     foreign key (tenant_id, heir) references parents (tenant_id, parent_id) on delete set null (heir)
   );
   create table children (
     tenant_id uuid not null, child_id integer not null, parent_id integer not null, name text not null,
     primary key (tenant_id, child_id), foreign key (tenant_id, parent_id) references parents (tenant_id, parent_id) on delete cascade
   );
   create table guards (
     tenant_id uuid not null, guard_id integer not null, parent_id integer,
     primary key (tenant_id, guard_id), foreign key (tenant_id, parent_id) references parents (tenant_id, parent_id) on delete restrict
   );`,
);
const tables = ['parents', 'children', 'guards'];

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [families] });
}, 120_000);
afterAll(() => world?.close());

async function content(tenant: TestTenant): Promise<unknown> {
  const db = await currentDatabase(world, tenant, limits('r'));
  const found: Record<string, unknown> = {};
  for (const table of tables)
    found[table] = (
      await db.query({ text: `select concat(t) as row from ${table} t order by 1`, values: [] })
    ).rows;
  return found;
}

async function landed(from: (typeof ways)[number][0], to: (typeof ways)[number][1]) {
  const tenant = await world.addTenant(from);
  const db = world.database(tenant);
  await db.query(sql`insert into parents (parent_id, seat) select n, n from generate_series(1, 5) n`);
  await db.query(
    sql`insert into children (child_id, parent_id, name) select n, 1 + n % 2, 'c' || n from generate_series(1, 400) n`,
  );
  await db.query(sql`insert into guards (guard_id, parent_id) values (1, 1), (2, 2), (3, 3)`);
  await db.query(sql`update parents set heir = 1 where parent_id = 2`);
  const operation = await begin(world, tenant.slug, to);
  for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
  const catchingUp = () =>
    world.asProvisioner('catalog', (catalog) =>
      moving(moverOf(world), catalog, operation, async (sides) => {
        const { changed } = await catchUp(sides, true);
        const { database, schema } = sides.target.home;
        // Where each row lies: one that was deleted and came again lies elsewhere.
        const places = await withConnection(world.superuser(database), async (connection) => {
          const { rows } = await connection.query<{ places: string }>(
            `select string_agg(ctid::text, ' ' order by child_id) as places from ${schema}.children where tenant_id = '${tenant.id}'`,
          );
          return rows[0]!.places;
        });
        return { changed, places };
      }),
    );
  return { tenant, db, operation, catchingUp };
}

describe.each(ways)('from %s to %s', (from, to) => {
  it('a parent that is written to leaves its children where they are', async () => {
    const { tenant, db, operation, catchingUp } = await landed(from, to);
    const { places } = await catchingUp();
    await db.query(sql`update parents set visits = visits + 1 where parent_id in (1, 2)`);
    await db.query(sql`update children set name = 'last' where child_id = 400`);
    const after = await catchingUp();
    expect(after.changed).toBe(3);
    expect(after.places.split(' ').slice(0, -1)).toEqual(places.split(' ').slice(0, -1));
    await db.query(sql`update parents set visits = visits + 1 where parent_id = 1`);
    const before = await content(tenant);
    await step(world, operation, 'switchOver');
    expect(await content(tenant)).toEqual(before);
    expect((await moveState(world, operation)).phase).toBe('switched');
    await step(world, operation, 'complete');
  });

  it('parents that go, come, change keys or exchange what is unique are the same afterwards', async () => {
    const { tenant, db, operation, catchingUp } = await landed(from, to);
    // To another parent, before theirs goes; what is left goes with it.
    await db.query(sql`update guards set parent_id = 4 where parent_id = 2`);
    await db.query(sql`update children set parent_id = 4 where parent_id = 2 and child_id < 100`);
    await db.query(sql`delete from parents where parent_id = 2`);
    await db.query(sql`insert into parents (parent_id, seat) values (6, 2)`);
    await db.query(sql`update parents set parent_id = 7 where parent_id = 5`);
    await catchingUp();
    await db.query(sql`update parents set heir = 3 where parent_id in (6, 7)`);
    await db.query(sql`update guards set parent_id = null where parent_id = 3`);
    await db.query(sql`delete from parents where parent_id = 3`);
    await catchingUp();
    // Seats exchanged: not in place.
    await db.query(sql`update parents set seat = seat + 100 where parent_id in (1, 4)`);
    await db.query(
      sql`update parents set seat = case parent_id when 1 then 4 else 1 end where parent_id in (1, 4)`,
    );
    await catchingUp();
    await db.query(sql`delete from parents where parent_id = 7`);
    await db.query(
      sql`insert into parents (parent_id, seat, drawn) overriding system value values (7, 8, 1000)`,
    );
    await db.query(sql`update parents set seat = seat + 100 where parent_id in (1, 4)`);
    await db.query(
      sql`update parents set seat = case parent_id when 1 then 1 else 4 end where parent_id in (1, 4)`,
    );
    const before = await content(tenant);
    await step(world, operation, 'switchOver');
    expect(await content(tenant)).toEqual(before);
    await step(world, operation, 'complete');
  });
});
