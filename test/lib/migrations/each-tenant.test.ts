import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate } from './target.ts';

/** A migration of shared tables reaches one tenant's rows after the other's: two of them may have the same key, here all do. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

let number = 9000;

const ofPolicies = [
  [
    'a policy of the migrator’s that the file changes',
    `alter policy tenancy_maintenance on people_x using (true);
       update orders_x o set name = (select string_agg(name, ',') from people_x p where p.id = o.person)`,
  ],
  [
    'a policy of every tenant’s that the file changes and takes away',
    `alter policy tenancy_rows on people_x using (true);
       update orders_x o set name = (select string_agg(name, ',') from people_x p where p.id = o.person);
       drop policy tenancy_rows on people_x`,
  ],
  [
    'a policy of the migrator’s that a file before it has changed',
    `-- shared
       alter policy tenancy_maintenance on people_x using (true);
     next file
       update orders_x o set name = (select string_agg(name, ',') from people_x p where p.id = o.person)`.replace(
      /^ +/gm,
      '',
    ),
  ],
];

describe.each(strategies)('%s: a backfill gives each tenant its own', (strategy) => {
  const both = () => [world.tenants[strategy].a, world.tenants[strategy].b] as const;
  /** In every home of this strategy: both tenants of the shared tables have one. */
  async function inHomes(sql: string, isSound = true) {
    const files = sql.split('next file').map((part) => parseMigration(`${++number}-x.sql`, part));
    for (const tenant of strategy === 'rls' ? both().slice(0, 1) : both())
      await migrate(world, tenant, files, { isSound });
  }
  let made = 0;
  /** People and orders of both tenants, with the same keys; `x` in the SQL makes their names this case's. */
  async function started(ddl: string) {
    const x = `x${++made}`;
    await inHomes(
      `create table people_x (tenant_id uuid not null, id integer not null, name text not null, primary key (tenant_id, id));
       create table orders_x (tenant_id uuid not null, id integer not null, person integer not null, name text, seen integer, primary key (tenant_id, id));
       ${ddl}`.replaceAll('_x', `_${x}`),
    );
    for (const tenant of both()) {
      const db = world.database(tenant);
      await db.query(`insert into people_${x} (id, name) values (1, '${tenant.slug}')`);
      await db.query(`insert into orders_${x} (id, person) values (1, 1)`);
    }
    return {
      run: (sql: string) => inHomes(sql.replaceAll('_x', `_${x}`)),
      names: async () =>
        Promise.all(
          both().map(async (tenant) => {
            const { rows } = await world
              .database(tenant)
              .query<{ name: string }>(`select name from orders_${x} order by id`);
            return rows.map(({ name }) => name);
          }),
        ),
    };
  }
  const own = () => both().map(({ slug }) => [slug]);

  it.each([
    ['a join by key', 'update orders_x o set name = p.name from people_x p where p.id = o.person'],
    [
      'a subquery',
      'update orders_x set name = (select max(name) from people_x where people_x.id = orders_x.person)',
    ],
    [
      'a common table expression',
      'with p as (select id, name from people_x) update orders_x set name = p.name from p where p.id = orders_x.person',
    ],
    [
      'MERGE',
      'merge into orders_x o using people_x p on p.id = o.person when matched then update set name = p.name',
    ],
    [
      'a function',
      'update orders_x set name = name_of_x(person)',
      "create function name_of_x(p integer) returns text language sql stable as 'select max(name) from people_x where id = p'",
    ],
    [
      'a view',
      'update orders_x o set name = v.name from named_x v where v.id = o.id',
      'create view named_x as select o.id, p.name from orders_x o join people_x p on p.id = o.person',
    ],
    [
      'a trigger',
      'update orders_x set seen = 1',
      `create function fill_x() returns trigger language plpgsql as 'begin new.name := (select max(name) from people_x where id = new.person); return new; end';
       create trigger fill before update on orders_x for each row execute function fill_x()`,
    ],
    [
      'a trigger that writes elsewhere',
      'update people_x set name = name',
      `create function tell_x() returns trigger language plpgsql as 'begin update orders_x set name = coalesce(name, new.name) where person = new.id; return null; end';
       create trigger tell after update on people_x for each row execute function tell_x()`,
    ],
    [
      'a table that the file makes before',
      `create table copy_x (tenant_id uuid not null, id integer not null, name text, primary key (tenant_id, id));
       insert into copy_x (tenant_id, id, name) select tenant_id, id, name from people_x;
       update orders_x o set name = p.name from copy_x p where p.id = o.person`,
    ],
    [
      'a table whose row security the file has taken away before',
      `alter table people_x disable row level security;
       update orders_x o set name = (select max(name) from people_x p where p.id = o.person)`,
    ],
    [
      'a trigger that waits, and is let in a later block',
      `update people_x set name = name;
       do 'begin set constraints all immediate; update orders_x o set name = (select string_agg(name, '','') from log_x l where l.id = o.person); end'`,
      `create table log_x (tenant_id uuid not null, id integer not null, name text not null, primary key (tenant_id, id, name));
       create function log_x() returns trigger language plpgsql as 'begin insert into log_x (id, name) values (new.id, new.name); return null; end';
       create constraint trigger log after update on people_x deferrable initially deferred for each row execute function log_x()`,
    ],
    [
      'a DO block that catches what it fails by',
      "do 'begin update orders_x o set name = p.name from people_x p where p.id = o.person; exception when others then raise notice $$no$$; end'",
    ],
    [
      'a DO block',
      "do 'declare p record; begin for p in select * from people_x loop update orders_x set name = p.name where person = p.id; end loop; end'",
    ],
    [
      'a policy of the file’s own',
      `create policy everybody on people_x using (true);
       update orders_x o set name = (select string_agg(name, ',') from people_x p where p.id = o.person);
       drop policy everybody on people_x`,
    ],
    [
      'a block under policies of files before it',
      `create policy everybody on people_x using (true); create policy everybody on orders_x using (true);
       next file do 'begin update orders_x o set name = (select string_agg(name, $$,$$) from people_x p where p.id = o.person); end';
       next file drop policy everybody on people_x; drop policy everybody on orders_x`,
    ],
    [
      'a block whose query begins like the server’s own check of a key',
      `do $$ declare names text; begin SELECT fk."name" || ',' || string_agg(p.name, ',')
           into names from people_x fk join people_x p using (id) where fk.id = 1 group by fk.name;
         update orders_x set name = split_part(names, ',', 1); end $$`,
    ],
    [
      'a procedure',
      'call fill_x()',
      "create procedure fill_x() language sql as 'update orders_x o set name = p.name from people_x p where p.id = o.person'",
    ],
    // Where a tenant has tables of its own there are no policies to change.
    ...(strategy === 'rls' ? ofPolicies : []),
  ])('by %s', async (_, backfill, ddl = '') => {
    const { run, names } = await started(ddl);
    await run(backfill);
    expect(await names()).toEqual(own());
  });

  it('by INSERT … SELECT, whose rows are that tenant’s, and a trigger’s too', async () => {
    const { run, names } = await started(
      `create table log_x (tenant_id uuid not null, id integer not null, name text, primary key (tenant_id, id));
       create function log_x() returns trigger language plpgsql as 'begin insert into log_x (id, name) values (new.id, new.name); return null; end';
       create trigger log after insert on orders_x for each row execute function log_x();`,
    );
    await run(
      'delete from log_x; delete from orders_x; insert into orders_x (id, person, name) select 1, p.id, p.name from people_x p; update orders_x o set name = l.name from log_x l where l.id = o.id',
    );
    expect(await names()).toEqual(own());
  });

  it.each([
    ['in the same file', ''],
    ['in a file of the same transaction', 'next file'],
  ])('with a table made %s', async (_, next) => {
    const { run, names } = await started('');
    await run(
      [
        `create table copies_x (tenant_id uuid not null, id integer not null, name text, primary key (tenant_id, id));`,
        `insert into copies_x (id, name) select id, name from people_x;
         update orders_x set name = (select string_agg(name, ',') from copies_x)`,
      ].join(next),
    );
    expect(await names()).toEqual(own());
  });

  it.each([
    ['dropped at its end', 'create table working_x (tenant_id uuid, id integer, name text)'],
    [
      'made in a DO block',
      "do 'begin create table if not exists working_x (tenant_id uuid, id integer, name text); perform from people_x; end'",
    ],
    [
      'made in a function',
      "create function make_x() returns integer language plpgsql as 'begin create table if not exists working_x (tenant_id uuid, id integer, name text); return 1; end'; update people_x set id = make_x()",
    ],
  ])('with a table of the file’s own, %s', async (_, make) => {
    const { run, names } = await started('');
    await run(
      `${make}; insert into working_x (id, name) select id, name from people_x;
       update orders_x set name = (select string_agg(name, ',') from working_x);
       drop table working_x`,
    );
    expect(await names()).toEqual(own());
  });

  it('with a table that one statement makes, fills and reads', async () => {
    const { run, names } = await started(
      `create function copy_x() returns text language plpgsql as $$ begin
         create table if not exists copies_x (tenant_id uuid not null, id integer not null, name text, primary key (tenant_id, id));
         execute 'insert into copies_x (tenant_id, id, name) select tenant_id, id, name from people_x';
         return (select string_agg(name, ',') from copies_x); end $$`,
    );
    await run('update orders_x set name = copy_x()');
    expect(await names()).toEqual(own());
  });

  it('in tables for which a file switches row security on', async () => {
    const { run, names } = await started('');
    await run(
      'alter table people_x enable row level security; alter table orders_x enable row level security, force row level security; alter table orders_x add column label text',
    );
    await run('update orders_x o set name = p.name from people_x p where p.id = o.person');
    expect(await names()).toEqual(own());
  });

  it('by several statements and files, with a column made before', async () => {
    const { run, names } = await started('');
    await run(
      'alter table orders_x add column label text; update orders_x o set label = p.name from people_x p where p.id = o.person',
    );
    await run('update orders_x set name = label; alter table orders_x drop column label');
    expect(await names()).toEqual(own());
  });
});
