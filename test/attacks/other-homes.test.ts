import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { asRole } from '../../functions/lib/isolation/homes.ts';
import { parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import { migrate, targetOf } from '../lib/migrations/target.ts';
import { startWorld, strategies, type World } from '../support/world.ts';

/** A migration's code reads nothing of another home, nor what the server and the product keep of its rows. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

/** What is read is kept, and the lock that tells of it given back with the error. */
const caught = (query: string) =>
  `do $$ declare x text; begin begin execute '${query}' into x; raise 'x'; exception when others then null; end; raise notice '%', x; end $$`;

const files: [string, string, RegExp][] = [
  ['a table', "do $$ begin execute 'select from beside.kept'; end $$", /\.kept: is not of the home/],
  ['a table, where an error is caught', caught('select id from beside.kept'), /another home: is read where/],
  [
    'a row by its place, where an error is caught',
    caught("select id from beside.kept where ctid = ''(0,1)''"),
    /another home: is read where/,
  ],
  [
    'a table, by an earlier function that catches errors',
    `select quietly('select id from beside.kept')`,
    /another home: is read where/,
  ],
  [
    'a table, in a block whose words are put together',
    "do 'declare x int; begin begin select id into x from beside.kept; raise ''x''; exc'\n'eption when others then null; end; end'",
    /another home: is read where/,
  ],
  ['statistics', 'select count(*) from pg_stats', /pg_statistic: holds values of every home/],
  ['the keys of what moves', 'select key from tenancy.changes', /changes: holds values of every home/],
  [
    'the keys of what moves, where an error is caught',
    caught('select key from tenancy.changes'),
    /another home: is read where/,
  ],
];

describe.each(strategies)('a migration in a home of %s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const run = (sql: string) =>
    migrate(world, tenant(), [parseMigration(`${++number}-x.sql`, sql)], { isSound: true });

  beforeEach(() =>
    world.asProvisioner(tenant(), (connection) =>
      asRole(connection, 'tenancy_owner', () =>
        connection.query(
          `create schema if not exists beside; create table if not exists beside.kept (id int primary key);
           insert into beside.kept values (1) on conflict do nothing;
           create or replace function ${targetOf(world, tenant()).home.schema}.quietly(query text) returns text language plpgsql as $$
             declare x text; begin begin execute query into x; raise 'x'; exception when others then return x; end; end $$`,
        ),
      ),
    ),
  );

  it.each(files)('does not read %s', async (_, sql, message) => {
    const error = await run(sql).catch((reason: Error) => reason);
    expect(error).toMatchObject({ code: 'migration_refused' });
    expect((error as Error).message).toMatch(message);
  });

  it('catches errors over its own tables', async () => {
    await run(`do $$ begin begin create type mood as enum ('a'); exception when duplicate_object then null; end;
        execute 'alter table notes add column extra text'; end $$;
      do $$ begin begin perform 1 / 0; exception when division_by_zero then null; end; update notes set extra = body; end $$;
      do $$ begin create type mood as enum ('a'); exception when duplicate_object then null; end $$;
      alter table notes drop column extra; drop type mood`);
  });
});
