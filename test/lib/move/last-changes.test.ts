import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { moving } from '../../../functions/lib/lifecycle/move-turn.ts';
import { digest } from '../../../functions/lib/move/diff.ts';
import { fence } from '../../../functions/lib/move/hold.ts';
import {
  carryLast,
  type LastChange,
  lastOf,
  prepareLast,
  readLast,
} from '../../../functions/lib/move/last-changes.ts';
import { reading } from '../../../functions/lib/move/side.ts';
import { limits, startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, currentDatabase, moverOf, step } from '../lifecycle/move.support.ts';
import { fill, shapes, ways } from './shapes.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [shapes] });
});
afterAll(() => world?.close());

describe.each(ways)('the last changes from %s to %s', (from, to) => {
  const atTheFence = async (
    tenant: TestTenant,
    last: (db: ReturnType<World['database']>) => Promise<unknown>,
  ) => {
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
    try {
      return await world.asProvisioner('catalog', (catalog) =>
        moving(moverOf(world), catalog, operation, async (sides) => {
          await last(world.database(tenant));
          await prepareLast(sides);
          const { rows, isKept } = await fence<LastChange>(sides.source, readLast([]));
          await isKept;
          const { changes } = lastOf(rows);
          const { epoch } = sides.source.home;
          const isCarried = await carryLast(sides, changes, { capturing: true, epoch: epoch + 1 });
          const [before, after] = [sides.source, sides.target].map((side) =>
            reading(side, async () => [...(await digest(side, sides.tables)).values()]),
          );
          return { rows: changes, isCarried, isSame: isDeepStrictEqual(await before, await after) };
        }),
      );
    } finally {
      await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    }
  };

  it('of every type, with exchanged keys, go in one piece', async () => {
    const tenant = await world.addTenant(from);
    await fill(world.database(tenant));
    const { rows, isCarried, isSame } = await atTheFence(tenant, async (db) => {
      await db.query(sql`update everything set everything_id = everything_id + 10`);
      await db.query(sql`update everything set share = 1.5`);
      await db.query(sql`update kinds set code = code + 100, num = 'infinity' where n < 9`);
      await db.query(sql`delete from kinds where n > 20`);
      await db.query(
        sql`insert into kinds (code, "at ""time", "Name") values (-7, 'infinity', E'\\ "(,)'), (-8, now(), '')`,
      );
      await db.query(sql`update events set day = day + 7 where n % 2 = 1`);
    });
    expect(rows.length).toBeGreaterThan(30);
    expect({ isCarried, isSame }).toEqual({ isCarried: true, isSame: true });
  });

  it('of rows that others would go with change where they are', async () => {
    const tenant = await world.addTenant(from);
    await fill(world.database(tenant));
    const { rows, isCarried, isSame } = await atTheFence(tenant, async (db) => {
      await db.query(sql`update nodes set label = 'other' where label in ('n2')`);
      await db.query(sql`delete from heads where node_id = (select node_id from nodes where label = 'n38')`);
      await db.query(sql`delete from nodes where label in ('n38', 'n37')`);
      await db.query(
        sql`insert into nodes (label, parent_id) select 'n38', node_id from nodes where label = 'n1'`,
      );
    });
    expect(rows.length).toBe(5);
    expect({ isCarried, isSame }).toEqual({ isCarried: true, isSame: true });
  });

  it('that exchange what is unique, or are long, are left to the longer way', async () => {
    const tenant = await world.addTenant(from);
    await fill(world.database(tenant));
    const exchanged = await atTheFence(tenant, async (db) => {
      await db.query(sql`update nodes set label = 'away' where label = 'n3'`);
      await db.query(sql`update nodes set label = 'n3' where label = 'n4'`);
      await db.query(sql`update nodes set label = 'n4' where label = 'away'`);
    });
    expect(exchanged).toMatchObject({ isCarried: false, isSame: false });
    const long = await atTheFence(tenant, (db) =>
      db.query(sql`update kinds set "words" = array[repeat('x', 20000)] where n = 3`),
    );
    expect(long).toMatchObject({ isCarried: false, isSame: false });
  });

  it('of which there are none, or too many', async () => {
    const tenant = await world.addTenant(from);
    await fill(world.database(tenant));
    expect(await atTheFence(tenant, async () => {})).toMatchObject({
      rows: [],
      isCarried: true,
      isSame: true,
    });
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
    await world
      .database(tenant)
      .query(sql`insert into nodes (label) select 'many ' || n from generate_series(1, 1001) n`);
    const found = await world.asProvisioner('catalog', (catalog) =>
      moving(moverOf(world), catalog, operation, async (sides) => {
        await prepareLast(sides);
        return lastOf((await fence<LastChange>(sides.source, readLast([]))).rows);
      }),
    );
    expect(found.areTooMany).toBe(true);
    // What a fence has left is where the next attempt begins.
    await step(world, operation, 'switchOver');
    const db = await currentDatabase(world, tenant, limits('r'));
    const { rows } = await db.query(sql`select count(*)::int as n from nodes`);
    expect(rows).toEqual([{ n: 1041 }]);
  });
});
