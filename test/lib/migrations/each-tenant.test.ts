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
      'a procedure',
      'call fill_x()',
      "create procedure fill_x() language sql as 'update orders_x o set name = p.name from people_x p where p.id = o.person'",
    ],
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

  it('by several statements and files, with a column made before', async () => {
    const { run, names } = await started('');
    await run(
      'alter table orders_x add column label text; update orders_x o set label = p.name from people_x p where p.id = o.person',
    );
    await run('update orders_x set name = label; alter table orders_x drop column label');
    expect(await names()).toEqual(own());
  });
});

describe('shared tables', () => {
  const { rls } = { rls: () => world.tenants.rls.a };
  const run = (sql: string) =>
    migrate(world, rls(), [parseMigration(`${++number}-x.sql`, sql)], { isSound: true });

  it.each([
    ['a table made of rows', 'create table copies as select * from notes'],
    ['rows for nobody', "insert into notes (body) values ('seed')"],
    ['a look at all', 'select max(body) from notes'],
    ['a check that looks', 'alter table notes add constraint looks check (looks(body))'],
  ])('refuse %s, with line and remedy', async (_, statement) => {
    const before =
      "create function looks(b text) returns boolean language sql stable as 'select exists (select from notes where body = b)'";
    for (const tenant of [world.tenants.rls.a, world.tenants.rls.b])
      await world.database(tenant).query("insert into notes (body) values ('here') on conflict do nothing");
    await expect(run(`${before};\n${statement}`)).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/at line 2 .*: write it as an `update`/),
    });
  });

  it.each([
    ['one that goes', '; drop table bucket'],
    ['one that stays', ''],
  ])('take no rows into a table without tenant_id: %s', async (_, then) => {
    await expect(
      run(`create table bucket (body text); insert into bucket select body from notes${then}`),
    ).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(
        /one tenant after the other into a table without tenant_id.*tenant_id uuid not null/,
      ),
    });
  });

  it('take no rows into a table without tenant_id that a block makes for the first of them', async () => {
    await expect(
      run(
        "do 'begin create table if not exists bucket (body text); insert into bucket select body from notes; end'; drop table bucket",
      ),
    ).rejects.toMatchObject({ message: expect.stringContaining('one tenant after the other into a table') });
  });

  it.each([
    ['a computed column', 'alter column body type text using body_of(body)'],
    ['a default', 'add column first_body text default body_of(null)'],
    ['a check', "add constraint looks check (body_of(body) <> '')"],
  ])('let a foreign key alone look at all rows, not %s beside it', async (_, action) => {
    const before = `create table pointed (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id));
      create function body_of(b text) returns text language sql volatile as 'select max(id::text) from pointed';
      alter table notes add column pointed uuid; insert into pointed (tenant_id, id) select tenant_id, note_id from notes;`;
    const key = 'add foreign key (tenant_id, pointed) references pointed (tenant_id, id)';
    await expect(run(`${before}\nalter table notes ${action}, ${key}`)).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/for none of them.*at line 4/),
    });
    await run(
      `${before} alter table notes ${key}; alter table notes drop column pointed; drop function body_of(text); drop table pointed`,
    );
  });

  it.each([
    ['a statement', '{}'],
    ['a block that makes it once', 'do $$ begin {} end $$'],
    [
      'a block that makes it for the first of them',
      "do $$ begin if not exists (select from pg_constraint where conname = 'k') then {} end if; update notes set amount = amount; end $$",
    ],
  ])('check a new foreign key over all of them, in %s', async (_, form) => {
    const key =
      'alter table links add constraint k foreign key (tenant_id, note_id) references notes (tenant_id, note_id);';
    await run(
      'create table links (tenant_id uuid not null, note_id uuid not null, primary key (tenant_id, note_id))',
    );
    const everybodys = [world.tenants.rls.a, world.tenants.rls.b].map((tenant) => world.database(tenant));
    for (const db of everybodys) await db.query('insert into links (note_id) values (gen_random_uuid())');
    for (const db of everybodys) {
      await expect(run(form.replace('{}', key))).rejects.toMatchObject({
        message: expect.stringContaining('violates foreign key'),
      });
      await db.query('delete from links');
    }
    await run(form.replace('{}', key));
    await run('alter table links drop constraint k; drop table links');
  });

  it('take no query of a file’s own for the server’s check of a foreign key', async () => {
    await world.database(world.tenants.rls.a).query("insert into notes (body) values ('looked at')");
    await expect(
      run(
        `create function looks() returns bigint language plpgsql as 'declare n bigint; begin SELECT fk."amount" into n from notes fk limit 1; return n; end';
         select looks()`,
      ),
    ).rejects.toMatchObject({ message: expect.stringContaining('for none of them') });
  });

  it('let columns of a foreign key get another type', async () => {
    await run(
      `create table parents (tenant_id uuid not null, id integer not null, primary key (tenant_id, id));
       create table children (tenant_id uuid not null, id integer not null, parent integer not null, primary key (tenant_id, id),
         foreign key (tenant_id, parent) references parents (tenant_id, id));
       insert into parents (tenant_id, id) select distinct tenant_id, 1 from notes; insert into children (tenant_id, id, parent) select tenant_id, 1, id from parents;`,
    );
    await run(
      'alter table parents alter column id type bigint; alter table children alter column parent type bigint; drop table children; drop table parents',
    );
  });

  it('find a table open to nobody, in the file that opens it', async () => {
    await expect(
      run(
        'alter table notes disable row level security; create table copies as select tenant_id, note_id as id, (select max(body) from notes) from notes; alter table copies alter tenant_id set not null, add primary key (tenant_id, id)',
      ),
    ).rejects.toMatchObject({ message: expect.stringContaining('for none of them') });
  });

  it('refuse to pass rows on in a table without tenant_id, and take constants there', async () => {
    const made = 'create table words (word text)';
    const dropped = 'drop table words';
    await expect(
      run(`${made};\ninsert into words select body from notes;\n${dropped}`),
    ).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/at line 2 .*: declare `tenant_id uuid not null` in it/),
    });
    await run(
      `${made}; insert into words values ('here'); update notes set amount = 1 from words where body = word; ${dropped}`,
    );
  });

  it('give no row to another tenant', async () => {
    const { a, b } = world.tenants.rls;
    await expect(run(`update notes set tenant_id = '${b.id}'`)).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringContaining('row-level security'),
    });
    expect((await world.database(a).query("select from notes where body = 'here'")).rows).toHaveLength(1);
  });

  it('take a file whose statements reach nobody’s rows as it is', async () => {
    await run(
      "do 'begin create table made_once (tenant_id uuid not null, id integer not null, primary key (tenant_id, id)); end'",
    );
  });

  it('leave nothing of one tenant for the next statement', async () => {
    await expect(
      run(
        `update notes set amount = amount;\ndo 'begin if current_setting($$tenancy.maintained$$) <> $$$$ then raise $$left$$; end if; end'`,
      ),
    ).resolves.toBeDefined();
  });
});
