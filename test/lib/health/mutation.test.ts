import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import type { Check, HealthState } from '../../../functions/lib/health/findings.ts';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { endpoint } from '../../support/cluster.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import { runOnce, startWatching, told } from './support.ts';

/** A running system, sabotaged in one way after the other: the next run says what and where, and nothing once it is mended. */
let world: World;
let watch: Watch;
let genuine: string;
beforeAll(async () => {
  world = await startWorld();
  watch = await startWatching(world);
  genuine = await world.asProvisioner(world.tenants.rls.a, (connection) =>
    asRole(connection, 'tenancy_keeper', async () => {
      const { rows } = await connection.query(
        "select pg_get_functiondef('tenancy.current_tenant()'::regprocedure) as definition",
      );
      return rows[0]!.definition;
    }),
  );
});
afterAll(() => world?.close());

interface Mutation {
  readonly breach: string;
  readonly as: 'tenancy_owner' | 'tenancy_keeper' | 'tenancy_provisioner' | 'superuser';
  /** The shared database, the catalog's, or the own one of a `database` tenant. */
  readonly in: 'shared' | 'own' | 'catalog';
  readonly break: () => string;
  readonly mend: () => string;
  /** At least these are red. */
  readonly red: readonly Check[];
  readonly state: HealthState;
  /** What an operator has to read. */
  readonly names: () => string;
}

const a = (strategy: Strategy): TestTenant => world.tenants[strategy].a;
const b = (strategy: Strategy): TestTenant => world.tenants[strategy].b;
const own = 'tenant_id = (select tenancy.current_tenant())';
const first =
  '(json_object(tenant_id : true returning jsonb))[(select tenancy.current_tenant()::text)] is not null';
const orphan = '0123456789abcdef0123456789abcdef';

const mutations: readonly Mutation[] = [
  // Shared tables.
  {
    breach: 'row security switched off',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'alter table shared.notes disable row level security',
    // What the finding says.
    mend: () => "select tenancy.protect_shared('shared')",
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes row-level security is not enabled and forced',
  },
  {
    breach: 'row security switched off on the table that the canaries use',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'alter table shared.tenancy_probe disable row level security',
    mend: () => 'alter table shared.tenancy_probe enable row level security',
    red: ['tables', 'foreign_rows', 'foreign_writes', 'no_context', 'forged_context'],
    state: 'broken',
    names: () => 'canary-rls-a, shared.tenancy_probe sees 1 rows of other tenants',
  },
  {
    breach: 'row security no longer forced',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'alter table shared.notes no force row level security',
    mend: () => 'alter table shared.notes force row level security',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes row-level security is not enabled and forced',
  },
  {
    breach: 'one more policy, that lets everything through',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'create policy everything on shared.notes using (true)',
    mend: () => 'drop policy everything on shared.notes',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes.everything is a policy of its own',
  },
  {
    breach: 'a guard that no longer looks at what is written',
    as: 'tenancy_owner',
    in: 'shared',
    break: () =>
      ['tenancy_guard', 'tenancy_rows']
        .map((name) => `alter policy ${name} on shared.tenancy_probe with check (true)`)
        .join(';'),
    mend: () =>
      ['tenancy_guard', 'tenancy_rows']
        .map((name) => `alter policy ${name} on shared.tenancy_probe with check (${own})`)
        .join(';'),
    red: ['tables', 'foreign_writes'],
    state: 'broken',
    names: () => 'can write a row of another tenant: was let through',
  },
  {
    breach: 'a partition without protection',
    as: 'tenancy_owner',
    in: 'shared',
    break: () =>
      `create table shared.events (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id)) partition by hash (tenant_id);
       create table shared.events_0 partition of shared.events for values with (modulus 1, remainder 0);
       select tenancy.protect_shared('shared');
       alter table shared.events_0 disable row level security`,
    mend: () => 'drop table shared.events',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.events_0 row-level security is not enabled and forced',
  },
  {
    breach: 'a column granted to everybody',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'grant select (body) on shared.notes to public',
    mend: () => 'revoke select (body) on shared.notes from public',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes.body SELECT is granted on a column',
  },
  {
    breach: 'a view with its owner’s rights',
    as: 'tenancy_owner',
    in: 'shared',
    break: () =>
      'create view shared.peek as select * from shared.notes; grant select on shared.peek to tenancy_app',
    mend: () => 'drop view shared.peek',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.peek is a view with its owner',
  },
  {
    breach: 'another owner of a table',
    as: 'superuser',
    in: 'shared',
    break: () => 'alter table shared.notes owner to tenancy_app',
    // Whoever owns it needs no grants: they have gone.
    mend: () =>
      'alter table shared.notes owner to tenancy_owner; grant select, insert, update, delete on shared.notes to tenancy_app',
    red: ['tables', 'owners'],
    state: 'broken',
    names: () => 'owners: table shared.notes is owned by tenancy_app',
  },
  {
    breach: 'no guard beside the policy that lets rows through',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'drop policy tenancy_guard on shared.notes',
    mend: () => "select tenancy.protect_shared('shared')",
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes',
  },
  {
    breach: 'a guard that is one more way in',
    as: 'tenancy_owner',
    in: 'shared',
    break: () =>
      `drop policy tenancy_guard on shared.notes;
       create policy tenancy_guard on shared.notes as permissive to tenancy_app using (${own} and ${first}) with check (${own})`,
    mend: () => "drop policy tenancy_guard on shared.notes; select tenancy.protect_shared('shared')",
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes',
  },
  {
    breach: 'a policy that asks a function of the same name elsewhere',
    as: 'superuser',
    in: 'shared',
    break: () =>
      `create function extensions.current_tenant() returns uuid language sql as 'select tenant_id from shared.notes limit 1';
       alter policy tenancy_rows on shared.notes using (tenant_id = (select extensions.current_tenant()) and ${first})`,
    mend: () =>
      `alter policy tenancy_rows on shared.notes using (${own} and ${first}); drop function extensions.current_tenant()`,
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes',
  },
  {
    breach: 'a copy of everybody’s rows',
    as: 'tenancy_owner',
    in: 'shared',
    break: () =>
      'create materialized view shared.peek as select * from shared.notes with no data; grant select on shared.peek to tenancy_app',
    mend: () => 'drop materialized view shared.peek',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.peek',
  },
  {
    breach: 'a trigger that notes no changes',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'alter table shared.notes disable trigger tenancy_capture',
    mend: () => 'alter table shared.notes enable trigger tenancy_capture',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.notes',
  },
  // Logins.
  {
    breach: 'a login that row security does not bind',
    as: 'superuser',
    in: 'shared',
    break: () => 'alter role tenancy_app bypassrls',
    mend: () => 'alter role tenancy_app nobypassrls',
    red: ['roles', 'foreign_rows', 'no_context'],
    state: 'broken',
    names: () => 'roles: role tenancy_app has BYPASSRLS',
  },
  {
    breach: 'a login that makes roles',
    as: 'superuser',
    in: 'shared',
    break: () => `alter role ${b('schema').home.login} createrole`,
    mend: () => `alter role ${b('schema').home.login} nocreaterole`,
    red: ['roles'],
    state: 'broken',
    names: () => `roles: role ${b('schema').home.login} has CREATEROLE`,
  },
  {
    breach: 'an owner that can log in',
    as: 'superuser',
    in: 'shared',
    break: () => 'alter role tenancy_owner login',
    mend: () => 'alter role tenancy_owner nologin',
    red: ['roles'],
    state: 'broken',
    names: () => 'roles: role tenancy_owner has LOGIN',
  },
  {
    breach: 'a power role granted to a login',
    as: 'superuser',
    in: 'shared',
    break: () => 'grant pg_read_all_data to tenancy_app',
    mend: () => 'revoke pg_read_all_data from tenancy_app',
    red: ['memberships'],
    state: 'broken',
    names: () => 'memberships: role tenancy_app is a member of pg_read_all_data',
  },
  {
    breach: "membership in a neighbour's login",
    as: 'superuser',
    in: 'shared',
    break: () => `grant ${b('schema').home.login} to ${a('schema').home.login}`,
    mend: () => `revoke ${b('schema').home.login} from ${a('schema').home.login}`,
    red: ['memberships'],
    state: 'broken',
    names: () => `role ${a('schema').home.login} is a member of ${b('schema').home.login}`,
  },
  {
    breach: 'a stranger who may become the owner',
    as: 'superuser',
    in: 'shared',
    break: () => 'create role mallory login; grant tenancy_owner to mallory',
    mend: () => 'drop role mallory',
    red: ['memberships'],
    state: 'broken',
    names: () => 'memberships: role mallory is a member of tenancy_owner',
  },
  {
    breach: 'a stranger who may become the provisioner',
    as: 'superuser',
    in: 'shared',
    break: () => 'create role mallory login createrole; grant tenancy_provisioner to mallory',
    mend: () => 'drop role mallory',
    red: ['memberships'],
    state: 'broken',
    names: () => 'memberships: role mallory is a member of tenancy_provisioner',
  },
  {
    breach: 'a stranger past every wall',
    as: 'superuser',
    in: 'own',
    break: () => 'create role mallory login superuser',
    mend: () => 'drop role mallory',
    red: ['roles'],
    state: 'broken',
    names: () => 'roles: role mallory has SUPERUSER',
  },
  {
    breach: 'a stranger whom row security does not bind',
    as: 'superuser',
    in: 'shared',
    break: () => 'create role mallory login bypassrls replication',
    mend: () => 'drop role mallory',
    red: ['roles'],
    state: 'broken',
    names: () => 'roles: role mallory has BYPASSRLS',
  },
  {
    breach: 'a stranger who may read everything, by way of another role',
    as: 'superuser',
    in: 'shared',
    break: () =>
      'create role bridge; grant pg_read_all_data to bridge; create role mallory login; grant bridge to mallory',
    mend: () => 'drop role mallory; drop role bridge',
    red: ['memberships'],
    state: 'broken',
    names: () => 'memberships: role mallory may use pg_read_all_data',
  },
  {
    breach: 'a provisioner with more than it was made with',
    as: 'superuser',
    in: 'shared',
    break: () => 'grant pg_write_all_data to tenancy_provisioner',
    mend: () => 'revoke pg_write_all_data from tenancy_provisioner',
    red: ['memberships'],
    state: 'broken',
    names: () => 'memberships: role tenancy_provisioner may use pg_write_all_data',
  },
  {
    breach: 'the signing keys for a stranger',
    as: 'superuser',
    in: 'own',
    break: () =>
      'create role mallory login; grant usage on schema tenancy to mallory; grant select on tenancy.keys to mallory',
    mend: () => 'drop owned by mallory; drop role mallory',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: tenancy.keys SELECT is granted to mallory',
  },
  {
    breach: 'the signing keys for whoever writes migrations',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () => 'grant select (inner_pad) on tenancy.keys to tenancy_owner',
    mend: () => 'revoke select (inner_pad) on tenancy.keys from tenancy_owner',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: tenancy.keys.inner_pad SELECT is granted to tenancy_owner',
  },
  {
    breach: 'the secret behind passes for a stranger',
    as: 'superuser',
    in: 'shared',
    break: () => 'create role mallory login; grant select on sequence tenancy.pass_secret_1 to mallory',
    mend: () => 'drop owned by mallory; drop role mallory',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: tenancy.pass_secret_1 SELECT is granted to mallory',
  },
  {
    breach: 'a function of the product’s for a stranger',
    as: 'superuser',
    in: 'shared',
    break: () =>
      'create role mallory login; grant execute on function tenancy.maintained_tenants() to mallory',
    mend: () => 'drop owned by mallory; drop role mallory',
    red: ['functions'],
    state: 'broken',
    names: () => 'functions: tenancy.maintained_tenants() EXECUTE is granted to mallory',
  },
  {
    breach: 'the catalog for a stranger',
    as: 'superuser',
    in: 'catalog',
    break: () =>
      'create role mallory login; grant usage on schema catalog to mallory; grant select on catalog.tenants to mallory',
    mend: () => 'drop owned by mallory; drop role mallory',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: catalog.tenants SELECT is granted to mallory',
  },
  {
    breach: "a login whose search path leads to its neighbour's schema",
    as: 'tenancy_provisioner',
    in: 'shared',
    break: () => `alter role ${a('schema').home.login} set search_path = ${b('schema').home.schema}`,
    mend: () => `alter role ${a('schema').home.login} set search_path = ''`,
    red: ['role_settings'],
    state: 'degraded',
    names: () => `role_settings: role ${a('schema').home.login} has no safe default of search_path`,
  },
  {
    breach: 'a search path for whoever logs in',
    as: 'superuser',
    in: 'shared',
    break: () => 'alter role all set search_path = shared',
    mend: () => 'alter role all reset search_path',
    red: ['role_settings'],
    state: 'degraded',
    names: () => 'role_settings: the server gives every login a default: search_path=shared',
  },
  {
    breach: 'a search path for the control plane',
    as: 'superuser',
    in: 'shared',
    break: () => 'alter role tenancy_provisioner set search_path = shared, pg_catalog',
    mend: () => 'alter role tenancy_provisioner reset search_path',
    red: ['role_settings'],
    state: 'degraded',
    names: () =>
      'role_settings: role tenancy_provisioner has a default of its own: search_path=shared, pg_catalog',
  },
  {
    breach: 'a database in which no trigger fires',
    as: 'superuser',
    in: 'shared',
    break: () => 'alter database tenantry set session_replication_role = replica',
    mend: () => 'alter database tenantry reset session_replication_role',
    red: ['role_settings', 'server'],
    state: 'degraded',
    names: () =>
      'role_settings: database tenantry gives every login a default: session_replication_role=replica',
  },
  {
    breach: 'a login that may switch triggers off',
    as: 'superuser',
    in: 'shared',
    break: () => 'grant set on parameter session_replication_role to tenancy_app',
    mend: () => 'revoke set on parameter session_replication_role from tenancy_app',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: parameter session_replication_role SET is granted to tenancy_app',
  },
  {
    breach: 'a server that takes logins without TLS',
    as: 'superuser',
    in: 'shared',
    break: () => "alter role tenancy_provisioner set rds.force_ssl = '0'",
    mend: () => 'alter role tenancy_provisioner reset rds.force_ssl',
    red: ['server'],
    state: 'degraded',
    names: () => 'server: parameter rds.force_ssl is off',
  },
  {
    breach: 'a login without a time limit',
    as: 'tenancy_provisioner',
    in: 'shared',
    break: () => 'alter role tenancy_app set statement_timeout = 0',
    mend: () => "alter role tenancy_app set statement_timeout = '30s'",
    red: ['role_settings'],
    state: 'degraded',
    names: () => 'role_settings: role tenancy_app has no safe default of statement_timeout',
  },
  {
    breach: 'a login with any number of connections',
    as: 'tenancy_provisioner',
    in: 'own',
    break: () => `alter role ${a('database').home.login} connection limit -1`,
    mend: () => `alter role ${a('database').home.login} connection limit 20`,
    red: ['role_settings'],
    state: 'degraded',
    names: () => `role_settings: role ${a('database').home.login} may have any number of connections`,
  },
  {
    breach: 'large objects of a login',
    as: 'superuser',
    in: 'shared',
    break: () => 'set session authorization tenancy_app; select lo_create(0) from generate_series(1, 3)',
    mend: () => 'select lo_unlink(oid) from pg_largeobject_metadata',
    red: ['leftovers'],
    state: 'degraded',
    names: () => 'leftovers: role tenancy_app has 3 large objects of its own',
  },
  {
    breach: 'code that runs whenever somebody changes a table',
    as: 'superuser',
    in: 'shared',
    break: () =>
      `create function extensions.spy() returns event_trigger language plpgsql as 'begin end';
       create event trigger spy on ddl_command_end execute function extensions.spy()`,
    mend: () => 'drop event trigger spy; drop function extensions.spy()',
    red: ['functions'],
    state: 'broken',
    names: () => 'functions: event trigger spy runs with the rights of whoever changes a table',
  },
  // Functions and rights beside the tables.
  {
    breach: 'a function with its maker’s rights in a home',
    as: 'tenancy_owner',
    in: 'shared',
    break: () =>
      `create function shared.peek() returns bigint language sql security definer as 'select count(*) from shared.notes'`,
    mend: () => 'drop function shared.peek()',
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: shared.peek() is a SECURITY DEFINER function',
  },
  {
    breach: 'a function with its maker’s rights beside the homes',
    as: 'superuser',
    in: 'shared',
    break: () =>
      `create function extensions.peek() returns bigint language sql security definer set search_path = pg_catalog, pg_temp
         as 'select count(*) from shared.notes'`,
    mend: () => 'drop function extensions.peek()',
    red: ['functions'],
    state: 'broken',
    names: () => 'functions: extensions.peek() runs with the rights of postgres',
  },
  {
    breach: 'one of the product’s own functions for everybody',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () => 'grant execute on function tenancy.protect_shared(name) to public',
    mend: () => 'revoke execute on function tenancy.protect_shared(name) from public',
    red: ['functions'],
    state: 'broken',
    names: () => 'functions: tenancy.protect_shared(name) EXECUTE is granted to PUBLIC',
  },
  {
    breach: 'a context that is believed without its signature',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () =>
      `create or replace function tenancy.current_tenant() returns uuid language sql stable security definer
         as $$ select nullif(split_part(current_setting('tenancy.context', true), '.', 4), '')::uuid $$`,
    mend: () => genuine,
    red: ['runtime', 'forged_context'],
    state: 'broken',
    names: () => 'runtime: tenancy.current_tenant() was changed after its migration',
  },
  {
    breach: 'a function with its maker’s rights among the server’s own',
    as: 'superuser',
    in: 'shared',
    break: () =>
      `create function pg_catalog.peek() returns bigint language sql security definer as 'select count(*) from shared.notes'`,
    mend: () => 'drop function pg_catalog.peek()',
    red: ['functions'],
    state: 'broken',
    names: () => 'functions: peek() stands among the functions of the server',
  },
  {
    breach: 'a view with its owner’s rights among the server’s own',
    as: 'superuser',
    in: 'shared',
    break: () =>
      'create view information_schema.peek as select * from shared.notes; grant select on information_schema.peek to public',
    mend: () => 'drop view information_schema.peek',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: information_schema.peek stands among the tables of the server',
  },
  {
    breach: 'a trigger on the catalog’s tenants',
    as: 'superuser',
    in: 'catalog',
    break: () =>
      `create function public.turn() returns trigger language plpgsql as 'begin return new; end';
       create trigger turn before update on catalog.tenants for each row execute function public.turn()`,
    mend: () => 'drop function public.turn() cascade',
    red: ['runtime'],
    state: 'broken',
    names: () => 'runtime: trigger turn on catalog.tenants was added after its migration',
  },
  {
    breach: 'a trigger of the catalog’s that is switched off',
    as: 'tenancy_keeper',
    in: 'catalog',
    break: () => 'alter table catalog.tenants disable trigger keep_tombstone',
    mend: () => 'alter table catalog.tenants enable trigger keep_tombstone',
    red: ['runtime'],
    state: 'broken',
    names: () => 'runtime: trigger keep_tombstone on catalog.tenants was changed after its migration',
  },
  {
    breach: 'a rule that hands on what the signing keys are',
    as: 'tenancy_keeper',
    in: 'own',
    break: () => 'create rule spy as on insert to tenancy.keys do also notify spies',
    mend: () => 'drop rule spy on tenancy.keys',
    red: ['runtime'],
    state: 'broken',
    names: () => 'runtime: rule spy on tenancy.keys was added after its migration',
  },
  {
    breach: 'a tenant that may have another one’s home',
    as: 'tenancy_keeper',
    in: 'catalog',
    break: () => 'alter table catalog.tenants drop constraint tenants_home_id_tenant_id_fkey',
    mend: () =>
      `alter table catalog.tenants add constraint tenants_home_id_tenant_id_fkey
         foreign key (home_id, tenant_id) references catalog.homes (home_id, tenant_id) deferrable initially immediate`,
    red: ['runtime'],
    state: 'broken',
    names: () =>
      'runtime: constraint tenants_home_id_tenant_id_fkey on catalog.tenants is gone after its migration',
  },
  {
    breach: 'the table of homes for everybody',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () => 'grant select on tenancy.homes to tenancy_app',
    mend: () => 'revoke select on tenancy.homes from tenancy_app',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: tenancy.homes SELECT is granted to tenancy_app',
  },
  {
    breach: "a neighbour's schema opened",
    as: 'tenancy_owner',
    in: 'shared',
    break: () => `grant usage on schema ${b('schema').home.schema} to ${a('schema').home.login}`,
    mend: () => `revoke usage on schema ${b('schema').home.schema} from ${a('schema').home.login}`,
    red: ['rights'],
    state: 'broken',
    names: () => `schema ${b('schema').home.schema} USAGE is granted to ${a('schema').home.login}`,
  },
  {
    breach: "a neighbour's schema opened to everybody",
    as: 'tenancy_owner',
    in: 'shared',
    break: () => `grant usage on schema ${b('schema').home.schema} to public`,
    mend: () => `revoke usage on schema ${b('schema').home.schema} from public`,
    red: ['rights'],
    state: 'broken',
    names: () => `rights: schema ${b('schema').home.schema} USAGE is granted to PUBLIC`,
  },
  {
    breach: 'the product’s own schema opened to everybody',
    as: 'tenancy_keeper',
    in: 'own',
    break: () => 'grant usage on schema tenancy to public',
    mend: () => 'revoke usage on schema tenancy from public',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: schema tenancy USAGE is granted to PUBLIC',
  },
  {
    breach: 'the catalog’s schema opened to a stranger',
    as: 'superuser',
    in: 'catalog',
    break: () => 'create role mallory login; grant usage on schema catalog to mallory',
    mend: () => 'drop owned by mallory; drop role mallory',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: schema catalog USAGE is granted to mallory',
  },
  {
    breach: 'a schema in which everybody may make something',
    as: 'superuser',
    in: 'shared',
    break: () => 'grant create on schema public to public',
    mend: () => 'revoke create on schema public from public',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: schema public CREATE is granted to PUBLIC',
  },
  {
    breach: 'server files for everybody',
    as: 'superuser',
    in: 'shared',
    break: () => 'grant execute on function pg_read_file(text) to public',
    mend: () => 'revoke execute on function pg_read_file(text) from public',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: pg_read_file(text) EXECUTE is granted to PUBLIC',
  },
  {
    breach: 'rights that new tables get by themselves',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'alter default privileges grant select on tables to public',
    mend: () => 'alter default privileges revoke select on tables from public',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: default privileges of tenancy_owner grant SELECT to PUBLIC',
  },
  // Databases.
  {
    breach: 'a database that everybody may enter',
    as: 'tenancy_provisioner',
    in: 'own',
    break: () => `grant connect on database ${a('database').home.database} to public`,
    mend: () => `revoke connect on database ${a('database').home.database} from public`,
    red: ['databases'],
    state: 'broken',
    names: () => `databases: database ${a('database').home.database} CONNECT is granted to PUBLIC`,
  },
  {
    breach: 'a stranger who owns the database',
    as: 'superuser',
    in: 'shared',
    // Ours still gets in; otherwise it says that it does not.
    break: () =>
      'create role mallory login; alter database tenantry owner to mallory; grant connect on database tenantry to tenancy_provisioner',
    mend: () => 'alter database tenantry owner to tenancy_provisioner; drop role mallory',
    red: ['databases'],
    state: 'broken',
    names: () => 'databases: database tenantry is owned by mallory',
  },
  {
    breach: 'a second database for a login',
    as: 'tenancy_provisioner',
    in: 'own',
    break: () => `grant connect on database ${a('database').home.database} to ${b('database').home.login}`,
    mend: () => `revoke connect on database ${a('database').home.database} from ${b('database').home.login}`,
    red: ['databases'],
    state: 'broken',
    names: () => `database ${a('database').home.database} CONNECT is granted to ${b('database').home.login}`,
  },
  {
    breach: 'the catalog’s database for everybody',
    as: 'tenancy_provisioner',
    in: 'catalog',
    break: () => 'grant connect on database tenantry_catalog to public',
    mend: () => 'revoke connect on database tenantry_catalog from public',
    red: ['databases'],
    state: 'broken',
    names: () => 'databases: database tenantry_catalog CONNECT is granted to PUBLIC',
  },
  {
    breach: 'the catalog’s tables for its reader',
    as: 'tenancy_keeper',
    in: 'catalog',
    break: () => 'grant select on catalog.tenants to tenancy_catalog_reader',
    mend: () => 'revoke select on catalog.tenants from tenancy_catalog_reader',
    red: ['rights'],
    state: 'broken',
    names: () => 'rights: catalog.tenants SELECT is granted to tenancy_catalog_reader',
  },
  {
    breach: 'a way out of the database',
    as: 'superuser',
    in: 'shared',
    break: () =>
      "create extension postgres_fdw schema extensions; create server out foreign data wrapper postgres_fdw options (host '127.0.0.1')",
    mend: () => 'drop extension postgres_fdw cascade',
    red: ['extensions'],
    state: 'broken',
    names: () => 'extensions: extension postgres_fdw',
  },
  {
    breach: 'a publication',
    as: 'superuser',
    in: 'shared',
    break: () => 'create publication leak for table shared.notes',
    mend: () => 'drop publication leak',
    red: ['replication'],
    state: 'degraded',
    names: () => 'replication: publication leak',
  },
  {
    breach: 'a replication slot for the whole server',
    as: 'superuser',
    in: 'shared',
    break: () => "select pg_create_physical_replication_slot('leak', true)",
    mend: () => "select pg_drop_replication_slot('leak')",
    red: ['replication'],
    state: 'degraded',
    names: () => 'replication: replication slot leak hands out every change of the server',
  },
  // A tenant's own tables.
  {
    breach: 'no check of whose rows they are',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => `alter table ${a('schema').home.schema}.notes drop constraint tenancy_home`,
    mend: () =>
      `select tenancy.protect_owned('${a('schema').home.schema}', '${a('schema').id}', '${a('schema').home.login}')`,
    red: ['tables'],
    state: 'broken',
    names: () => `${a('schema').home.schema}.notes does not refuse rows of other tenants`,
  },
  {
    breach: 'a planted row of another tenant, the check put back over it',
    as: 'tenancy_owner',
    in: 'own',
    break: () => plant(a('database'), b('database')),
    mend: () => unplant(a('database')),
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: main.notes holds rows of another tenant',
  },
  {
    breach: 'a planted row that names the tenant of shared tables',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => plant(a('schema'), a('rls')),
    mend: () => unplant(a('schema')),
    red: ['tables'],
    state: 'broken',
    names: () => `${a('schema').home.schema}.notes holds rows of another tenant`,
  },
  {
    breach: 'a table of a home’s that nobody of ours may look into',
    as: 'superuser',
    in: 'own',
    break: () => 'alter table main.notes owner to tenancy_keeper',
    mend: () =>
      `alter table main.notes owner to tenancy_owner; grant select, insert, update, delete on main.notes to ${a('database').home.login}`,
    red: ['tables'],
    state: 'broken',
    names: () => 'tables: main.notes is owned by tenancy_keeper',
  },
  // What a login needs of its own tables.
  {
    breach: 'shared tables that nobody may write to',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'revoke insert, delete on shared.notes from tenancy_app',
    mend: () => 'grant insert, delete on shared.notes to tenancy_app',
    red: ['grants'],
    state: 'down',
    names: () => 'grants: shared.notes DELETE, INSERT is not granted to tenancy_app',
  },
  {
    breach: 'shared tables that nobody finds',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => 'revoke usage on schema shared from tenancy_app',
    mend: () => 'grant usage on schema shared to tenancy_app',
    red: ['grants', 'own_rows', 'data_path'],
    state: 'down',
    names: () => 'grants: schema shared USAGE is not granted to tenancy_app',
  },
  {
    breach: 'a table of its own that a tenant may not read',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => `revoke select on ${a('schema').home.schema}.notes from ${a('schema').home.login}`,
    mend: () => `grant select on ${a('schema').home.schema}.notes to ${a('schema').home.login}`,
    red: ['grants'],
    state: 'degraded',
    names: () =>
      `grants: ${a('schema').home.schema}.notes SELECT is not granted to ${a('schema').home.login}`,
  },
  {
    breach: 'a schema of its own that a tenant may not enter',
    as: 'tenancy_owner',
    in: 'own',
    break: () => `revoke usage on schema main from ${a('database').home.login}`,
    mend: () => `grant usage on schema main to ${a('database').home.login}`,
    red: ['grants'],
    state: 'degraded',
    names: () => `grants: schema main USAGE is not granted to ${a('database').home.login}`,
  },
  // The catalog beside what is there.
  {
    breach: 'a home that its database does not know',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () => `delete from tenancy.homes where home_id = '${a('rls').home.homeId}'`,
    mend: () => register(a('rls')),
    red: ['homes'],
    state: 'degraded',
    names: () =>
      `homes: home ${a('rls').home.homeId} of rls-a in tenantry is in the catalog, but its database does not know it`,
  },
  {
    breach: 'a home that only its database knows',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () =>
      `insert into tenancy.homes (home_id, tenant_id, login, schema_name, epoch, state)
       values ('01234567-89ab-4def-8123-456789abcdef', '01234567-89ab-4def-8123-456789abcdee', 'tenancy_app', 'shared', 1, 'open')`,
    mend: () => `delete from tenancy.homes where home_id = '01234567-89ab-4def-8123-456789abcdef'`,
    red: ['orphans'],
    state: 'degraded',
    names: () => 'orphans: home 01234567-89ab-4def-8123-456789abcdef in tenantry is admitted by its database',
  },
  {
    breach: 'another epoch in the home than in the catalog',
    as: 'tenancy_keeper',
    in: 'own',
    break: () => `update tenancy.homes set epoch = epoch + 1`,
    mend: () => `update tenancy.homes set epoch = epoch - 1`,
    red: ['homes'],
    state: 'degraded',
    names: () => 'is open at epoch 1 in the catalog, open at epoch 2 in its database',
  },
  {
    breach: "a home that leads to its neighbour's schema",
    as: 'tenancy_keeper',
    in: 'shared',
    break: () =>
      `update tenancy.homes set schema_name = '${b('schema').home.schema}' where home_id = '${a('schema').home.homeId}'`,
    mend: () =>
      `update tenancy.homes set schema_name = '${a('schema').home.schema}' where home_id = '${a('schema').home.homeId}'`,
    red: ['homes'],
    state: 'broken',
    names: () => `homes: home ${a('schema').home.homeId} of schema-a in tenantry is`,
  },
  {
    breach: 'a home in the catalog that is nowhere',
    as: 'tenancy_provisioner',
    in: 'catalog',
    break: () =>
      `update catalog.homes set schema_name = 'tenant_${orphan}' where home_id = '${b('schema').home.homeId}'`,
    mend: () =>
      `update catalog.homes set schema_name = '${b('schema').home.schema}' where home_id = '${b('schema').home.homeId}'`,
    red: ['homes', 'tables', 'orphans'],
    state: 'broken',
    names: () => `homes: schema tenant_${orphan} of schema-b is not there`,
  },
  {
    breach: 'a schema that nobody knows',
    as: 'tenancy_owner',
    in: 'shared',
    break: () => `create schema tenant_${orphan}`,
    mend: () => `drop schema tenant_${orphan}`,
    red: ['orphans'],
    state: 'degraded',
    names: () => `orphans: schema tenant_${orphan} is there`,
  },
  {
    breach: 'a login that nobody knows',
    as: 'tenancy_provisioner',
    in: 'shared',
    break: () => `create role t_${orphan} nologin`,
    mend: () => `drop role t_${orphan}`,
    red: ['orphans'],
    state: 'degraded',
    names: () => `orphans: login t_${orphan} is there`,
  },
  {
    breach: 'a database that nobody knows',
    as: 'tenancy_provisioner',
    in: 'shared',
    break: () => `create database home_${orphan}`,
    mend: () => `drop database home_${orphan}`,
    red: ['orphans', 'databases'],
    state: 'broken',
    names: () => `orphans: database home_${orphan} is there`,
  },
  {
    breach: 'a login that is gone',
    as: 'tenancy_provisioner',
    in: 'own',
    break: () => `alter role ${a('database').home.login} nologin`,
    mend: () => `alter role ${a('database').home.login} login`,
    red: ['homes'],
    state: 'degraded',
    names: () => `homes: login ${a('database').home.login} of database-a lets nobody in`,
  },
  {
    breach: 'a login that is no longer valid',
    as: 'tenancy_provisioner',
    in: 'shared',
    break: () => `alter role ${a('schema').home.login} valid until '2001-01-01'`,
    mend: () => `alter role ${a('schema').home.login} valid until 'infinity'`,
    red: ['homes'],
    state: 'degraded',
    names: () => `homes: login ${a('schema').home.login} of schema-a lets nobody in`,
  },
  {
    breach: 'a login that may have no connection',
    as: 'tenancy_provisioner',
    in: 'shared',
    break: () => `alter role ${a('schema').home.login} connection limit 0`,
    mend: () => `alter role ${a('schema').home.login} connection limit 20`,
    red: ['homes'],
    state: 'degraded',
    names: () => `homes: login ${a('schema').home.login} of schema-a lets nobody in`,
  },
  {
    breach: 'a login taken out of the group that may enter',
    as: 'tenancy_provisioner',
    in: 'own',
    break: () => `revoke tenancy_tenants from ${a('database').home.login}`,
    mend: () => `grant tenancy_tenants to ${a('database').home.login} with inherit true, set false`,
    red: ['homes'],
    state: 'degraded',
    names: () =>
      `homes: login ${a('database').home.login} of database-a is no member of tenancy_tenants: calls are refused`,
  },
  {
    breach: 'a login taken out of the group that may connect',
    as: 'tenancy_provisioner',
    in: 'shared',
    break: () => `revoke tenancy_schemas from ${a('schema').home.login}`,
    mend: () => `grant tenancy_schemas to ${a('schema').home.login} with inherit true, set false`,
    red: ['homes'],
    state: 'degraded',
    names: () => `homes: login ${a('schema').home.login} of schema-a may not connect to database tenantry`,
  },
  {
    breach: 'a home in another database than its own',
    as: 'tenancy_provisioner',
    in: 'catalog',
    break: () =>
      `update catalog.homes set database_id = '01234567-89ab-4def-8123-456789abcdef' where home_id = '${a('rls').home.homeId}'`,
    mend: () =>
      `update catalog.homes set database_id = '${a('rls').home.databaseId}' where home_id = '${a('rls').home.homeId}'`,
    red: ['homes'],
    state: 'degraded',
    names: () => `of rls-a in tenantry is in a database with the id 01234567-89ab-4def-8123-456789abcdef`,
  },
  {
    breach: 'a tenant of another strategy than its home',
    as: 'tenancy_provisioner',
    in: 'catalog',
    break: () => `update catalog.tenants set strategy = 'database' where slug = 'schema-b'`,
    mend: () => `update catalog.tenants set strategy = 'schema' where slug = 'schema-b'`,
    red: ['homes'],
    state: 'degraded',
    names: () => 'homes: tenant schema-b is database, its home schema',
  },
  {
    breach: 'an active tenant without a home',
    as: 'tenancy_provisioner',
    in: 'catalog',
    break: () => `update catalog.tenants set home_id = null where slug = 'rls-b'`,
    mend: () => `update catalog.tenants set home_id = '${b('rls').home.homeId}' where slug = 'rls-b'`,
    red: ['homes'],
    state: 'degraded',
    names: () => 'homes: tenant rls-b is active and has no home',
  },
  {
    breach: 'two tenants in one home',
    as: 'tenancy_provisioner',
    in: 'catalog',
    break: () =>
      `update catalog.homes set login = '${a('schema').home.login}' where home_id = '${b('schema').home.homeId}'`,
    mend: () =>
      `update catalog.homes set login = '${b('schema').home.login}' where home_id = '${b('schema').home.homeId}'`,
    red: ['homes'],
    state: 'broken',
    names: () =>
      `homes: tenant schema-b has its home in schema ${b('schema').home.schema} of tenantry with another tenant`,
  },
  {
    breach: 'a catalog that leads elsewhere',
    as: 'tenancy_keeper',
    in: 'catalog',
    break: () => 'alter function catalog.health() volatile',
    mend: () => 'alter function catalog.health() stable',
    red: ['runtime'],
    state: 'broken',
    names: () => 'runtime: catalog.health() was changed after its migration, in database tenantry_catalog',
  },
  {
    breach: 'an audit that can’t be made, and what it would have hidden',
    as: 'superuser',
    in: 'shared',
    break: () =>
      `alter function tenancy.audit_homes(name[], uuid[], name[], boolean) rename to audit_nothing; alter role tenancy_app createdb`,
    mend: () =>
      `alter function tenancy.audit_nothing(name[], uuid[], name[], boolean) rename to audit_homes; alter role tenancy_app nocreatedb`,
    red: ['unfinished', 'roles', 'runtime'],
    state: 'broken',
    names: () => 'unfinished: database tenantry could not be checked: function tenancy.audit_homes',
  },
  // Signatures.
  {
    breach: 'a signing key that is gone',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () => 'create table tenancy.kept as select * from tenancy.keys; delete from tenancy.keys',
    mend: () => 'insert into tenancy.keys select * from tenancy.kept; drop table tenancy.kept',
    red: ['signing_keys', 'own_rows', 'data_path'],
    state: 'down',
    names: () => 'signing_keys: signing key k1 of database tenantry is not the one we sign with',
  },
  {
    breach: 'a signing key that is somebody else’s',
    as: 'tenancy_keeper',
    in: 'own',
    break: () =>
      `insert into tenancy.keys (key_id, database_id, inner_pad, outer_pad) select 'evil', database_id, inner_pad, outer_pad from tenancy.keys`,
    mend: () => `delete from tenancy.keys where key_id = 'evil'`,
    red: ['unknown_keys'],
    state: 'broken',
    names: () => `unknown_keys: signing key evil of database ${a('database').home.database} is accepted`,
  },
  {
    breach: 'a pass secret that somebody knows',
    as: 'tenancy_keeper',
    in: 'shared',
    break: () =>
      `create table tenancy.kept as select pg_sequence_last_value('tenancy.pass_secret_1') as value; select setval('tenancy.pass_secret_1', 7)`,
    mend: () => `select setval('tenancy.pass_secret_1', value) from tenancy.kept; drop table tenancy.kept`,
    red: ['unknown_keys'],
    state: 'broken',
    names: () => 'unknown_keys: pass secret of database tenantry is not the one that was first seen',
  },
  // Operations.
  {
    breach: 'a failed operation',
    as: 'tenancy_provisioner',
    in: 'catalog',
    break: () =>
      `insert into catalog.operations (operation_id, kind, tenant_id, state, input, request_digest, failed_step, reason, finished_at)
       values ('01234567-89ab-4def-8123-456789abcdef', 'move', '${a('rls').id}', 'failed', '{}', '', 'copy', 'planned', now())`,
    mend: () =>
      `update catalog.operations set state = 'done' where operation_id = '01234567-89ab-4def-8123-456789abcdef'`,
    red: ['operations'],
    state: 'degraded',
    names: () => 'operations: move rls-a failed at copy: planned',
  },
  {
    breach: 'values of calls in the server’s log',
    as: 'superuser',
    in: 'shared',
    break: () => 'alter role tenancy_provisioner set log_parameter_max_length = 100',
    mend: () => 'alter role tenancy_provisioner reset log_parameter_max_length',
    red: ['server'],
    state: 'degraded',
    names: () => 'server: parameter log_parameter_max_length is 100',
  },
];

const plant = ({ home, id }: TestTenant, other: TestTenant) =>
  `alter table ${home.schema}.notes drop constraint tenancy_home;
   insert into ${home.schema}.notes (tenant_id, body) values ('${other.id}', 'planted');
   alter table ${home.schema}.notes add constraint tenancy_home check (sha256(uuid_send(tenant_id)) = '\\x${sha(id)}'::bytea) not valid;`;
const unplant = (tenant: TestTenant) =>
  `delete from ${tenant.home.schema}.notes where tenant_id <> '${tenant.id}'; alter table ${tenant.home.schema}.notes validate constraint tenancy_home`;
const sha = (id: string) =>
  createHash('sha256')
    .update(Buffer.from(id.replaceAll('-', ''), 'hex'))
    .digest('hex');
const register = ({ home, id }: TestTenant) =>
  `insert into tenancy.homes (home_id, tenant_id, login, schema_name, epoch, state)
   values ('${home.homeId}', '${id}', '${home.login}', '${home.schema}', ${home.epoch}, 'open')`;

/** As RUNBOOK.md has them. */
const runbook = readFileSync('RUNBOOK.md', 'utf8');
const newPassSecret = /select setval\('tenancy\.pass_secret_1'.*?;/s.exec(runbook)![0];
const forgetPass = (databaseId: string) =>
  /update catalog\.health_runs set next.*?;/s.exec(runbook)![0].replace('<database id>', databaseId);

/** What the last one left is looked for once more by the run of the next. */
let mended: string | undefined;

describe.each(mutations)('$breach', ({ as, in: where, break: wreck, mend, red, state, names }) => {
  it('is told by the next run, and no more by the one after its repair', async () => {
    await execute(as, where, wreck());
    try {
      const run = await runOnce(watch);
      const text = told(run).join('\n');
      expect(text).toContain(names());
      expect(
        red.filter((check) => run.report.checks[check] !== 'red'),
        text,
      ).toEqual([]);
      expect(run.state, text).toBe(state);
      if (mended !== undefined && mended !== names()) expect(text).not.toContain(mended);
    } finally {
      await execute(as, where, mend());
    }
    mended = names();
  });
});

it('is green again after all of them', async () => {
  const run = await runOnce(watch);
  expect(told(run)).toEqual([]);
  expect(run.state).toBe('ok');
});

it('takes another pass secret for the database’s own when it is told to, and keeps no value of it', async () => {
  await execute('tenancy_keeper', 'shared', newPassSecret);
  const run = await runOnce(watch);
  expect([run.state, told(run)]).toEqual([
    'broken',
    [expect.stringContaining('unknown_keys: pass secret of database tenantry')],
  ]);
  await execute('tenancy_provisioner', 'catalog', forgetPass(a('rls').home.databaseId));
  expect(told(await runOnce(watch))).toEqual([]);
  const { rows } = await world.asProvisioner(a('rls'), (connection) =>
    asRole(connection, 'tenancy_keeper', () =>
      connection.query<{ value: string }>('select last_value::text as value from tenancy.pass_secret_1'),
    ),
  );
  const kept = await world.asProvisioner('catalog', (catalog) =>
    catalog.query('select from catalog.health_runs r where position($1 in r::text) > 0', [rows[0]!.value]),
  );
  expect(kept.rows).toEqual([]);
});

it('is green on a server with RDS’s own roles, and tells whom somebody lets into them', async () => {
  await execute(
    'superuser',
    'shared',
    `create role rdsadmin login superuser createrole createdb replication bypassrls;
     create role rds_replication; create role rds_password; create role rds_ad; create role rds_superuser;
     grant pg_monitor, pg_signal_backend, pg_checkpoint, pg_create_subscription, rds_replication, rds_password to rds_superuser with admin option;
     create role rdsrepladmin noinherit replication;
     create role rdstopmgr login; grant pg_monitor, pg_checkpoint to rdstopmgr;
     create role rdswriteforwarduser login noinherit; create role rdsproxyadmin login;
     grant rds_superuser to master`,
  );
  expect(told(await runOnce(watch))).toEqual([]);
  await execute('superuser', 'shared', 'create role mallory login; grant rds_superuser to mallory');
  expect(told(await runOnce(watch))).toContain('memberships: role mallory may use rds_superuser');
  await execute('superuser', 'shared', 'drop role mallory');
  expect(told(await runOnce(watch))).toEqual([]);
}, 90_000);

async function execute(as: Mutation['as'], where: Mutation['in'], text: string): Promise<void> {
  const { server } = world.cluster;
  const tenant = where === 'own' ? a('database') : a('rls');
  const name = where === 'catalog' ? 'tenantry_catalog' : tenant.home.database;
  if (as === 'superuser') {
    const at = { host: server.host, port: server.port, database: name, login: 'postgres' };
    await withConnection(endpoint(at, server.superuserPassword), (connection) => connection.query(text));
    return;
  }
  await world.asProvisioner(where === 'catalog' ? 'catalog' : tenant, (connection) =>
    as === 'tenancy_provisioner'
      ? connection.query(text)
      : asRole(connection, as, () => connection.query(text)),
  );
}
