import { afterAll, beforeAll, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, currentDatabase, step, untilSwitched } from '../lifecycle/move.support.ts';
import { ways } from './shapes.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld({
    migrations: [
      parseMigration(
        '9500-partitions.sql',
        `create table codes (tenant_id uuid not null, id integer not null, code text not null, primary key (tenant_id, id), unique (tenant_id, code));
         create table actions (tenant_id uuid not null, day date not null, id integer not null, code text, n integer not null default 0, primary key (tenant_id, day, id)) partition by range (day);
         create table actions_old partition of actions for values from (minvalue) to ('2026-01-01');
         create table actions_new partition of actions default;
         alter table actions_old add foreign key (tenant_id, code) references codes (tenant_id, code) on delete cascade;`,
      ),
    ],
  });
}, 120_000);
afterAll(() => world?.close());

const here = (tenant: TestTenant) => currentDatabase(world, tenant);

it.each(ways)(
  'the foreign key of one partition goes from %s to %s and back',
  async (from, to) => {
    const tenant = await world.addTenant(from);
    const db = await here(tenant);
    await db.query(sql`insert into codes (id, code) values (1, 'a'), (2, 'b')`);
    await db.query(
      sql`insert into actions (day, id, code) values ('2025-01-01', 1, 'a'), ('2025-01-02', 1, 'b'), ('2026-02-01', 1, 'of no table')`,
    );
    const change = async () => {
      const now = await here(tenant);
      await now.query(sql`update actions set n = n + 1`);
      await now.query(sql`update codes set code = code where id = 1`);
    };
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation, async (_, run) => {
      await change();
      return run();
    });
    const there = await here(tenant);
    await expect(
      there.query(sql`insert into actions (day, id, code) values ('2025-01-03', 1, 'of no table')`),
    ).rejects.toMatchObject({ sqlstate: '23503' });
    await there.query(sql`delete from codes where id = 2`);
    await step(world, operation, 'follow');
    await step(world, operation, 'reverse');
    await step(world, operation, 'complete');
    const { rows } = await (await here(tenant)).query(sql`select day::text, n from actions order by 1`);
    expect(rows).toEqual([
      { day: '2025-01-01', n: 5 },
      { day: '2026-02-01', n: 5 },
    ]);
  },
  60_000,
);
