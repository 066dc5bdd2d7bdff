import type { Aim, Theme } from '../attack.ts';

const everything = ({ victim }: Aim) => `select * from ${victim.relation}`;
const roles = ({ victim }: Aim) => [
  victim.login,
  'tenancy_app',
  'tenancy_tenants',
  'tenancy_owner',
  'tenancy_keeper',
  'tenancy_provisioner',
  'tenancy_catalog_reader',
  'pg_read_all_data',
  'postgres',
];
const asEach = (statement: (role: string) => string) => (aim: Aim) =>
  roles(aim).flatMap((role) => [statement(role), everything(aim)]);

/** More rights than the login has: other roles, grants, its own attributes, objects of its own. */
export const rights: Theme = {
  title: 'Taking rights',
  attacks: [
    { name: 'SET ROLE', sql: asEach((role) => `set role ${role}`) },
    {
      name: 'SET LOCAL ROLE and RESET ROLE',
      sql: asEach((role) => `set local role ${role}; reset role; set role ${role}`),
    },
    {
      name: 'the role setting through set_config',
      sql: asEach((role) => `select set_config('role', '${role}', true)`),
    },
    { name: 'SET SESSION AUTHORIZATION', sql: asEach((role) => `set session authorization ${role}`) },
    { name: 'GRANT of another role to itself', sql: asEach((role) => `grant ${role} to current_user`) },
    {
      name: 'GRANT on what is not its own',
      sql: (aim) => [
        `grant all on all tables in schema ${aim.victim.schema} to current_user`,
        `grant usage on schema ${aim.victim.schema}, tenancy to current_user`,
        `grant select on ${aim.victim.relation} to public`,
        everything(aim),
      ],
    },
    {
      name: 'ALTER ROLE of others and of its own attributes',
      sql: ({ own, victim }) => [
        // Its own login is another matter: see the residuals.
        ...(victim.login === own.login
          ? []
          : [
              `alter role ${victim.login} password 'stolen'`,
              `alter role ${victim.login} set search_path = pg_temp`,
              `alter role ${victim.login} in database ${victim.database} set row_security = off`,
            ]),
        'alter role current_user superuser',
        'alter role current_user bypassrls',
        'alter role current_user createrole',
        'alter role current_user connection limit 0',
        'alter role tenancy_owner login',
        "create role mole login password 'x' superuser",
        `drop role ${victim.login}`,
      ],
    },
    {
      name: 'ALTER DATABASE and ALTER SYSTEM',
      from: 'session',
      sql: ({ victim }) => [
        `alter database ${victim.database} set row_security = off`,
        `alter database ${victim.database} owner to current_user`,
        `alter database ${victim.database} with allow_connections false`,
        `drop database ${victim.database}`,
        "alter system set session_preload_libraries = 'x'",
      ],
    },
    {
      name: 'DROP OWNED, REASSIGN OWNED',
      from: 'session',
      // Locks each table of which it takes the guard.
      alone: true,
      sql: (aim) => [
        // Takes the guard, which names the shared login: undone, because the system is in use.
        'begin',
        'drop owned by current_user cascade',
        'drop owned by tenancy_tenants cascade',
        `drop owned by ${aim.victim.login} cascade`,
        `reassign owned by ${aim.victim.login} to current_user`,
        'drop owned by tenancy_owner cascade',
        everything(aim),
        'rollback',
      ],
    },
    {
      name: 'ALTER DEFAULT PRIVILEGES',
      sql: () => [
        'alter default privileges for role tenancy_owner grant select on tables to public',
        'alter default privileges grant all on tables to public',
        // Its own it may; it can make no table.
        'alter default privileges revoke all on tables from public',
      ],
    },
    {
      name: 'ALTER TABLE of the wall',
      sql: ({ victim }) => [
        `alter table ${victim.relation} disable row level security`,
        `alter table ${victim.relation} no force row level security`,
        `alter table ${victim.relation} owner to current_user`,
        `alter table ${victim.relation} disable trigger all`,
        `alter table ${victim.relation} drop constraint tenancy_home`,
        `alter table ${victim.relation} set schema public`,
        `alter table ${victim.relation} rename to gone`,
      ],
    },
    {
      name: 'policies and rules of its own',
      sql: ({ victim }) => [
        `create policy mine on ${victim.relation} using (true)`,
        `alter policy tenancy_rows on ${victim.relation} using (true)`,
        `drop policy tenancy_rows on ${victim.relation}`,
        `create rule spy as on insert to ${victim.relation} do also notify spied`,
      ],
    },
    {
      name: 'tables, views and sequences',
      sql: ({ own, victim }) => [
        `create table ${own.schema}.loot as select * from ${victim.relation}`,
        `create view ${own.schema}.loot as select * from ${victim.relation}`,
        `create view ${victim.schema}.loot as select * from ${victim.relation}`,
        `create materialized view ${own.schema}.loot as select * from ${victim.relation}`,
        `select * into ${own.schema}.loot from ${victim.relation}`,
        `create table public.loot ()`,
        `create sequence ${own.schema}.loot`,
        `create table ${own.schema}.child () inherits (${victim.relation})`,
        `create foreign table ${own.schema}.loot () server nowhere`,
        `create statistics ${own.schema}.loot on tenant_id, (1) from ${victim.relation}`,
        `create index on ${victim.relation} (tenant_id)`,
      ],
    },
    {
      name: 'temporary objects in front of the real ones',
      sql: ({ own, victim }) => [
        `create temp table ${victim.table} ()`,
        `create temp view ${victim.table} as select 1`,
        'create function pg_temp.sha256(bytea) returns bytea language sql as $$ select $1 $$',
        `create temp table keys as select 'k1' as key_id`,
        `create schema ${own.login}`,
        'create schema authorization current_user',
      ],
    },
    {
      name: 'functions, operators, casts and types',
      sql: ({ own, victim }) => [
        `create function ${own.schema}.f(text) returns boolean language sql as 'select true'`,
        `create function pg_temp.leak(text) returns boolean cost 0.0001 language plpgsql as $$ begin raise notice '%', $1; return true; end $$`,
        `select * from ${victim.relation} v where pg_temp.leak(v::text)`,
        `create operator ${own.schema}.= (leftarg = uuid, rightarg = uuid, procedure = pg_catalog.uuid_ne)`,
        `create domain ${own.schema}.d as text`,
        `create type ${own.schema}.t as enum ('x')`,
        'create cast (uuid as text) with inout as implicit',
        `create or replace function tenancy.current_tenant() returns uuid language sql as 'select null::uuid'`,
        `create or replace function ${own.schema}.now() returns timestamptz language sql as 'select null::timestamptz'`,
      ],
    },
    {
      name: 'triggers, event triggers, publications, languages',
      sql: ({ victim }) => [
        `create trigger spy after insert on ${victim.relation} for each row execute function tenancy.capture('tenant_id')`,
        'create event trigger spy on ddl_command_end execute function tenancy.capture()',
        `create publication spy for table ${victim.relation}`,
        "create subscription spy connection 'host=127.0.0.1' publication p",
        'create language plperlu',
        'create or replace function tenancy.enter(text) returns void language sql as $$ select $$',
      ],
    },
    {
      name: 'extensions that reach out',
      sql: () =>
        [
          'dblink',
          'postgres_fdw',
          'file_fdw',
          'adminpack',
          'pageinspect',
          'pgstattuple',
          'lo',
          'plperl',
          'pg_trgm',
          'hstore',
        ].map((name) => `create extension ${name}`),
    },
    {
      name: 'DROP and TRUNCATE',
      sql: ({ victim }) => [
        `truncate ${victim.relation} cascade`,
        `drop table ${victim.relation} cascade`,
        `drop schema ${victim.schema} cascade`,
        'drop schema tenancy cascade',
        'drop function tenancy.current_tenant() cascade',
      ],
    },
    {
      name: 'maintenance commands',
      from: 'session',
      sql: ({ victim }) => [
        `vacuum full ${victim.relation}`,
        `analyze ${victim.relation}`,
        `reindex table ${victim.relation}`,
        `cluster ${victim.relation}`,
        'checkpoint',
        `comment on table ${victim.relation} is 'x'`,
        `security label on table ${victim.relation} is 'x'`,
      ],
    },
    {
      name: 'SET CONSTRAINTS and replication role',
      sql: ({ victim }) => [
        'set constraints all deferred',
        'set session_replication_role = replica',
        `select set_config('session_replication_role', 'replica', false)`,
        `delete from ${victim.relation}`,
      ],
    },
  ],
};
