import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { isolations, sharedHome } from '../../../functions/lib/isolation/isolation.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { migrateHome } from '../../../functions/lib/migrations/migrator.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';

/** What a file's own code could do when nobody looks at its text, and undo before anybody looks at what it did. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const inBlock = (...statements: string[]) =>
  `do $do$ begin ${statements.map((sql) => `execute $sql$${sql}$sql$;`).join(' ')} end $do$`;
const back = 'set local role tenancy_owner';
const key =
  'do $b$ begin if not exists (select from tenancy.keys) then raise exception $$no keys$$; end if; end $b$';
/** As a trigger that fires when all is over: it puts itself off each time it is asked to fire. */
const later = (sql: string) => `
  create function later() returns trigger language plpgsql as $f$ begin
    set constraints all deferred;
    if (select count(*) from late) < 3 then insert into late (tenant_id, id) select tenant_id, gen_random_uuid() from late limit 1; end if;
    if current_setting('tenancy.over', true) = '1' then ${sql} end if;
    return null; end $f$;
  create table late (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id));
  create constraint trigger later after insert on late deferrable initially deferred for each row execute function later();
  insert into late select tenant_id, note_id from notes limit 1`;

/** What it is, the file, and what the refusal says. */
const escapes: [string, string, RegExp][] = [
  ['becomes the keeper and reads the keys', inBlock('set local role tenancy_keeper', key, back), /its role/],
  ['goes back to its login', inBlock('reset role', 'set local role tenancy_keeper', back), /its role/],
  ['becomes nobody in particular', inBlock('set role none', back), /its role/],
  [
    'changes its session’s login',
    inBlock('set session authorization tenancy_provisioner', back),
    /its role|session_authorization/,
  ],
  ['resets its session’s login', inBlock('reset session authorization', back), /its role/],
  [
    'sets its role as a setting',
    "do $$ begin perform set_config('role', 'tenancy_keeper', true); perform set_config('role', 'tenancy_owner', true); end $$",
    /its role/,
  ],
  [
    'sets its role as a setting, in a query',
    "select set_config('role', 'tenancy_keeper', true), set_config('role', 'tenancy_owner', true)",
    /its role/,
  ],
  [
    'calls a function with another role',
    "create function f() returns void language plpgsql set role = tenancy_keeper as 'begin end'; select f()",
    /its role/,
  ],
  [
    'leaves its role in a trigger',
    `create function t() returns trigger language plpgsql as $$ begin set local role tenancy_keeper; set local role tenancy_owner; return new; end $$;
     create trigger t before update on notes for each row execute function t(); update notes set amount = amount + 1`,
    /its role/,
  ],
  [
    'leaves its role at the end of the file',
    `create function t() returns trigger language plpgsql as $$ begin set local role tenancy_keeper; set local role tenancy_owner; return null; end $$;
     create constraint trigger t after update on notes deferrable initially deferred for each row execute function t(); update notes set amount = amount + 1`,
    /its role.*at (its end|line 2)/,
  ],
  [
    'swallows the refusal and goes on',
    `do $$ begin begin set local role tenancy_keeper; exception when others then null; end; perform from tenancy.keys; end $$`,
    /permission denied for table keys/,
  ],
  [
    'puts its triggers off beyond its end',
    later('null;'),
    /late: has triggers that fire when the file|reached for none of them/,
  ],
  [
    'leaves a cursor to be read at the end',
    inBlock('declare c cursor with hold for select body from notes'),
    /c: is a cursor that is read when/,
  ],
  [
    'listens to its history',
    `create function t() returns trigger language plpgsql as 'begin return new; end';
     do $$ begin execute 'create trigger t before insert on ' || '_migra' || 'tions for each row execute function t()'; end $$`,
    /_migrations: is the migrator's own/,
  ],
  [
    'takes the fence down for later',
    inBlock('alter procedure tenancy.run_statement(text) security invoker'),
    /run_statement\(text\): is not of the home/,
  ],
  [
    'takes the fence away',
    inBlock('drop procedure tenancy.run_statement(text)'),
    /tenancy\.run_statement: is not of the home|run_statement/,
  ],
  [
    'reads to the end what the audit looks back with',
    inBlock('drop table notes cascade', 'move all from tenancy_before'),
    /tenancy_before: is the migrator's own/,
  ],
  [
    'replaces what the audit looks back with',
    inBlock(
      'close tenancy_before',
      'declare tenancy_before no scroll cursor for select 0::oid as namespace, null::name as name',
    ),
    /tenancy_before: is the migrator's own/,
  ],
];

/** To what another home has; its remains are asked for by name. */
const neighbours: [string, string, RegExp][] = [
  ['drops its table', inBlock('drop table {other}.notes cascade'), /\.notes.*: is not of the home/],
  ['empties its table', inBlock('truncate {other}.notes cascade'), /\.notes.*: is not of the home/],
  [
    'changes its table',
    inBlock('alter table {other}.notes add column x int'),
    /\.notes.*: is not of the home/,
  ],
  ['takes its table', inBlock('alter table {other}.kept set schema {own}'), /\.kept: is not of the home/],
  ['drops its index', inBlock('drop index {other}.kept_word'), /\.kept_word: is not of the home/],
  ['renames its index', inBlock('alter index {other}.kept_word rename to x'), /\.kept_word: is not/],
  ['drops its sequence', inBlock('drop sequence {other}.kept_number'), /\.kept_number: is not of the home/],
  ['opens its table', inBlock('grant select on {other}.kept to public'), /\.kept: is not of the home/],
  ['closes its view', 'revoke select on {other}.kept_view from tenancy_owner', /kept_view: is not of/],
  ['drops its view', inBlock('drop view {other}.kept_view'), /\.kept_view: is not of the home/],
  ['drops its function', inBlock('drop function {other}.kept_function()'), /kept_function: is not of/],
  [
    'replaces its function',
    inBlock("create or replace function {other}.kept_function() returns int language sql as 'select 2'"),
    /kept_function\(\): is not of the home/,
  ],
  [
    'opens its function',
    inBlock('alter function {other}.kept_function() security definer'),
    /kept_function\(\): is not of the home/,
  ],
  ['drops its type', inBlock('drop type {other}.kept_type'), /kept_type: is not of the home/],
  ['changes its type', inBlock("alter type {other}.kept_type add value 'c'"), /kept_type: is not of/],
  [
    'drops its table and hides it',
    inBlock('drop table {other}.kept', 'create table {other}.kept (id int)', 'drop table {other}.kept'),
    /\.kept: is not of the home/,
  ],
];

/** What a team's files do, and may. */
const sound: [string, string][] = [
  [
    'tables that come, are rewritten and go',
    `create table extra (tenant_id uuid not null, id uuid not null default gen_random_uuid(), n int not null, note text, primary key (tenant_id, id));
     insert into extra (tenant_id, n, note) select tenant_id, 1, body from notes;
     alter table extra alter column n type bigint; alter table extra add column at timestamptz default clock_timestamp();
     create index extra_note on extra (lower(note)); reindex table extra; cluster extra using extra_pkey;
     alter table extra rename to more; alter table more rename column note to word; drop index extra_note; truncate more; drop table more`,
  ],
  [
    'a backfill in a DO block, with what fails in it',
    `do $$ declare n int; begin
       for n in 1..3 loop
         begin update notes set amount = amount + n; if n = 2 then raise 'again'; end if; exception when raise_exception then null; end;
       end loop;
       execute 'alter table notes add column extra int not null default 1'; execute 'alter table notes drop column extra';
     end $$`,
  ],
  [
    'functions, triggers and what puts checks off',
    `create function touched() returns trigger language plpgsql as $$ begin new.amount := new.amount + 1; return new; end $$;
     create trigger touched before update on notes for each row execute function touched();
     create function checked() returns trigger language plpgsql as $$ begin return null; end $$;
     create constraint trigger checked after update on notes deferrable initially deferred for each row execute function checked();
     update notes set amount = 0;
     create or replace function touched() returns trigger language plpgsql as $$ begin return new; end $$;
     drop trigger touched on notes; drop trigger checked on notes; drop function touched(); drop function checked()`,
  ],
  [
    'an enum that gets values',
    `create type mood as enum ('a'); alter type mood add value 'b'; alter type mood rename value 'a' to 'c';
     create domain short as text check (length(value) < 9); alter domain short drop constraint short_check;
     drop type mood; drop domain short`,
  ],
  [
    'rows selected into a table',
    `select gen_random_uuid() as tenant_id, 1 as note_id into picked -- as it is
     ; alter table picked alter column tenant_id set not null, add primary key (tenant_id, note_id); drop table picked`,
  ],
  [
    'a procedure, a view, a cursor and a body of SQL',
    `create procedure p() language plpgsql as 'begin update notes set amount = amount; end'; call p();
     create function total() returns bigint begin atomic select case when count(*) > 0 then sum(amount) else 0 end from notes; end;
     create view seen as select body from notes; declare c cursor for select 1; fetch c; close c;
     drop view seen; drop function total(); drop procedure p()`,
  ],
  [
    'settings of its own',
    `set check_function_bodies = off; set local work_mem = '8MB';
     create function broken() returns int language sql as 'select nothing from nowhere';
     do $$ begin if current_setting('work_mem') <> '8MB' or current_user <> 'tenancy_owner' then raise 'taken away'; end if; end $$;
     drop function broken()`,
  ],
];

describe.each(strategies)('%s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const home = () => (isolations[strategy].ownsTables ? tenant().home : sharedHome);
  /** In the same database: that of a tenant's own holds no other home, so one is made beside it. */
  const other = 'beside';
  const asOwner = (sql: string) =>
    world.asProvisioner(tenant(), (connection) =>
      asRole(connection, 'tenancy_owner', () => connection.query<{ is: string }>(sql)),
    );
  const migrate = (sql: string) =>
    world.asProvisioner(tenant(), (connection) =>
      migrateHome(
        connection,
        { home: home(), databaseId: tenant().home.databaseId, keys: world.plane.keys, isSound: true },
        [
          parseMigration(
            `${++number}-x.sql`,
            sql.replaceAll('{other}', other).replaceAll('{own}', home().schema),
          ),
        ],
      ),
    );
  const refusal = async (sql: string) => {
    const error = await migrate(sql).catch((reason: Error) => reason);
    expect(error).toMatchObject({ code: 'migration_refused' });
    return (error as Error).message;
  };
  const definers =
    'select prosecdef as is from pg_proc where oid = to_regprocedure($$tenancy.run_statement(text)$$)';

  beforeAll(async () => {
    await world.database(tenant()).query("insert into notes (body) values ('mine')");
    await asOwner(
      `create schema if not exists ${other}; set local search_path = ${other};
       create table if not exists notes (id int primary key); create table if not exists kept (id int primary key, word text);
       create index if not exists kept_word on kept (word); create sequence if not exists kept_number;
       create or replace view kept_view as select id from notes; create or replace function kept_function() returns int language sql as 'select 1';
       do $$ begin create type kept_type as enum ('a', 'b'); exception when duplicate_object then null; end $$`,
    );
  });

  it.each(escapes)('refuses a file that %s', async (_, sql, message) => {
    expect(await refusal(sql)).toMatch(message);
    expect((await asOwner(definers)).rows).toEqual([{ is: true }]);
  });

  it.each(neighbours)('refuses a file that, of another home, %s', async (_, sql, message) => {
    expect(await refusal(sql)).toMatch(message);
  });

  it.each(sound)('takes %s', async (_, sql) => {
    expect(await migrate(sql)).toHaveLength(1);
    const findings = await world.asProvisioner(tenant(), (connection) =>
      asRole(connection, 'tenancy_owner', () => isolations[strategy].check(connection, [home()])),
    );
    expect(findings).toEqual([]);
  });

  it('lets no path that a file leaves lead to the file’s own functions', async () => {
    await migrate(
      `create function json_agg(record) returns json language plpgsql as $$ begin raise 'taken in'; end $$;
       create function "coalesce"(json, text) returns json language plpgsql as $$ begin raise 'taken in'; end $$;
       do $$ begin perform set_config('search_path', current_schema() || ', pg_catalog', false); end $$`,
    );
    await migrate('drop function json_agg(record); drop function "coalesce"(json, text)');
  });

  it('reads a file without a transaction as it was read before, whatever a file has left in the session', async () => {
    const marked = 'create table tenancy.taken as select * from tenancy.keys';
    const files = [
      "do $$ begin perform set_config('standard_conforming_strings', 'off', false), set_config('standard_conforming_strings', 'on', true); end $$",
      // One text, or, as it would be read without that setting, four statements.
      `-- no-transaction\ncreate index concurrently marked on notes (tenant_id, body) where body <> 'a\\''; reset role; set role tenancy_keeper; ${marked}; commit; --'`,
      '-- no-transaction\ndrop index concurrently marked',
    ].map((sql) => parseMigration(`${++number}-x.sql`, sql));
    const target = { home: home(), databaseId: tenant().home.databaseId, keys: world.plane.keys };
    await world.asProvisioner(tenant(), async (connection) => {
      expect(await migrateHome(connection, target, files)).toHaveLength(3);
      const { rows } = await asRole(connection, 'tenancy_keeper', () =>
        connection.query("select to_regclass('tenancy.taken') as taken"),
      );
      expect(rows).toEqual([{ taken: null }]);
    });
  });

  it('lets no tenant use the fence', async () => {
    await world.asLogin(tenant(), (connection) =>
      expect(connection.query("call tenancy.run_statement('select 1')")).rejects.toMatchObject({
        code: '42501',
      }),
    );
  });
});
