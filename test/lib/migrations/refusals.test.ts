import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate as migrateTenant } from './target.ts';

/** Whoever reads a refusal must find the statement, and know what to write instead. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const parse = (sql: string) => () => parseMigration('0007-x.sql', sql);

describe('before anything runs, a refusal names file, line and statement, and says what to write:', () => {
  it.each([
    [
      'select 1;\n\ncopy notes from stdin;\n1\tit’s\n\\.\n',
      3,
      'copy notes from stdin',
      'insert into … values',
    ],
    ['-- a dump\n\\restrict Abc\nselect 1;', 2, '\\restrict Abc select 1', 'delete the line'],
    [
      'select 1;\n/* x\n*/ create table public.t (id int)',
      3,
      'create table public.t (id int)',
      'without a schema',
    ],
    ['update "public".notes set amount = 1', 1, 'update "public".notes set amount = 1', 'without a schema'],
    ['drop table if exists shared.notes', 1, 'drop table if exists shared.notes', 'without a schema'],
    ['\n\ncreate temp table t (id int)', 3, 'create temp table t (id int)', 'with … as'],
    ['select * into temporary t from notes', 1, 'select * into temporary t from notes', 'with … as'],
    ['select 1;\r\ncommit', 2, 'commit', 'leave transactions and roles to the migrator'],
    ['grant tenancy_owner to tenancy_app', 1, 'grant tenancy_owner', 'leave transactions and roles'],
    ['set "role" to tenancy_keeper', 1, 'set "role" to tenancy_keeper', 'leave transactions and roles'],
    ['drop schema shared cascade', 1, 'drop schema shared cascade', 'leave schemas to the migrator'],
    ['alter default privileges grant select on tables to public', 1, 'alter default', 'leave rights to the'],
    ['create publication p for table notes', 1, 'create publication p', 'has no wall'],
    ['create server s foreign data wrapper w', 1, 'create server s', 'leave it out'],
    ['delete from _migrations', 1, 'delete from _migrations', 'leave `_migrations`'],
    ['create extension hstore', 1, 'create extension hstore', 'the setting `extensions`'],
    ['vacuum notes', 1, 'vacuum notes', 'the server does it by itself'],
    ['select 1;\nset lock_timeout = 0;\nset lock_timeout = 9', 3, 'set lock_timeout = 9', 'leave it out'],
    ['select 1;\ncreate index concurrently i on notes (body)', 2, 'create index', '`-- no-transaction`'],
    [
      '-- no-transaction\n\ncreate unique index concurrently i on notes (body)',
      3,
      'create unique',
      'add tenant_id',
    ],
  ])('%s', (sql, line, statement, remedy) => {
    expect(parse(sql)).toThrow(/^0007-x\.sql /);
    expect(parse(sql)).toThrow(`, at line ${line} (\`${statement}`);
    expect(parse(sql)).toThrow(remedy);
  });

  it('tells all that is wrong with a file, each fault once', () => {
    const dump =
      'create table public.a (id int);\ncopy public.a from stdin;\n1\n\\.\nselect 1;\ncreate table public.b (id int);\nalter table public.b add x int';
    expect(parse(dump)).toThrow(
      /^0007-x\.sql names a schema, at line 1 .*, and in 2 more statements: write .*\n0007-x\.sql contains `copy`, at line 2 /,
    );
  });

  it('tells where a quote or a comment begins that does not end, and of a file that is no plain text', () => {
    expect(parse("select 1;\nselect 'open")).toThrow(/does not end, from line 2: end it/);
    for (const sql of ['\ufeff-- shared\nselect 1', 'select 1\0'])
      expect(parse(sql)).toThrow(/save it as UTF-8/);
  });

  it('reads a file of 5 MB', () => {
    const long = `insert into notes (body) values ('${"it''s ".repeat(1_000_000)}');\ncommit`;
    expect(parse(long)).toThrow(/at line 2 \(`commit`\)/);
    const many = 'insert into notes (body) values (1);\n'.repeat(130_000);
    expect(parse(many)().sql).toBe(many);
  });
});

/** Where PostgreSQL sees a COMMIT and a reader who is a little less exact sees a quote, a comment or a body. */
const hidden = [
  'select 1 as a$$; commit; select 2 as b$$',
  "select text'\\'; commit; --'",
  'select 1; -- a comment\rcommit',
  "select E'a'\n'\\' /* '; commit; --*/",
  "select $é$ ' $é$; commit; --'",
  'select x.begin atomic from (select 1 as begin) x; commit; select 1 as "end"',
  "create domain atomic as int; create function f(begin atomic) returns int language sql as 'select 1'; commit; select 2 as end",
];
/** Where it sees none. */
const harmless = [
  "select E'a''\\'; commit; --'",
  'select $_$ $$; commit; $_$',
  '/* /*/ commit; */ ; commit; */ select 1',
  'select U&"; commit; \\0061" from (select 1 as "; commit; a") x',
];

describe('a statement is one where PostgreSQL sees one', () => {
  const isCommitted = (sql: string) =>
    world.asProvisioner(world.tenants.rls.a, async (connection) => {
      await connection.query('begin; set local role tenancy_owner; set local search_path = shared');
      await connection.query(sql);
      return connection.query('savepoint here; rollback').then(
        () => false,
        ({ code }) => code === '25P01',
      );
    });
  it.each(hidden)('hides no COMMIT: %s', async (sql) => {
    expect(await isCommitted(sql)).toBe(true);
    expect(parse(sql)).toThrow(/handles transactions, at line/);
  });
  it.each(harmless)('finds no COMMIT in: %s', async (sql) => {
    expect(await isCommitted(sql)).toBe(false);
    expect(parse(sql)().sql).toBe(sql);
  });
  it('takes a comment for the space that it is', () => {
    expect(parse('set/**/role/* */tenancy_keeper')).toThrow(/handles roles/);
  });
});

describe.each(strategies)('%s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const migrate = (...sql: string[]) =>
    migrateTenant(
      world,
      tenant(),
      sql.map((text) => parseMigration(`${++number}-told.sql`, text)),
    );

  it.each([
    [
      'create view grouped as select n.note_id, n.body, count(*) from notes n group by n.note_id;',
      1,
      'create view grouped',
      'the whole primary key of its table, which tenant_id is a part of',
    ],
    ['select 1;\n\nselect 1 / 0;\nselect 2', 3, 'select 1 / 0', 'correct it and run it again'],
    [
      'select 1;\n-- why\nalter table notes\n  add column 😀 nosuchtype',
      3,
      'alter table notes add',
      'correct it',
    ],
    [
      "do $$ begin raise exception 'no room' using errcode = '53100'; end $$",
      1,
      'do $$',
      'the file is not at fault: make room on that server’s disk, and run it again',
    ],
    ["select '😀😀';\nselect 1 +;", 2, 'select 1 +', 'correct it'],
    ['do $$ begin create temp table t (id int); end $$', 1, 'do $$', 'with … as'],
    ['select 1;\ndo $$ begin perform from public.notes; end $$', 2, 'do $$', 'without a schema'],
    ['select 1;\nselect * from nowhere.notes', 2, 'select * from nowhere.notes', 'without a schema'],
    [
      'create function f() returns int language plpgsql as $$ begin commit; end $$; select f()',
      1,
      'select f()',
      'begin and end',
    ],
    ['select 1;\ncreate table t (x hstore)', 2, 'create table t', 'setting `extensions`'],
    ['comment on database postgres is null', 1, 'comment on database', 'leave it out'],
    ['select 1;\nalter table notes owner to postgres', 2, 'alter table notes owner', '--no-owner'],
    ['create table notes (id int)', 1, 'create table notes', '`): an earlier file or statement has made it'],
    [
      'alter table notes add column body text',
      1,
      'alter table notes add',
      '`): an earlier file or statement has made it',
    ],
    [
      'do $$ begin create table notes (id int); end $$',
      1,
      'do $$',
      '`): make it in a statement of its own: in tables that tenants share',
    ],
    [
      "insert into notes (body) select 'x' from generate_series(1, 2)",
      1,
      'insert into notes',
      'RUNBOOK.md, "Homes quarantined"',
    ],
    [
      `create function low(t text) returns text language sql immutable as 'select lower(t)';
       create function lower_still(t text) returns text language sql immutable as 'select low(t)';
       create index notes_low on notes (lower_still(body), tenant_id)`,
      3,
      'create index notes_low',
      '`): where an index or a materialized view is made, a function finds PostgreSQL’s own names only: declare it `set search_path from current`',
    ],
    [
      '-- shared\ncreate table kinds (kind int primary key, parent int references kinds);\ninsert into kinds values (1, 2)',
      3,
      'insert into kinds',
      '`): insert what a row points at before it',
    ],
    [
      'create view bodies with (security_invoker = true) as select body from notes;\nalter table notes alter column body type varchar(9)',
      2,
      'alter table notes alter',
      '`): drop what depends on it before, make it again behind it, in the same file (rule _RETURN on view bodies depends on column "body")',
    ],
    [
      'create view bodies with (security_invoker = true) as select body from notes;\nalter table notes drop column body',
      2,
      'alter table notes drop',
      '(view bodies depends on column body of table notes)',
    ],
    [
      'create table parts (tenant_id uuid not null, id uuid, note uuid references notes (note_id), primary key (tenant_id, id))',
      1,
      'create table parts',
      'write `foreign key (tenant_id, …) references … (tenant_id, …)`',
    ],
    [
      "insert into notes (body) select 'x' from notes on conflict (body) do nothing",
      1,
      'insert into notes',
      'write `on conflict (tenant_id, …)`',
    ],
    ['grant select on notes to nobody_here', 1, 'grant select on notes', '--no-privileges'],
  ])('names line and statement of what PostgreSQL refuses: %s', async (sql, line, statement, remedy) => {
    const error = await migrate('select 1', sql).catch((reason: Error) => reason);
    expect(error).toMatchObject({ code: 'migration_refused' });
    const { message } = error as Error;
    expect(message).toMatch(new RegExp(`^${number}-told\\.sql `));
    expect(message).toContain(`, at line ${line} (\`${statement}`);
    expect(message).toContain(remedy);
  });

  it('says that a file left its role where a function or a DO block did', async () => {
    for (const way of ["execute 'reset role'", "perform set_config('role', 'tenancy_keeper', true)"])
      await expect(migrate(`do $$ begin ${way}; end $$`)).rejects.toThrow(
        /^\d{4}-told\.sql changes its role, in a function or DO block, at line 1 \(`do \$\$/,
      );
  });

  it('says how a new word of an enum comes to be used', async () => {
    const adds = "alter type mood add value 'ok'";
    const uses = "alter table moods alter column mood set default 'ok'";
    await migrate(
      `create type mood as enum ('sad'); create table moods (tenant_id uuid not null, id int, mood mood, primary key (tenant_id, id))`,
    );
    await expect(migrate(`${adds}; ${uses}`)).rejects.toThrow(
      'move `alter type … add value` into a file of its own',
    );
    expect(await migrate(adds, uses)).toHaveLength(2);
    await migrate('drop table moods; drop type mood');
  });

  it('says how a table that is completed already becomes a partition, and that works', async () => {
    await migrate(
      `create table days (tenant_id uuid not null, day date not null, primary key (tenant_id, day)) partition by range (day);
       create table later (like days including all)`,
    );
    const attach = `alter table days attach partition later for values from ('2026-01-01') to ('2027-01-01')`;
    const error = (await migrate(attach).catch((reason: Error) => reason)) as Error;
    const remedy = /`(drop trigger .*?)`/.exec(error.message)?.[1];
    expect(error.message).toContain('at line 1 (`alter table days attach partition later');
    expect(await migrate(`${remedy}; ${attach}`)).toHaveLength(1);
    const db = world.database(tenant());
    await db.query("insert into days (day) values ('2026-05-05')");
    await migrate('drop table days');
  });

  it('names line and statement of one without a transaction', async () => {
    await expect(
      migrate('-- no-transaction\n\ncreate index concurrently i on notes (nothing)'),
    ).rejects.toThrow(/failed: column "nothing" does not exist .*, at line 3 \(`create index concurrently i/);
  });
});
