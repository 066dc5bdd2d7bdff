import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { moving } from '../../../functions/lib/lifecycle/move-turn.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { catchUpInPieces } from '../../../functions/lib/move/catch-up.ts';
import { reading } from '../../../functions/lib/move/side.ts';
import { hasLanded, land, makeKeys } from '../../../functions/lib/move/staging.ts';
import { limits, startWorld, strategies, type World } from '../../support/world.ts';
import { begin, homeOf, moverOf, step } from '../lifecycle/move.support.ts';

/** A unique key, whose values change places, and rows that point at others. */
const people = parseMigration(
  '9500-people.sql',
  `create table people (
     tenant_id uuid not null, person_id uuid not null default gen_random_uuid(), seat integer not null, boss uuid,
     primary key (tenant_id, person_id), unique (tenant_id, seat),
     foreign key (tenant_id, boss) references people (tenant_id, person_id)
   );`,
);

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [people] });
});
afterAll(() => world?.close());

describe.each(strategies)('a move from %s whose log is read in pieces', (from) => {
  const to = from === 'schema' ? 'rls' : 'schema';

  it('carries over what belongs together, wherever a piece ends', async () => {
    const tenant = await world.addTenant(from);
    const db = world.database(tenant, limits('w'));
    const [boss, first, second] = [randomUUID(), randomUUID(), randomUUID()];
    await db.query(
      sql`insert into people (person_id, seat, boss) values (${boss}, 1, null), (${first}, 2, ${boss}), (${second}, 3, ${boss})`,
    );
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy'] as const) await step(world, operation, name);

    // They change seats, get a new boss who is made last, and the old one goes: keys of one statement in different pieces.
    const heir = randomUUID();
    await db.query(sql`update people set seat = seat + 10 where seat in (2, 3)`);
    await db.query(sql`update people set seat = case seat when 12 then 3 else 2 end where seat > 10`);
    await db.query(sql`insert into people (person_id, seat) values (${heir}, 4)`);
    await db.query(sql`update people set boss = ${heir} where boss is not null`);
    await db.query(sql`delete from people where person_id = ${boss}`);
    await db.query(
      sql`insert into people (seat, boss) select 100 + g, ${heir} from generate_series(1, 20) g`,
    );
    await world.asProvisioner('catalog', (catalog) =>
      moving(moverOf(world), catalog, operation, async (sides) => {
        await makeKeys(sides.target, () => false);
        await catchUpInPieces(sides, 2);
      }),
    );
    await step(world, operation, 'land');
    await step(world, operation, 'switchOver');

    expect((await homeOf(world, tenant)).strategy).toBe(to);
    const { rows } = await world
      .database(tenant, limits('r'))
      .query(sql`select person_id, seat, boss from people where seat < 100 order by seat`);
    expect(rows).toEqual([
      { person_id: second, seat: 2, boss: heir },
      { person_id: first, seat: 3, boss: heir },
      { person_id: heir, seat: 4, boss: null },
    ]);
    const all = await world.database(tenant, limits('r')).query(sql`select from people`);
    expect(all.rowCount).toBe(23);
  });
});

it('a landing ends between two pieces when the operator wants that, and is repeated', async () => {
  const tenant = await world.addTenant('schema');
  await world.database(tenant).query(sql`insert into people (seat) select generate_series(1, 10)`);
  const operation = await begin(world, tenant.slug, 'rls');
  for (const name of ['prepare', 'capture', 'copy'] as const) await step(world, operation, name);
  await world.asProvisioner('catalog', (catalog) =>
    moving(moverOf(world), catalog, operation, async ({ target, tables }) => {
      await makeKeys(target, () => false);
      const isWanted = () => true;
      expect(await land(target, tables, isWanted, isWanted)).toBe(true);
      expect(await hasLanded(target)).toBe(false);
    }),
  );
  await step(world, operation, 'land');
  await step(world, operation, 'switchOver');
  const { rowCount } = await world.database(tenant, limits('r')).query(sql`select from people`);
  expect(rowCount).toBe(10);
});

it('its sessions wait for each other on a server that ends those which idle', async () => {
  const tenant = await world.addTenant('rls');
  const { database } = tenant.home;
  const operation = await begin(world, tenant.slug, 'schema');
  await step(world, operation, 'prepare');
  const server = await openConnection(world.superuser(database));
  await server.connection.query(`alter database "${database}" set idle_session_timeout = '200ms'`);
  try {
    await world.asProvisioner('catalog', (catalog) =>
      moving(moverOf(world), catalog, operation, async ({ source, target }) => {
        await setTimeout(1_000);
        for (const side of [source, target]) await reading(side, async () => {});
      }),
    );
  } finally {
    await server.connection.query(`alter database "${database}" reset idle_session_timeout`);
    await server.close();
  }
  await step(world, operation, 'cancel', { failedStep: 'copy' });
});
