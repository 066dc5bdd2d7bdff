import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { limits, startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, currentDatabase, step } from '../lifecycle/move.support.ts';
import { fill, shapes, values, ways } from './shapes.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [shapes] });
});
afterAll(() => world?.close());

/** Keys exchanged, rows moved to another partition, key columns changed, trees cut, rows pointed elsewhere before theirs is gone. */
async function change(tenant: TestTenant, round: number) {
  const db = world.database(tenant);
  await db.query(sql`update nodes set label = 'away' where label = 'n20'`);
  await db.query(sql`update nodes set label = 'n20' where label = 'n21'`);
  await db.query(sql`update nodes set label = 'n21' where label = 'away'`);
  await db.query(sql`update nodes set label = label where label in ('n1', 'n2', 'n3')`);
  await db.query(
    sql`delete from heads where node_id = (select node_id from nodes where label = ${`n${37 + round}`})`,
  );
  await db.query(sql`delete from nodes where label = ${`n${37 + round}`}`);
  await db.query(sql`update events set node_id = null where n in (6, 12, 13)`);
  await db.query(sql`update events set day = day + 7 where n % 2 = 1`);
  await db.query(sql`update everything set everything_id = everything_id + 10`);
  await db.query(sql`update kinds set code = code + 100, num = 'infinity' where n = ${round}`);
  await db.query(sql`update kinds set "Name" = "Name" || '!' where n = ${10 + round}`);
  await db.query(
    sql`insert into nodes (label, parent_id) select ${`new ${round}`}, node_id from nodes where label = 'n2'`,
  );
  await db.query(
    sql`insert into kinds (code, "at ""time", "Name", n) values (${-10 - round}, now(), 'late', ${round})`,
  );
}

async function content(tenant: TestTenant): Promise<Record<string, string[]>> {
  const db = await currentDatabase(world, tenant, limits('r'));
  const all: Record<string, string[]> = {};
  for (const table of ['nodes', 'heads', 'kinds', 'everything', 'events']) {
    const { rows } = await db.query<{ row: string }>(
      `select concat(t, tableoid::regclass) as row from ${table} t order by 1`,
    );
    all[table] = rows.map(({ row }) => row);
  }
  return all;
}

describe.each(ways)('from %s to %s', (from, to) => {
  it('every type, generated and identity columns, circles, cascades and partitions, there and back', async () => {
    const tenant = await world.addTenant(from);
    await fill(world.database(tenant));
    const operation = await begin(world, tenant.slug, to);
    await step(world, operation, 'prepare');
    await step(world, operation, 'capture');
    await change(tenant, 1);
    await step(world, operation, 'copy');
    await change(tenant, 2);
    await step(world, operation, 'land');
    await change(tenant, 3);
    const before = await content(tenant);
    expect(before.kinds).toHaveLength(34);
    await step(world, operation, 'switchOver');
    expect(await content(tenant)).toEqual(before);

    // In the new home too: identities go on, every key is enforced, and what is deleted takes others with it.
    const db = await currentDatabase(world, tenant);
    const drawn = await db.query(
      sql`insert into kinds (code, "at ""time", "Name") values (-2, now(), 'new') returning drawn > (select max(k.drawn) from kinds k) as higher`,
    );
    expect(drawn.rows).toEqual([{ higher: true }]);
    await expect(db.query(sql`insert into nodes (label) values ('n1')`)).rejects.toMatchObject({
      sqlstate: '23505',
    });
    await expect(
      db.query(sql`insert into events (day, n, node_id) values ('2026-01-01', 99, gen_random_uuid())`),
    ).rejects.toMatchObject({ sqlstate: '23503' });
    await db.query(sql`update events set node_id = null`);
    await db.query(sql`delete from heads`);
    await db.query(sql`delete from nodes where label = 'n2'`);
    const written = await content(tenant);
    expect(written.nodes!.length).toBeLessThan(before.nodes!.length - 5);
    await step(world, operation, 'reverse');
    expect(await content(tenant)).toEqual(written);
    await step(world, operation, 'complete');
    expect(await content(tenant)).toEqual(written);
  });
});

it('there is no type of PostgreSQL that is not among them', async () => {
  const { rows } = await world.asProvisioner(world.tenants.rls.a, (connection) =>
    connection.query(
      // Not the arrays, which each has, and not those that have no text to be read from.
      `select typname from pg_type where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm') and typcategory <> 'A' or typname ~ '^(int2|oid)vector$'
       except select unnest(array['gtsvector', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'pg_dependencies', 'pg_mcv_list', 'pg_ndistinct', 'pg_node_tree'])`,
    ),
  );
  expect(rows.map(({ typname }) => typname).sort()).toEqual(Object.keys(values).sort());
});
