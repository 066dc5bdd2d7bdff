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
        '9400-people.sql',
        `create table people (tenant_id uuid not null, email text not null, n integer not null default 0,
           email_key text generated always as (lower(email)) stored, doubled integer generated always as (n * 2) stored, primary key (tenant_id, email_key));`,
      ),
    ],
  });
}, 120_000);
afterAll(() => world?.close());

const here = (tenant: TestTenant) => currentDatabase(world, tenant);

it.each(ways)(
  'a generated column in a key goes from %s to %s and back',
  async (from, to) => {
    const tenant = await world.addTenant(from);
    await (await here(tenant)).query(
      sql`insert into people (email) select 'P' || n from generate_series(1, 20) n`,
    );
    const change = async (round: number) => {
      const db = await here(tenant);
      await db.query(sql`update people set n = n + 1 where email_key = 'p1'`);
      await db.query(
        sql`update people set email = 'Q' || ${round}::integer where email = ${`P${round + 10}`}`,
      );
      await db.query(sql`delete from people where email_key = ${`p${round + 1}`}`);
    };
    const content = async () =>
      (await (await here(tenant)).query(sql`select concat(t) as row from people t order by 1`)).rows;
    let round = 0;
    const operation = await begin(world, tenant.slug, to);
    await untilSwitched(world, operation, async (_, run) => {
      round += 1;
      await change(round);
      return run();
    });
    await change(6);
    const written = await content();
    expect(written).toHaveLength(14);
    await step(world, operation, 'follow');
    await step(world, operation, 'reverse');
    await step(world, operation, 'complete');
    expect(await content()).toEqual(written);
  },
  60_000,
);
