import { afterAll, beforeAll, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { begin, currentDatabase, step, untilSwitched } from '../lifecycle/move.support.ts';

/** An index that can be made while its table is empty alone: PostgreSQL 17 does so with a path of its own. */
const indexed = parseMigration(
  '9504-indexed.sql',
  `create function plain(word text) returns text language sql immutable return lower(word);
   create function by_name(word text) returns text language plpgsql immutable as $$ begin return plain(word); end $$;
   create function by_path(word text) returns text language plpgsql immutable set search_path from current as $$ begin return plain(word); end $$;
   create table words (tenant_id uuid not null, word text not null, primary key (tenant_id, word));
   create table terms (like words including all);
   create index words_by_name on words (by_name(word), tenant_id);
   create index terms_by_path on terms (by_path(word), tenant_id);`,
);

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [indexed] });
}, 120_000);
afterAll(() => world?.close());

it.each(strategies)(
  'an index whose function finds nothing on that path is named, and what to do, from %s',
  async (from) => {
    const tenant = await world.addTenant(from);
    const to = from === 'schema' ? 'database' : 'schema';
    await world.database(tenant).query(sql`insert into words (word) values ('Up')`);
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy'] as const) await step(world, operation, name);
    await expect(step(world, operation, 'land')).rejects.toMatchObject({
      code: 'move_refused',
      message: expect.stringMatching(/index.*`set search_path from current`.*`return …`/),
    });
    await step(world, operation, 'cancel', { failedStep: 'land' });
  },
);

it.each(strategies)('with the path of its home a function is found, from %s', async (from) => {
  const tenant = await world.addTenant(from);
  const to = from === 'schema' ? 'database' : 'schema';
  await world.database(tenant).query(sql`insert into terms (word) values ('Up')`);
  await untilSwitched(world, await begin(world, tenant.slug, to));
  const { rows } = await (await currentDatabase(world, tenant)).query(
    "select word from terms where by_path(word) = 'up'",
  );
  expect(rows).toEqual([{ word: 'Up' }]);
});
