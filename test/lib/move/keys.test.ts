import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { limits, startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, step } from '../lifecycle/move.support.ts';
import { ways } from './shapes.support.ts';

let world: World;
beforeAll(async () => {
  const migration = parseMigration(
    '9502-keys.sql',
    `create domain filled as text not null check (value is not null and value <> '');
     create table documents (
       tenant_id uuid not null, document_id integer not null, content json, title filled, n integer not null default 0,
       primary key (tenant_id, document_id)
     );`,
  );
  world = await startWorld({ migrations: [migration] });
}, 120_000);
afterAll(() => world?.close());

async function content(tenant: TestTenant, tables: readonly string[]): Promise<unknown[][]> {
  const access = world.access();
  const route = await access.resolve(tenant.principal);
  const db = access.database(tenant.principal, route, limits('r'));
  const found: unknown[][] = [];
  for (const table of tables) {
    const { rows } = await db.query({
      text: `select concat(t) as row from ${table} t order by 1`,
      values: [],
    });
    found.push(rows);
  }
  await access.pools.close();
  return found;
}

async function move(
  tenant: TestTenant,
  to: (typeof ways)[number][1],
  change: (round: number) => Promise<unknown>,
) {
  const operation = await begin(world, tenant.slug, to);
  for (const [round, name] of (['prepare', 'capture', 'copy', 'land'] as const).entries()) {
    await step(world, operation, name);
    await change(round);
  }
  return operation;
}

describe.each(ways)('a move from %s to %s', (from, to) => {
  it('is in nobody’s way who writes what JSON could not say, or what may not be null', async () => {
    const tenant = await world.addTenant(from);
    const db = world.database(tenant, limits('w'));
    await db.query({
      text: `insert into documents (document_id, content, title) values (1, $1::text::json, 'a'), (2, $2::text::json, 'b'), (3, $3::text::json, 'c')`,
      values: ['"a\\u0000b"', '"\\ud800"', '1e1000000'],
    });
    const operation = await move(tenant, to, () => db.query(sql`update documents set n = n + 1`));
    const before = await content(tenant, ['documents']);
    await step(world, operation, 'switchOver');
    expect(await content(tenant, ['documents'])).toEqual(before);
    await step(world, operation, 'complete');
  });
});
